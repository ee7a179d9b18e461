"""Many runs of unlearn_model.py as one command: configs x settings x seeds, one table.

    python src/exec/run_grid.py --name methods --seeds 0 1 2 \\
        --configs configs/fictional/npo+ft.json configs/fictional/ga+ft.json
    python src/exec/run_grid.py --name tuning --configs configs/fictional/npo+ft.json \\
        --vary unlearn.lr=1e-3,2e-3 unlearn.NPO.beta=.1,.2

Every combination is checked before the first one starts. Run folders lie under files/results/<name>/; a
complete run with the same settings is not repeated, so the same command resumes after an interruption.
table.md and table.csv are written after every run. --set applies to all runs. Seeds set overall.seed and
dataset.dataset_seed. To search for the best values, see sweep.py.
"""

import argparse
import logging
import os
import sys

if not __package__:  # started as a file: this checkout is the package
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import clear_write_errors, lock
from ..core.screen import show, show_error
from .child_runs import PLACE, Run, add_flags, check, expand_user, is_done
from .many_runs import METRICS, plan_grid, run_all, tabulate, threads_of
from .script import with_clear_errors


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser)
    parser.add_argument(
        "--configs",
        nargs="+",
        required=True,
        metavar="FILE",
        help="config files, one or more lines of the table each",
    )
    parser.add_argument(
        "--vary",
        nargs="+",
        default=[],
        metavar="KEY=A,B",
        help="settings to combine, one line for each combination; KEY=A|B where values hold commas",
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0], help="seeds to take mean and spread over"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=METRICS,
        metavar="NAME",
        help="columns: metrics, seconds, peak_memory_mb",
    )
    parser.add_argument(
        "--intervals",
        action="store_true",
        help=(
            "95 %% bootstrap intervals over seeds and rows in place of the spread "
            "over seeds, for metrics that are means over rows"
        ),
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; the cores are shared among them")
    arguments = parser.parse_args(argv)
    return with_clear_errors(
        lambda: run_grid(arguments), failed=2, interrupted="interrupted; the same command resumes"
    )


def run_grid(arguments: argparse.Namespace) -> int:
    """Check all runs, execute the missing ones, print the table. Returns 1 when a run failed."""
    from ..model.report.grid_table import check_metrics, markdown
    from ..model.run.checkpoints import drop_left_by_kill

    threads_of(arguments.jobs)  # refuses a wrong number
    logging.disable(logging.WARNING)  # each run logs the warnings about its settings itself
    root, runs = expand_user(arguments.root) / arguments.name, plan_grid(arguments)
    check_metrics(arguments.metrics)
    with clear_write_errors(root, PLACE):
        root.exists()  # raises for a name that is too long
    check(runs, root)
    with lock(root / "lock", PLACE):
        current = {run.name for run in runs if is_done(run, root)}
        for name in current:
            drop_left_by_kill(root / name)
        waiting, failures, ended = [run for run in runs if run.name not in current], {}, []
        show_error(f"{len(runs)} runs, {len(current)} already complete")

        def on_end(run: Run, failure: str) -> None:
            ended.append(run.name)
            if failure:
                failures[run.name] = failure
            else:
                current.add(run.name)
            show_error(f"{len(ended)}/{len(waiting)} {run.name}{f': {failure}' if failure else ''}")
            tabulate(runs, root, arguments, failures, current)

        run_all(waiting, root, arguments.jobs, on_end)
        show(markdown(tabulate(runs, root, arguments, failures, current), arguments.metrics), end="")
    show_error(f"\ntables: {root}/table.md, {root}/table.csv")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
