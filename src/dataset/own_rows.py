"""Conversion of a user's own rows, with columns of any name, to rows of this project.

question, answer                  a question; `dataset.columns` maps other column names
messages                          a chat: the last assistant turn is the answer, the user turn before it
                                  the question; earlier turns and a system text become `turns`, which the
                                  chat template puts before the question
text                              a document
paraphrased_answer, perturbed_answer, cot, ...     optional
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.files import UserError
from ..core.registry import did_you_mean
from ..core.words import words
from .row_checks import checked_row

TEXTS = {"id", "question", "answer", "text", "trace", "cot", "paraphrased_question", "paraphrased_answer"}
LISTS = {"perturbed_answer", "rephrased_questions", "held_out_questions"}
COLUMNS = (*sorted(TEXTS | LISTS), "messages")
"""Columns that `dataset.columns` can map."""
USUAL_NAMES = {
    "question": ("prompt", "instruction", "input", "query", "user"),
    "answer": ("response", "output", "completion", "target", "assistant", "reply"),
    "text": ("document", "content", "body"),
    "messages": ("conversations", "conversation", "chat", "dialogue"),
}
"""Names of the same columns in other data sets, for advice in messages."""
ROLES = ("system", "user", "assistant")
RESERVED = {"prompt", "turns"}
"""Fields with a meaning of their own within the project; a user's columns of these names are dropped."""


def column_pair(text: Any) -> str:
    """Check a pair `column=user_column` of `dataset.columns`. UserError with near names."""
    column, found, user_column = str(text).partition("=")
    if not found or not column.strip() or not user_column.strip():
        raise UserError(f"{text!r} is not a pair")
    if column.strip() not in COLUMNS:
        near = did_you_mean(column.strip(), COLUMNS) or f"; there are {', '.join(COLUMNS)}"
        raise UserError(f"{column.strip()!r} is not a column that rows can have{near}")
    return f"{column.strip()}={user_column.strip()}"


def own_rows(records: Sequence[tuple[str, dict]], name: str, columns: Mapping[str, str]) -> list[dict]:
    """Convert the rows of a table. A row without an `id` gets `<name>-<number>`.

    Args:
        records: (place, row) pairs; the place is for messages.
        name: start of the ids.
        columns: column of this project -> the user's column.

    Raises:
        UserError: a row is invalid; the message names its place and its columns.
    """
    return [_own_row(row, place, f"{name}-{number}", columns) for number, (place, row) in enumerate(records)]


def _own_row(given: dict, place: str, identity: str, columns: Mapping[str, str]) -> dict:
    row = _renamed(given, columns)
    if "messages" in row and not {"question", "answer", "text"} & set(row):
        row |= from_messages(row.pop("messages"), place)
    if row.keys() & {"question", "answer", "text"} not in ({"question", "answer"}, {"text"}):
        raise UserError(
            f"{place}: needs question and answer, or text alone, or messages; it has"
            f" {', '.join(map(repr, given)) or 'nothing'}{_advice(given, columns)}"
        )
    if isinstance(row.get("id"), int) and not isinstance(row["id"], bool):
        row["id"] = str(row["id"])
    return {"id": identity} | checked_row(place, row)


def _renamed(given: dict, columns: Mapping[str, str]) -> dict:
    """The row under this project's column names, without empty cells."""
    there = {key: value for key, value in given.items() if value is not None}
    mapped = {column: there[user_column] for column, user_column in columns.items() if user_column in there}
    taken = RESERVED | set(columns.values())
    return {key: value for key, value in there.items() if key not in taken} | mapped


def _advice(row: dict, columns: Mapping[str, str]) -> str:
    """Advice for mapping the columns of a row, as the end of a message."""
    absent = [(column, user_column) for column, user_column in columns.items() if user_column not in row]
    if absent:
        column, user_column = absent[0]
        near = did_you_mean(user_column, row)
        return f" (dataset.columns {column}={user_column}: there is no {user_column!r}{near})"
    mapping = {}
    for column, usual in USUAL_NAMES.items():
        alike = [key for key in row if set(usual) & set(words(str(key))) and key not in mapping.values()]
        if column not in row and alike:
            mapping[column] = alike[0]
    if mapping:
        pairs = " ".join(
            f'"{column}={user_column}"' if " " in str(user_column) else f"{column}={user_column}"
            for column, user_column in mapping.items()
        )
        return f"; --dataset.columns {pairs} names the columns"
    expected = ("question", "answer")
    hints = (did_you_mean(str(key), expected) for key in row if key not in expected)
    misspelt = next(filter(None, hints), "")
    return f"{misspelt or ';'} --dataset.columns question=A answer=B names the columns"


def from_messages(turns: Any, place: str) -> dict:
    """Question, answer and earlier `turns` of a chat. UserError naming the row."""
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{place}: 'messages' must be a list of turns, got {turns!r:.80}")
    read = [_turn(turn, f"{place}, message {number}") for number, turn in enumerate(turns, 1)]
    last = max((n for n, turn in enumerate(read) if turn["role"] == "assistant"), default=0)
    if not last or read[last - 1]["role"] != "user":
        roles = ", ".join(turn["role"] for turn in read)
        raise UserError(
            f"{place}: the last assistant turn is the answer and must follow a user turn; the roles"
            f" are {roles}"
        )
    question, answer = read[last - 1]["content"], read[last]["content"]
    return {"question": question, "answer": answer} | ({"turns": read[: last - 1]} if last > 1 else {})


def _turn(turn: Any, place: str) -> dict[str, str]:
    if not isinstance(turn, dict) or not {"role", "content"} <= set(turn):
        raise UserError(f"{place}: expected an object with role and content, got {turn!r:.80}")
    role, content = turn["role"], turn["content"]
    if role not in ROLES:
        raise UserError(f"{place}: the role must be one of {', '.join(ROLES)}, got {role!r:.40}")
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str) or not content.strip():
        raise UserError(f"{place}: the content must be a text with words in it, got {content!r:.80}")
    return {"role": role, "content": content}


def questions(rows: Sequence[dict]) -> list[dict]:
    """The rows with a question; documents cannot be measured by generated answers."""
    return [row for row in rows if "question" in row]
