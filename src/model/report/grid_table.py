"""Table of a grid of runs: mean over seeds of each metric with its spread or a bootstrap interval."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from ...core.files import UserError, read_json, read_records, write_text
from ...core.json_fields import OBJECT, TEXT, check_fields, check_value, number, or_null
from ...metrics.external_results import read_metrics
from ...metrics.spec import ARROWS, METRICS

RESAMPLES = 1000
FACTS = {"seconds": "train_seconds", "peak_memory_mb": "peak_memory_mb"}
"""Columns from a run's environment.json -> their keys there."""


@dataclass(frozen=True)
class Cell:
    """A metric over the seeds of one line. `mean` is None where no seed has the metric."""

    mean: float | None
    spread: float | None
    """Sample standard deviation over seeds."""
    n: int
    """Number of runs with the metric."""
    runs: int = 0
    """Number of all runs; n is shown where it is smaller."""
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        if self.mean is None:
            return "–"
        uncertainty = "" if self.spread is None else f" ± {short(self.spread)}"
        if self.interval:
            uncertainty = f" [{short(self.interval[0])}, {short(self.interval[1])}]"
        return short(self.mean) + uncertainty + (f" (n={self.n})" if self.n < self.runs else "")


@dataclass(frozen=True)
class Line:
    """One configuration of a grid: its title, a cell per metric, and the reasons of failed runs."""

    title: str
    cells: Mapping[str, Cell]
    failures: Sequence[str] = ()


def run_figures(folder: Path) -> dict[str, float | None]:
    """Metric -> value of a finished run, with its seconds and peak memory."""
    path = folder / "environment.json"
    facts = read_json(path)
    check_value(str(path), facts, OBJECT)
    check_fields(str(path), facts, dict.fromkeys(FACTS.values(), or_null(number())))
    return read_metrics(folder / "metrics.json") | {name: facts[key] for name, key in FACTS.items()}


def row_values(folder: Path, key: str) -> dict[str, float | None] | None:
    """Row id -> value of a metric, from the samples of a finished run; None without values by row."""
    path = folder / "samples" / f"{METRICS[key].rows}.jsonl" if key in METRICS else None
    if path is None or not path.is_file():
        return None
    records, column = read_records(path), key.partition("/")[2]
    if not records or column not in records[0][1]:
        return None
    for place, row in records:
        check_fields(place, row, {"id": TEXT, column: or_null(number())})
    return {row["id"]: row[column] for _, row in records}


def pooled_interval(runs: Sequence[Mapping[str, float | None]]) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of the mean over runs and rows.

    Args:
        runs: row id -> value, for each run.

    Returns:
        (low, high), or None without any value.
    """
    # Both runs and rows are resampled. Runs with the same rows share the drawn rows: hard rows are hard for
    # every seed, and independent draws would average that out and make the interval too narrow.
    ids = sorted({name for run in runs for name in run})
    values = [np.array([run.get(name) for name in ids], dtype=float) for run in runs]  # None becomes NaN
    shared = len({frozenset(run) for run in runs}) == 1
    values = values if shared else [found[[name in run for name in ids]] for found, run in zip(values, runs)]
    if not values or all(np.isnan(found).all() for found in values):
        return None
    rng = np.random.default_rng(0)
    means = [_resampled_mean(rng, values, shared) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return float(low), float(high)


def _resampled_mean(rng: np.random.Generator, runs: Sequence[np.ndarray], shared: bool) -> float:
    """The mean over resampled runs and rows; NaN where no drawn row has a value."""
    rows = rng.integers(0, len(runs[0]), len(runs[0])) if shared else None
    drawn = [runs[k] for k in rng.integers(0, len(runs), len(runs))]
    values = np.concatenate(
        [run[rows] if shared else run[rng.integers(0, len(run), len(run))] for run in drawn]
    )
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan


def aggregate(
    title: str,
    runs: Sequence[Mapping[str, float | None]],
    metrics: Sequence[str],
    failures: Sequence[str] = (),
    folders: Sequence[Path] = (),
) -> Line:
    """Mean and sample standard deviation of every metric over the runs that have it.

    Args:
        title: title of the line.
        runs: metric -> value, for each finished run.
        metrics: the columns.
        failures: reasons of the runs that failed.
        folders: folders of `runs`, for intervals of metrics that are means over rows; empty for none.
    """
    cells = {}
    for key in metrics:
        values = [value for run in runs if (value := run.get(key)) is not None]
        rows = [found for folder in folders if (found := row_values(folder, key)) is not None]
        cells[key] = Cell(
            fmean(values) if values else None,
            stdev(values) if len(values) > 1 else None,
            len(values),
            len(runs) + len(failures),
            pooled_interval(rows) if rows and len(rows) == len(runs) else None,
        )
    return Line(title, cells, failures)


def check_metrics(metrics: Sequence[str]) -> None:
    """UserError for a column that no run can have."""
    unknown = [key for key in metrics if key not in METRICS and key not in FACTS]
    if unknown:
        raise UserError(f"--metrics: unknown {', '.join(unknown)}; there are {', '.join([*METRICS, *FACTS])}")


def markdown(lines: Sequence[Line], metrics: Sequence[str]) -> str:
    """The table as Markdown, with an arrow in the direction of improvement."""
    arrows = {key: f" {ARROWS[METRICS[key].good]}" if key in METRICS else "" for key in metrics}
    rows = [["", *(key + arrows[key] for key in metrics)]]
    rows += [[found.title, *(str(found.cells[key]) for key in metrics)] for found in lines]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    padded = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    notes = [
        f"\n{found.title}: {len(found.failures)} failed: {found.failures[0]}"
        for found in lines
        if found.failures
    ]
    return "\n".join([padded[0], rule, *padded[1:], *notes]) + "\n"


def write_tables(folder: Path, lines: Sequence[Line], metrics: Sequence[str]) -> None:
    """Write table.md, and table.csv with mean, spread, n and interval of each metric."""
    write_text(folder / "table.md", markdown(lines, metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["run", "failed", *(f"{key}{part}" for key in metrics for part in ("", " sd", " n", " low", " high"))]
    )
    for found in lines:
        values = []
        for cell in (found.cells[key] for key in metrics):
            values += [cell.mean, cell.spread, cell.n, *(cell.interval or (None, None))]
        writer.writerow(
            [found.title, len(found.failures), *("" if value is None else value for value in values)]
        )
    write_text(folder / "table.csv", text.getvalue())


def short(value: float) -> str:
    """Three decimals, none from 100 on, and powers of ten below a thousandth."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}"
