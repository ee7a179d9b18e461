"""Compare evaluations: run folders, TOFU's eval_log_aggregated.json, OpenUnlearning's TOFU_EVAL.json.

    python src/exec/compare_runs.py files/results/a files/results/b
    python src/exec/compare_runs.py full.json retain90.json --retain retain90.json

With --retain forget quality is computed from the rows, by TOFU's official aggregation for every source.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import UserError
from .script import with_clear_errors


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
    arguments = parser.parse_args(argv)
    return with_clear_errors(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Read every evaluation and print the table. UserError when one cannot be read or no evaluation has a
    requested metric."""
    from ..core.screen import show as show_text
    from ..model.report.comparison import differing_settings, quality_note, read_figures, show

    paths = list(dict.fromkeys(arguments.evaluations))
    figures = {title: read_figures(path, arguments.retain) for title, path in zip(titles(paths), paths)}
    unknown = [name for name in arguments.metrics if not any(name in column for column in figures.values())]
    if unknown:
        raise UserError(f"--metrics: none of the evaluations has {', '.join(unknown)}")
    show(figures, arguments.metrics)
    for title, path in zip(titles(paths), paths):
        if note := quality_note(path, arguments.retain) if arguments.retain else "":
            mark = "*" if "forget_quality" in figures[title] else "–"
            show_text(f"{mark} forget_quality of {title}: {note}")
    lines = differing_settings(dict(zip(titles(paths), paths)))
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        show_text(f"The evaluations were not measured alike:\n{listed}")


if __name__ == "__main__":
    sys.exit(main())
