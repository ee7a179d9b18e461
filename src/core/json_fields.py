"""Checks of fields in JSON records from outside this project.

for place, row in read_records(path):
    check_fields(place, row, {"question": TEXT}, {"perturbed_answer": TEXTS})
"""

import json
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .files import UserError

SHOWN = 60
"""Most characters of a wrong value in a message."""
ROUNDING = 1e-3
"""Distance by which a probability or a loss may lie outside its range: some toolkits compute in bfloat16."""


@dataclass(frozen=True)
class Kind:
    """Kind of values: a description for messages and a predicate."""

    about: str
    holds: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; booleans are not, nor are whole numbers beyond the floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def number(least: float = -math.inf, most: float = math.inf, slack: float = 0.0) -> Kind:
    """Kind of finite numbers from `least` to `most`, each limit widened by `slack`."""
    limits = f" from {least:g} to {most:g}" if math.isfinite(most) else f" of at least {least:g}"
    about = "a finite number" + (limits if math.isfinite(least) else "")
    return Kind(about, lambda value: is_number(value) and least - slack <= value <= most + slack)


def list_of(kind: Kind) -> Kind:
    """Kind of non-empty lists whose items are of `kind`."""
    return Kind(
        f"a list, each {kind.about}",
        lambda value: isinstance(value, list) and bool(value) and all(map(kind.holds, value)),
    )


def or_null(kind: Kind) -> Kind:
    """Kind of null and the values of `kind`."""
    return Kind(f"{kind.about} or null", lambda value: value is None or kind.holds(value))


STRING = Kind("a text", lambda value: isinstance(value, str))
TEXT = Kind("a text with words in it", lambda value: isinstance(value, str) and bool(value.strip()))
TEXTS = Kind("a list of texts", list_of(TEXT).holds)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind("a whole number of at least 0", lambda value: type(value) is int and value >= 0)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
PROBABILITY = number(0, 1, ROUNDING)
LOSS = number(0, slack=ROUNDING)


def check_value(place: str, value: Any, kind: Kind, advice: str = "") -> None:
    """Check a value.

    Args:
        place: Name of the value, for the message.
        value: The value.
        kind: Its expected kind.
        advice: End of the message.

    Raises:
        UserError: The value is of another kind.
    """
    if not kind.holds(value):
        raise UserError(f"{place} must be {kind.about}, got {shown(value)}{advice}")


def check_fields(
    place: str,
    record: Mapping[str, Any],
    required: Mapping[str, Kind],
    optional: Mapping[str, Kind] | None = None,
    advice: str = "",
) -> None:
    """Check the fields of a record.

    Args:
        place: Place of the record, for the message.
        record: Field -> value; fields without a kind are not checked.
        required: Kinds of fields that must exist.
        optional: Kinds of fields that may be missing.
        advice: End of the message.

    Raises:
        UserError: A required field is missing, or a field is of another kind.
    """
    for key, kind in required.items():
        if key not in record:
            raise UserError(f"{place}: {key!r} is missing, expected {kind.about}{advice}")
    extra = {key: kind for key, kind in (optional or {}).items() if key not in required}
    for key, kind in [*required.items(), *extra.items()]:
        if key in record:
            check_value(f"{place}: {key!r}", record[key], kind, advice)


def shown(value: Any) -> str:
    """A value for a message: one line of at most `SHOWN` characters."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = SHORT.repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


SHORT = reprlib.Repr()
"""Bounded repr: values from outside may be nested so deeply that Python's own repr fails."""
SHORT.maxlevel, SHORT.maxstring, SHORT.maxother = 3, SHOWN, SHOWN
