"""Evaluations beside rows of TOFU's published leaderboard, one line each."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from ...core.screen import Screen
from ...metrics.spec import ARROWS, METRICS
from ...metrics.tofu_leaderboard import PublishedRow
from .comparison import Figures, number

COLUMNS = ("forget_quality", "model_utility", "forget/rougeL", "forget/prob", "forget/truth_ratio")


def show_leaderboard(
    figures: Mapping[str, Figures], rows: Sequence[PublishedRow], metrics: Sequence[str] = ()
) -> None:
    """Print one line per evaluation, then one per published row, with `metrics` as columns."""
    table = Table(title=f"beside {len(rows)} rows of TOFU's leaderboard")
    table.add_column("evaluation (arrow = good)", overflow="fold")
    keys = metrics or COLUMNS
    for key in keys:
        arrow = f" {ARROWS[METRICS[key].good]}" if key in METRICS else ""
        table.add_column(key + arrow, justify="right", overflow="fold")
    lines = [*figures.items(), *((row.title, row.figures) for row in rows)]
    for place, (title, column) in enumerate(lines, start=1):
        table.add_row(title, *(number(column.get(key)) for key in keys), end_section=place == len(figures))
    Screen(least_width=60 + 20 * len(keys)).print(table)
