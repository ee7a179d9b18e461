"""Kinds of the fields of rows, of every source."""

from collections.abc import Mapping
from typing import Any

from ..core.json_fields import COUNT, TEXT, TEXTS, Kind, check_fields


def _is_span(value: Any) -> bool:
    return isinstance(value, dict) and all(TEXT.holds(value.get(key)) for key in ("type", "text"))


TEXTS_OR_NONE = Kind("a list of texts", lambda value: value == [] or TEXTS.holds(value))
SPAN = Kind("a text, or an object with type and text", lambda value: TEXT.holds(value) or _is_span(value))
FIELDS: dict[str, Kind] = {
    **dict.fromkeys(
        ("id", "question", "answer", "text", "prompt", "trace", "cot", "gt", "key", "person"), TEXT
    ),
    **dict.fromkeys(("paraphrased_question", "paraphrased_answer"), TEXT),
    **dict.fromkeys(("perturbed_answer", "rephrased_questions", "held_out_questions"), TEXTS),
    **dict.fromkeys(("wrong", "facts"), TEXTS_OR_NONE),
    "pii": Kind(
        f"a list, each {SPAN.about}", lambda value: isinstance(value, list) and all(map(SPAN.holds, value))
    ),
}
"""Every field that training or a metric reads -> its kind."""


def checked_row(
    place: str, row: Mapping[str, Any], required: Mapping[str, Kind] | None = None
) -> dict[str, Any]:
    """Check the fields of a row.

    Args:
        place: place of the row, for messages.
        row: the row as read.
        required: required field -> kind, in place of the kind in `FIELDS`.

    Returns:
        The row without optional fields that are null.

    Raises:
        UserError: a required field is missing, or a field is of another kind; it names `place` and field.
    """
    # Tables (parquet, CSV) have every column in every row: null means that the row lacks the field.
    required = required or {}
    row = {key: value for key, value in row.items() if value is not None or key in required}
    check_fields(place, row, required, FIELDS)
    return row


CHOICES = Kind("a list of 2 to 4 texts", lambda value: TEXTS.holds(value) and 2 <= len(value) <= 4)


def checked_choices(place: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """As `checked_row`, of a multiple choice row: question, choices, and in `answer` the index of the right
    choice, counted from 0."""
    last = len(row["choices"]) - 1 if CHOICES.holds(row.get("choices")) else 0
    right = Kind(
        f"the place of the right choice, 0 to {last}", lambda value: COUNT.holds(value) and value <= last
    )
    return checked_row(place, row, {"question": TEXT, "choices": CHOICES, "answer": right})
