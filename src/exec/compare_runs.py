"""Compare evaluations: run folders, TOFU's eval_log_aggregated.json, OpenUnlearning's TOFU_EVAL.json.

    python src/exec/compare_runs.py files/results/a files/results/b
    python src/exec/compare_runs.py full.json retain90.json --retain retain90.json
    python src/exec/compare_runs.py files/results/a --leaderboard tofu_leaderboard --rows llama 10p

With --retain forget quality is computed from the rows, by TOFU's official aggregation for every source.
docs/published_logs.md has the formats.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import UserError
from .script import with_clear_errors

if TYPE_CHECKING:
    from ..metrics.tofu_leaderboard import PublishedRow


def titles(paths: list[str]) -> list[str]:
    """The shortest path ends that distinguish the evaluations."""
    for depth in range(1, 20):
        ends = ["/".join(Path(path).parts[-depth:]) for path in paths]
        if len(set(ends)) == len(paths):
            return ends
    return paths


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "evaluations", nargs="+", metavar="RUN", help="a run folder, or another project's log with rows"
    )
    parser.add_argument("--retain", metavar="RUN", help="the retain model's evaluation, for forget quality")
    parser.add_argument("--metrics", nargs="+", default=[], metavar="NAME", help="show these only")
    parser.add_argument(
        "--leaderboard",
        metavar="PATH",
        help="CSV files of TOFU's leaderboard (a file, or a folder), whose rows are shown below",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        default=[],
        metavar="WORD",
        help="of the leaderboard only rows whose model, split, method and epoch have these words:"
        " llama forget10 diff 'epoch 5'",
    )
    arguments = parser.parse_args(argv)
    return with_clear_errors(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Read every evaluation and print the table. UserError when one cannot be read or no evaluation has a
    requested metric."""
    from ..metrics.tofu_leaderboard import utility_faults
    from ..model.report.comparison import (
        differing_settings,
        read_evaluation,
        reason_lines,
        show,
        shown_metrics,
    )
    from ..model.report.leaderboard_table import show_leaderboard

    arguments.metrics = [name for words in arguments.metrics for name in words.split(",") if name]
    paths = list(dict.fromkeys(arguments.evaluations))
    named = dict(zip(titles(paths), paths))
    published = _published_rows(arguments)
    evaluations = {title: read_evaluation(path, arguments.retain) for title, path in named.items()}
    figures = {title: evaluation.figures for title, evaluation in evaluations.items()}
    unknown = [
        name
        for name in arguments.metrics
        if not any(name in (*found.figures, *found.reasons) for found in evaluations.values())
    ]
    if unknown:
        raise UserError(f"--metrics: none of the evaluations has {', '.join(unknown)}")
    keys = shown_metrics(figures, arguments.metrics)
    show(figures, keys)
    _list("Why a figure is missing, or what it leaves out:", reason_lines(evaluations, keys))
    faults = [f"{title}: {fault}" for title, found in evaluations.items() for fault in found.warnings]
    _list("Warnings:", faults)
    _list("Cautions:", list(dict.fromkeys(found.caution for found in evaluations.values() if found.caution)))
    _list("The evaluations were not measured alike:", differing_settings(named))
    if published:
        show_leaderboard(figures, published, arguments.metrics)
        _list("Published figures that their parts do not give:", utility_faults(published))


def _published_rows(arguments: argparse.Namespace) -> "Sequence[PublishedRow]":
    from ..metrics.tofu_leaderboard import read_leaderboard, select_rows

    if arguments.leaderboard is None:
        if arguments.rows:
            raise UserError("--rows chooses rows of --leaderboard, which is not set")
        return []
    return select_rows(read_leaderboard(arguments.leaderboard), arguments.rows)


def _list(heading: str, lines: Sequence[str]) -> None:
    from ..core.screen import show

    if lines:
        show("\n".join([heading, *(f"  {line}" for line in lines)]))


if __name__ == "__main__":
    sys.exit(main())
