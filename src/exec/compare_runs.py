"""Compare evaluations: run folders, TOFU's eval_log_aggregated.json, OpenUnlearning's TOFU_EVAL.json.

    python src/exec/compare_runs.py files/results/a files/results/b
    python src/exec/compare_runs.py full.json retain90.json --retain retain90.json
    python src/exec/compare_runs.py files/results/a --leaderboard tofu_leaderboard --rows llama 10p
    python src/exec/compare_runs.py files/results/grid --sort forget_quality --where 'model_utility>=0.9' \\
        --html report.html --csv figures.csv

A folder of runs, such as that of a grid, stands for its runs. --html writes a report to look at, one file
that needs no network (docs/report.md). With --retain forget quality is computed from the rows, by TOFU's
official aggregation for every source. docs/published_logs.md has the formats.
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

from ..core.files import UserError, clear_write_errors
from .script import with_clear_errors

if TYPE_CHECKING:
    from ..metrics.tofu_leaderboard import PublishedRow
    from ..model.report.report_charts import Material


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
        "--sort", metavar="NAME", help="one line per evaluation, the best of this metric first"
    )
    parser.add_argument(
        "--where",
        nargs="+",
        default=[],
        metavar="METRIC>=X",
        help="only evaluations that meet these limits (quote them: < and > are signs of the shell)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures with their intervals")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report to look at")
    parser.add_argument(
        "--svg",
        type=Path,
        metavar="FILE",
        help="write the picture of forgetting against utility, with --leaderboard also FILE_leaderboard",
    )
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


MOST_COLUMNS = 4
"""Evaluations that stand side by side; more have a line each."""


def compare(arguments: argparse.Namespace) -> None:
    """Read every evaluation, print the table, and write what is asked for. UserError when one cannot be read
    or no evaluation has a requested metric."""
    from ..metrics.tofu_leaderboard import utility_faults
    from ..model.report.comparison import differing_settings, reason_lines, show, shown_metrics
    from ..model.report.finished_run import read_run, run_folders
    from ..model.report.leaderboard_table import show_leaderboard
    from ..model.report.report_charts import gather
    from ..model.report.run_table import in_order, keep, require_known, show_rows, write_csv

    arguments.metrics = [name for words in arguments.metrics for name in words.split(",") if name]
    _check_outputs(arguments)
    paths = run_folders(arguments.evaluations)
    published = _published_rows(arguments)
    runs = [read_run(path, title, arguments.retain) for title, path in zip(titles(paths), paths)]
    require_known(runs, arguments.metrics, "--metrics")
    runs = keep(runs, arguments.where) if arguments.where else runs
    runs = in_order(runs, arguments.sort) if arguments.sort else runs
    evaluations = {run.title: run.evaluation for run in runs}
    figures = {title: evaluation.figures for title, evaluation in evaluations.items()}
    keys = shown_metrics(figures, arguments.metrics)
    material = gather(runs, arguments.retain, published)
    if arguments.sort or len(runs) > MOST_COLUMNS:
        sorted_by = [arguments.sort] if arguments.sort else []
        keys = arguments.metrics or list(dict.fromkeys([*sorted_by, *material.keys]))
        show_rows(runs, keys)
    else:
        show(figures, keys)
    _list("Why a figure is missing, or what it leaves out:", reason_lines(evaluations, keys))
    faults = [f"{title}: {fault}" for title, found in evaluations.items() for fault in found.warnings]
    _list("Warnings:", faults)
    _list("Cautions:", list(dict.fromkeys(found.caution for found in evaluations.values() if found.caution)))
    conditions = {run.title: run.conditions for run in runs}
    _list("The evaluations were not measured alike:", differing_settings(conditions))
    if published:
        show_leaderboard(figures, published, arguments.metrics)
        _list("Published figures that their parts do not give:", utility_faults(published))
    if arguments.csv:
        write_csv(arguments.csv, runs, shown_metrics(figures, arguments.metrics))
        _list("Written:", [str(arguments.csv)])
    if arguments.html:
        _write_html(arguments.html, material)
    if arguments.svg:
        _write_pictures(arguments.svg, material)


def _check_outputs(arguments: argparse.Namespace) -> None:
    """UserError for an output that cannot be written, before anything is read."""
    for flag, path in (("--csv", arguments.csv), ("--html", arguments.html), ("--svg", arguments.svg)):
        if path is not None and path.is_dir():
            raise UserError(f"{flag}: {path} is a folder; name a file")


def _write_html(path: Path, material: "Material") -> None:
    from ..model.report.html_report import write_report

    with clear_write_errors(path, "--html"):
        write_report(path, material)
    _list("Report:", [str(path)])


def _write_pictures(path: Path, material: "Material") -> None:
    """Write the frontier, and that of the leaderboard where one is given. UserError where there is none."""
    from ..core.files import write_text
    from ..model.report.report_charts import frontier, published_frontier
    from ..model.report.svg_charts import draw, standalone

    charts = {path: frontier(material, test=False)}
    if material.published:
        charts[path.with_stem(f"{path.stem}_leaderboard")] = published_frontier(material.published)
    for place, chart in charts.items():
        if isinstance(chart, str):
            raise UserError(f"--svg: there is nothing to draw: {chart}")
        with clear_write_errors(place, "--svg"):
            write_text(place, standalone(draw(chart, place.stem)))
    _list("Pictures:", [str(place) for place in charts])


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
