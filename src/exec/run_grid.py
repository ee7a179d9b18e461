"""Many runs of unlearn_model.py as one command: configs x settings x seeds, one table.

    python src/exec/run_grid.py --name methods --seeds 0 1 2 \\
        --configs configs/fictional/npo+ft.json configs/fictional/ga+ft.json
    python src/exec/run_grid.py --name tuning --configs configs/fictional/npo+ft.json \\
        --vary unlearn.lr=1e-3,2e-3 unlearn.NPO.beta=.1,.2

Every combination is checked before the first one starts. Run folders lie under files/results/<name>/; a
complete run with the same settings is not repeated, so the same command resumes after an interruption.
table.md and table.csv are written after every run. --set applies to all runs. Seeds set overall.seed and
dataset.dataset_seed.
"""

import argparse
import itertools
import logging
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import UserError, clear_write_errors, lock
from ..core.screen import show, show_error
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

OWN = RESERVED | {"overall.seed": "is set by --seeds", "dataset.dataset_seed": "is set by --seeds"}
"""Settings that the grid sets itself -> reason in the message."""
METRICS = [*COLUMNS, "seconds"]


def plan(arguments: argparse.Namespace) -> list[Run]:
    """Every run of the grid, in the order of the table."""
    common = dict(map(pair, arguments.set))
    varied = [(key, values.split("|" if "|" in values else ",")) for key, values in map(pair, arguments.vary)]
    for key in (*common, *(key for key, _ in varied)):
        if key in OWN:
            raise UserError(f"{key}: {OWN[key]}")
    # Titles have the last part of a key where it is unique, and a config's folder where its name is not.
    lasts = [key.rpartition(".")[2] for key, _ in varied]
    label = {key: last if lasts.count(last) == 1 else key for (key, _), last in zip(varied, lasts)}
    stems = [Path(config).stem for config in arguments.configs]
    runs = []
    for config, stem in zip(arguments.configs, stems):
        title = stem if stems.count(stem) == 1 else f"{Path(config).parent.name}-{stem}"
        for values in itertools.product(*(values for _, values in varied)):
            chosen = dict(zip((key for key, _ in varied), values))
            line = ",".join([title, *(f"{label[key]}={value}" for key, value in chosen.items())])
            for seed in arguments.seeds:
                seeds = {"overall.seed": str(seed), "dataset.dataset_seed": str(seed)}
                runs.append(Run(line, folder_name(f"{line},seed={seed}"), config, common | chosen | seeds))
    if len({run.name for run in runs}) < len(runs):
        raise UserError("--configs, --vary and --seeds give the same run twice; use each value once")
    return runs


def tabulate(
    runs: Sequence[Run],
    root: Path,
    arguments: argparse.Namespace,
    failures: dict[str, str],
    current: set[str],
) -> list:
    """Write the tables of all complete runs.

    Args:
        runs: all runs of the grid.
        root: the grid's folder.
        arguments: of these `metrics` and `intervals`.
        failures: run name -> reason.
        current: names of the complete runs.

    Returns:
        The lines of the table.
    """
    from ..model.report.grid_table import aggregate, run_figures, write_tables

    lines = []
    for title in dict.fromkeys(run.line for run in runs):
        line_runs = [run for run in runs if run.line == title]
        folders = [root / run.name for run in line_runs if run.name in current]
        lines.append(
            aggregate(
                title,
                [run_figures(folder) for folder in folders],
                arguments.metrics,
                [failures[run.name] for run in line_runs if run.name in failures],
                folders if arguments.intervals else (),
            )
        )
    with clear_write_errors(root, PLACE):
        write_tables(root, lines, arguments.metrics)
    return lines


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

    if arguments.jobs < 1:
        raise UserError("--jobs: expected a whole number at least 1")
    logging.disable(logging.WARNING)  # each run logs the warnings about its settings itself
    root, runs = expand_user(arguments.root) / arguments.name, plan(arguments)
    check_metrics(arguments.metrics)
    with clear_write_errors(root, PLACE):
        root.exists()  # raises for a name that is too long
    check(runs, root)
    with lock(root / "lock", PLACE):
        current = {run.name for run in runs if is_done(run, root)}
        waiting, failures = [run for run in runs if run.name not in current], {}
        show_error(f"{len(runs)} runs, {len(current)} already complete")
        threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
        # Threads suffice: each waits for a process. The pool is left last, after the processes were ended.
        with ThreadPoolExecutor(arguments.jobs) as pool, ChildProcesses() as children:
            started = {pool.submit(execute, run, root, threads, children): run for run in waiting}
            for number, future in enumerate(as_completed(started), 1):
                run, failure = started[future], future.result()
                if failure:
                    failures[run.name] = failure
                else:
                    current.add(run.name)
                show_error(f"{number}/{len(waiting)} {run.name}{f': {failure}' if failure else ''}")
                tabulate(runs, root, arguments, failures, current)
        show(markdown(tabulate(runs, root, arguments, failures, current), arguments.metrics), end="")
    show_error(f"\ntables: {root}/table.md, {root}/table.csv")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
