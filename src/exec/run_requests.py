"""Several unlearning requests as one command: one after another (sustainability), or each from the same model
(scalability). A table and a picture show what every request left.

    python src/exec/run_requests.py --name sust --config configs/muse_fictional/npo+ft.json \\
        --set evaluate.retain_results=files/results/muse-fictional-retain \\
        --requests MuseFictional_sust_1 MuseFictional_sust_2 MuseFictional_sust_3 MuseFictional_sust_4
    python src/exec/run_requests.py --name scal --separate --config configs/muse_fictional/npo+ft.json \\
        --set evaluate.retain_results=files/results/muse-fictional-retain \\
        --requests MuseFictional_scal_1 MuseFictional_scal_2 MuseFictional_scal_3 MuseFictional_scal_4

A request is a forget data set. The first starts from the model of the config, every other from the model that
the request before it left; with --separate all start from the model of the config. Run folders lie under
files/results/<name>/; a complete run with the same settings is not repeated, so the same command resumes.
table.md, table.csv and requests.png are written at the end, with the model before the first request, and the
retain model where the config names one. --set applies to all runs.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import UserError, clear_write_errors, lock
from ..core.screen import show, show_error
from ..dataset import dataset_name
from .child_runs import (
    COLUMNS,
    PLACE,
    RESERVED,
    ChildProcesses,
    Run,
    add_flags,
    check,
    execute,
    expand_user,
    folder_name,
    is_done,
    pair,
)
from .script import with_clear_errors

MUSE = ("muse/verbmem", "muse/knowmem_forget", "muse/privleak", "muse/knowmem_retain")
"""Columns of MUSE, where a run has them."""
OWN = RESERVED | {
    "dataset.forget_dataset_name": "is set by --requests",
    "overall.model_name": "is the model of the config, and then of the request before",
}


def plan(arguments: argparse.Namespace, root: Path) -> list[Run]:
    """One run for each request, in their order."""
    common = dict(map(pair, arguments.set))
    for key in common:
        if key in OWN:
            raise UserError(f"--set {key}: {OWN[key]}")
    named = Counter(map(canonical_name, arguments.requests))
    if twice := [name for name, count in named.items() if count > 1]:
        raise UserError(f"--requests: {twice[0]} is named {named[twice[0]]} times; name each request once")
    runs: list[Run] = []
    for number, request in enumerate(arguments.requests, 1):
        flags = {**common, "dataset.forget_dataset_name": request}
        if runs:
            # What came before the first request is measured once; of the others it is the row above.
            flags["evaluate.before"] = "false"
            if not arguments.separate:
                flags["overall.model_name"] = str(root / runs[-1].name / "checkpoints")
        title = f"{number}: {request}"
        runs.append(Run(title, folder_name(f"{number}-{request}"), arguments.config, flags))
    return runs


def canonical_name(request: str) -> str:
    """The spelling of a data set's name by which requests are compared; an unknown one is reported with all
    other errors in the settings."""
    try:
        return dataset_name(request)
    except UserError:
        return request


def check_all(runs: Sequence[Run], root: Path) -> None:
    """UserError with all errors in the settings; a model that a request is still to leave is no error."""
    first = runs[0]
    stand_in = first.settings(root).overall.model_name
    planned = [
        Run(run.line, run.name, run.config, {**run.flags, "overall.model_name": stand_in}) for run in runs
    ]
    check(planned, root)
    if not first.settings(root).method.forget:
        name = first.settings(root).method.name
        raise UserError(f"--config: {name} forgets nothing; a request needs a forget method")


def follows(run: Run, before: Run | None, root: Path) -> bool:
    """Whether a complete run started from the model that the request before it has now."""
    ended = lambda one: (root / one.name / "environment.json").stat().st_mtime_ns
    return before is None or ended(run) >= ended(before)


def run_requests(arguments: argparse.Namespace) -> int:
    """Check all requests, execute the missing ones in their order, write table and picture.

    Returns:
        The exit code: 1 when a request failed; those behind it are not started.
    """
    from ..model.report.grid_table import check_metrics, markdown, write_tables
    from ..model.report.requests_figure import draw, read_requests

    root = expand_user(arguments.root) / arguments.name
    with clear_write_errors(root, PLACE):
        root.exists()  # raises for a name that is too long
    check_metrics(arguments.metrics)
    runs = plan(arguments, root)
    check_all(runs, root)
    with lock(root / "lock", PLACE), ChildProcesses() as children:
        for run, before in zip(runs, [None, *runs]):
            if is_done(run, root) and (arguments.separate or follows(run, before, root)):
                show_error(f"{run.line}: already complete")
                continue
            show_error(f"{run.line}: running")
            if failure := execute(run, root, os.cpu_count() or 1, children):
                show_error(f"{run.line}: {failure}")
                return 1
        columns = [arguments.metrics] if arguments.metrics else [MUSE, COLUMNS]
        results = read_requests({run.line: root / run.name for run in runs}, columns)
        with clear_write_errors(root, PLACE):
            write_tables(root, results.lines, results.metrics)
            draw(results, root / "requests.png")
    show(markdown(results.lines, results.metrics), end="")
    show_error(f"\ntables: {root}/table.md, {root}/table.csv; picture: {root}/requests.png")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser)
    parser.add_argument("--config", required=True, metavar="FILE", help="config of all requests")
    parser.add_argument(
        "--requests", nargs="+", required=True, metavar="DATASET", help="forget data sets, in their order"
    )
    parser.add_argument(
        "--separate", action="store_true", help="start every request from the model of the config"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="NAME",
        help="columns; by default MUSE's four, or those of run_grid.py where a run has none of them",
    )
    arguments = parser.parse_args(argv)
    return with_clear_errors(
        lambda: run_requests(arguments), failed=2, interrupted="interrupted; the same command resumes"
    )


if __name__ == "__main__":
    sys.exit(main())
