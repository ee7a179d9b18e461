"""Many finished evaluations as rows: sorted, filtered, on the screen and as CSV."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from ...core.files import UserError, clear_write_errors, write_text
from ...core.registry import did_you_mean
from ...core.screen import Screen
from ...metrics.spec import METRICS
from .finished_run import FinishedRun
from .plain_reading import figure
from .report_charts import named

CONDITION = re.compile(r"(?P<key>.+?)\s*(?P<sign>>=|<=|>|<)\s*(?P<number>[-+.\deE]+)")
COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": lambda value, limit: value >= limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    "<": lambda value, limit: value < limit,
}


def require_known(runs: Sequence[FinishedRun], keys: Sequence[str], flag: str) -> None:
    """UserError for metrics that no evaluation has."""
    known = {key for run in runs for key in (*run.figures, *run.evaluation.reasons)}
    unknown = [key for key in keys if key not in known]
    if unknown:
        near = did_you_mean(unknown[0], sorted(known)) if len(unknown) == 1 else ""
        raise UserError(f"{flag}: none of the evaluations has {', '.join(unknown)}{near}")


def keep(runs: Sequence[FinishedRun], conditions: Sequence[str]) -> list[FinishedRun]:
    """The runs that meet every condition, such as `model_utility>=0.9`; one without the figure does not.

    Raises:
        UserError: a condition is none, no run has its metric, or no run meets all.
    """
    kept = list(runs)
    for text in conditions:
        found = CONDITION.fullmatch(text.strip())
        try:
            limit = float(found["number"]) if found else None
        except ValueError:
            limit = None
        if found is None or limit is None:
            raise UserError(
                f"--where: expected a metric and a limit such as model_utility>=0.9, got {text!r}"
            )
        key, compare = found["key"], COMPARE[found["sign"]]
        require_known(runs, [key], "--where")
        kept = [run for run in kept if (value := run.figures.get(key)) is not None and compare(value, limit)]
    if not kept:
        raise UserError(f"--where: none of the {len(runs)} evaluations meets {' and '.join(conditions)}")
    return kept


def in_order(runs: Sequence[FinishedRun], key: str) -> list[FinishedRun]:
    """The runs by a metric, the best first by its direction, those without it last."""
    require_known(runs, [key], "--sort")
    sign = 1 if key in METRICS and METRICS[key].good == "down" else -1

    def place(run: FinishedRun) -> tuple[bool, float]:
        value = run.figures.get(key)
        return value is None, sign * (value or 0.0)

    return sorted(runs, key=place)


def show_rows(runs: Sequence[FinishedRun], keys: Sequence[str]) -> None:
    """Print one line per run, with its intervals."""
    table = Table()
    table.add_column("evaluation (arrow = good)", overflow="fold")
    for key in keys:
        table.add_column(named(key), justify="right", overflow="fold")
    for run in runs:
        table.add_row(run.title, *(figure(run, key) for key in keys))
    Screen(least_width=40 + 24 * len(keys)).print(table)


def write_csv(path: Path, runs: Sequence[FinishedRun], keys: Sequence[str]) -> None:
    """Write one line per run: each figure in full with the ends of its interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["run", "path", "method", *(f"{key}{end}" for key in keys for end in ("", " low", " high"))]
    )
    for run in runs:
        cells: list[float | str | None] = [run.title, str(run.path), run.method]
        for key in keys:
            cells += [run.figures.get(key), *(run.interval(key) or (None, None))]
        writer.writerow(["" if cell is None else cell for cell in cells])
    with clear_write_errors(path, "--csv"):
        write_text(path, text.getvalue())
