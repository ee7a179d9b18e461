"""What is read from an evaluation log of another toolkit: per-row values, and every figure of the log
recomputed from them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.files import UserError
from ..core.json_fields import Kind, check_value, shown

Cells = dict[str, Any]
"""Column -> value of a row: a number, a text, a list of numbers, or None."""
Columns = dict[str, dict[str, Cells]]
"""Row set -> row id -> column -> value. Rows of other toolkits have their number as id."""

TOLERANCE = 1e-12
"""Largest difference of a stored figure from its rows that is rounding."""
P_TOLERANCE = 1e-6
"""The same for p-values, relative: they span 30 orders of magnitude."""


@dataclass(frozen=True)
class Figure:
    """A figure of a log.

    Args:
        name: Its name in the log.
        key: The metric of this project with the same definition, else `<toolkit>/<name>`.
        recomputed: Its value from the rows; None where the log lacks what it is made of.
        stored: Its value in the log; None where it has none.
        n: Rows behind `recomputed`.
        unscored: Rows without a value, left out.
        reason: Why a value is missing, or what it leaves out.
    """

    name: str
    key: str
    recomputed: float | None = None
    stored: float | None = None
    n: int = 0
    unscored: int = 0
    reason: str = ""

    @property
    def value(self) -> float | None:
        """The recomputed value; the stored one where nothing can be recomputed."""
        return self.stored if self.recomputed is None else self.recomputed

    @property
    def difference(self) -> float | None:
        """|stored - recomputed|, relative for forget quality; None unless both are there."""
        if self.stored is None or self.recomputed is None:
            return None
        difference = abs(self.stored - self.recomputed)
        return difference / max(self.stored, self.recomputed, 1e-300) if self.is_p_value else difference

    @property
    def is_p_value(self) -> bool:
        return self.key == "forget_quality"

    @property
    def agrees(self) -> bool:
        """Whether the stored value is that of the rows, up to rounding."""
        if self.difference is None:
            return True
        scale = 1.0 if self.is_p_value else max(1.0, abs(self.stored or 0.0))
        return self.difference <= (P_TOLERANCE if self.is_p_value else TOLERANCE) * scale


@dataclass
class PublishedLog:
    """An evaluation log of another toolkit.

    Args:
        path: Its file.
        toolkit: Name of the toolkit, for messages.
        caution: What a reader of its figures should know.
        columns: Per-row values and texts.
        figures: Every figure of the log.
        warnings: Faults of the log that do not prevent reading it, one line each.
        benchmark: Name of the benchmark whose rows it has.
    """

    path: Path
    toolkit: str
    caution: str = ""
    columns: Columns = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    benchmark: str = "TOFU"

    def add(self, figure: Figure) -> None:
        """Add a figure, with a warning where its stored value is not that of its rows."""
        self.figures.append(figure)
        if not figure.agrees:
            self.warnings.append(
                f"{figure.name}: stored {figure.stored!r}, but the rows give {figure.recomputed!r}, used here"
            )

    def put(self, rows: str, column: str, values: Mapping[str, Any]) -> None:
        """Add a column to the rows of a set."""
        table = self.columns.setdefault(rows, {})
        for index, value in values.items():
            table.setdefault(index, {})[column] = value

    def value(self, name: str) -> float | None:
        """Value of the figure of that name in the log; None without one."""
        return next((figure.value for figure in self.figures if figure.name == name), None)

    @property
    def checked(self) -> list[Figure]:
        """Figures that were stored and could be recomputed."""
        return [figure for figure in self.figures if figure.difference is not None]

    @property
    def largest_difference(self) -> float:
        """Largest difference of a stored figure from its rows."""
        return max((figure.difference or 0.0 for figure in self.checked), default=0.0)


def numbered(place: str, column: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """A column in numeric order of its rows: JSON keys are texts, and "10" sorts before "2".

    Args:
        place: Name of the column, for messages.
        column: Row number, as a text -> value, or None for a row that has none.
        kind: Kind of the values.

    Raises:
        UserError: A key is not a row number, or a value is of another kind.
    """
    for index, value in column.items():
        if not (index.isascii() and index.isdigit() and len(index) < 10 and str(int(index)) == index):
            raise UserError(f"{place}: {shown(index)} is not a row number")
        if value is not None:
            check_value(f"{place}, row {index}", value, kind)
    return dict(sorted(column.items(), key=lambda item: int(item[0])))


def mean(values: Iterable[float | None]) -> tuple[float | None, int, int]:
    """Mean over the rows that have a value, their number, and the number of the others."""
    values = list(values)
    scored = [value for value in values if value is not None]
    return math.fsum(scored) / len(scored) if scored else None, len(scored), len(values) - len(scored)


def counted(names: Sequence[str], most: int = 5) -> str:
    """Names for a message, the first few of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
