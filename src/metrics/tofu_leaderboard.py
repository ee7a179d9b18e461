"""TOFU's published leaderboard: the CSV files of locuslab/open-unlearning, branch tofu_deprecated,
notebook/leaderboard, as `<model>-<percent>p.csv` or in folders of that name. One row per method and epoch,
its figures under their names there."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.files import UserError, read_text
from ..core.json_fields import PROBABILITY, shown
from .aggregates import harmonic_mean
from .tofu import UTILITY_PARTS

SETS = {"Retain": "retain", "Real Authors": "real", "Real World": "world", "Forget": "forget"}
PARTS = {"Prob.": "prob", "ROUGE": "rougeL", "Truth Ratio": "truth_ratio"}
FIGURES = {"Forget Quality": "forget_quality", "Model Utility": "model_utility"} | {
    f"{part} {name}": f"{rows}/{key}" for name, rows in SETS.items() for part, key in PARTS.items()
}
"""Column -> metric of this project with the same definition."""
TEXTS = ("Method", "Epoch", "Model")
TOLERANCE = 1e-9
"""Largest difference of a model utility from the mean of its parts that is rounding."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of the leaderboard.

    Args:
        model: Name of its model.
        split: Name of the forget set, or of the file where that names none.
        method: Name of its method; Finetune and Retain Model are not unlearned.
        epoch: Epochs of unlearning, -1 where there was none.
        figures: Metric -> value; None for an empty cell.
        place: File and line.
    """

    model: str
    split: str
    method: str
    epoch: int
    figures: dict[str, float | None]
    place: str

    @property
    def title(self) -> str:
        epoch = f", epoch {self.epoch}" if self.epoch >= 0 else ""
        return f"{self.method}{epoch} ({self.model}, {self.split})"

    @property
    def utility(self) -> float | None:
        """The harmonic mean of the nine parts of model utility; None where one is missing."""
        return harmonic_mean({key: self.figures[key] for key in UTILITY_PARTS}).value


def read_leaderboard(path: str | Path) -> list[PublishedRow]:
    """Read a CSV file, or all of a folder and of the folders `<model>-<percent>p` in it.

    Raises:
        UserError: There is no such file, a column is missing, or a cell is not what its column has; with
            file, line and column.
    """
    path = Path(path).expanduser()
    files = sorted((*path.glob("*.csv"), *path.glob("*-*p/*.csv"))) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no *.csv; expected TOFU's leaderboard files, llama-10p.csv and others")
    # Sorted by split, not by file name, in which 10p comes before 1p.
    return sorted((row for file in files for row in _read(file)), key=lambda row: (row.model, row.split))


def _read(path: Path) -> list[PublishedRow]:
    reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    try:
        records = [(reader.line_num, record) for record in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    absent = [name for name in (*TEXTS, *FIGURES) if name not in (reader.fieldnames or ())]
    if absent:
        raise UserError(f"{path}: no column {', '.join(absent[:3])}; expected a file of TOFU's leaderboard")
    percent = re.search(r"-(\d+)p$", path.stem) or re.search(r"-(\d+)p$", path.absolute().parent.name)
    split = f"forget{int(percent[1]):02d}" if percent else f"file {path.stem}"
    return [_row(f"{path}, line {line}", record, split) for line, record in records]


def _row(place: str, record: dict, split: str) -> PublishedRow:
    if None in record:
        raise UserError(f"{place}: more cells than columns")
    for name, cell in record.items():
        if cell is None or (name in TEXTS and not cell.strip()):
            raise UserError(f"{place}: {name} is {'missing' if cell is None else 'empty'}")
    texts = {name: record[name].strip() for name in TEXTS}
    if not re.fullmatch(r"-?\d{1,6}", texts["Epoch"]):
        raise UserError(f"{place}: Epoch must be a whole number, got {shown(texts['Epoch'])}")
    figures = {key: _cell(f"{place}: {name}", record[name]) for name, key in FIGURES.items()}
    return PublishedRow(texts["Model"], split, texts["Method"], int(texts["Epoch"]), figures, place)


def _cell(place: str, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not PROBABILITY.holds(value):
        raise UserError(f"{place} must be {PROBABILITY.about}, got {shown(text)}")
    return value


def select_rows(rows: Sequence[PublishedRow], words: Sequence[str]) -> list[PublishedRow]:
    """Rows that fit words about their model, split, method or epoch: any of the words about each of these.

    Raises:
        UserError: A word is part of none of them, or no row fits all; with what there is.
    """
    kept = list(rows)
    fields = ("model", "split", "method", "epoch")
    names = {field: dict.fromkeys(_name(row, field) for row in rows) for field in fields}
    wanted: dict[str, list[str]] = {}
    for word in words:
        about = [field for field in fields if any(_fits(word, name) for name in names[field])]
        if not about:
            known = "; ".join(f"{field}: {', '.join(names[field])}" for field in fields)
            raise UserError(f"--rows: {word!r} is in no row of the leaderboard; there are {known}")
        wanted.setdefault(about[0], []).append(word)
    for field, some in wanted.items():
        kept = [row for row in kept if any(_fits(word, _name(row, field)) for word in some)]
    if not kept:
        raise UserError(f"--rows: no row of the leaderboard fits {' '.join(words)}")
    return kept


def _name(row: PublishedRow, field: str) -> str:
    """What words are looked for in; splits are also called by their percentage, as their files are."""
    if field == "split" and row.split.startswith("forget"):
        return f"{row.split} ({int(row.split.removeprefix('forget'))}p)"
    return f"epoch {row.epoch}" if field == "epoch" else getattr(row, field)


def _fits(word: str, name: str) -> bool:
    return word.casefold() in name.casefold()


def utility_faults(rows: Sequence[PublishedRow]) -> list[str]:
    """Rows whose model utility is not the harmonic mean of its nine parts."""
    found = []
    for row in rows:
        stored = row.figures["model_utility"]
        if stored is None or row.utility is None:
            found.append(f"{row.title}: model utility cannot be recomputed, a cell of {row.place} is empty")
        elif abs(stored - row.utility) > TOLERANCE:
            found.append(f"{row.title}: model utility is {stored!r}, but its nine parts give {row.utility!r}")
    return found
