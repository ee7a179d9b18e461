"""Rows of an evaluation as tables of a tracking service."""

from collections.abc import Sequence
from typing import Any

from ..core.markdown import table
from ..core.screen import visible

MOST_ROWS = 100
"""Rows of a table; all are in samples/*.jsonl."""
LONGEST_CELL = 500


def columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns that hold texts and numbers, those of the rows first."""
    found = dict.fromkeys(key for row in rows[:MOST_ROWS] for key, value in row.items() if _is_plain(value))
    return [*found]


def cells(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[list[Any]]:
    """A list per row, in the order of the columns."""
    return [[_cell(row.get(name)) for name in names] for row in rows[:MOST_ROWS]]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown."""
    names = columns(rows)
    return table(names, [["" if cell is None else str(cell) for cell in line] for line in cells(rows, names)])


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)[:LONGEST_CELL]
    return value if _is_plain(value) else None
