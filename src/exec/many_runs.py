"""Runs of run_grid.py and sweep.py: planned over seeds, made in parallel, put into a table."""

import argparse
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from ..core.files import UserError, clear_write_errors
from .child_runs import COLUMNS, PLACE, RESERVED, ChildProcesses, Run, execute, folder_name, pair
from .search_space import config_titles

METRICS = [*COLUMNS, "seconds"]
"""Columns of a table of runs."""
OWN = RESERVED | {"overall.seed": "is set by --seeds", "dataset.dataset_seed": "is set by --seeds"}
"""Settings that the runs get from the script -> reason in the message."""


def common_settings(words: Sequence[str], varied: Sequence[str] = (), own: Mapping[str, str] = OWN) -> dict:
    """The settings of `--set`. UserError for one of them, or a varied key, that the script sets itself."""
    common = dict(map(pair, words))
    for key in (*common, *varied):
        if key in own:
            raise UserError(f"{key}: {own[key]}")
    return common


def seed_runs(
    line: str, config: str, flags: Mapping[str, str], seeds: Sequence[int], name: str = ""
) -> list[Run]:
    """One run for each seed, which sets overall.seed and dataset.dataset_seed.

    Args:
        line: title of the runs in the table.
        config: the config file.
        flags: key -> value, for all.
        seeds: the seeds.
        name: beginning of the folder names; `line` by default.
    """
    return [
        Run(
            line,
            folder_name(f"{name or line},seed={seed}"),
            config,
            {**flags, "overall.seed": str(seed), "dataset.dataset_seed": str(seed)},
        )
        for seed in seeds
    ]


def plan_grid(arguments: argparse.Namespace) -> list[Run]:
    """Every run of a grid, configs x values x seeds, in the order of the table."""
    varied = [(key, values.split("|" if "|" in values else ",")) for key, values in map(pair, arguments.vary)]
    common = common_settings(arguments.set, [key for key, _ in varied])
    # Titles have the last part of a key where it is unique.
    label = short_keys([key for key, _ in varied])
    runs = []
    for config, title in zip(arguments.configs, config_titles(arguments.configs)):
        for values in itertools.product(*(values for _, values in varied)):
            chosen = dict(zip((key for key, _ in varied), values))
            line = ",".join([title, *(f"{label[key]}={value}" for key, value in chosen.items())])
            runs += seed_runs(line, config, common | chosen, arguments.seeds)
    if len({run.name for run in runs}) < len(runs):
        raise UserError("--configs, --vary and --seeds give the same run twice; use each value once")
    return runs


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Key -> its last part, where no other key ends in it."""
    lasts = [key.rpartition(".")[2] for key in keys]
    return {key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts)}


def threads_of(jobs: int) -> int:
    """Threads of each run where so many go on at once: OMP_NUM_THREADS, or an equal part of the cores."""
    if jobs < 1:
        raise UserError("--jobs: expected a whole number at least 1")
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    return int(chosen) if chosen.isdigit() else max(1, (os.cpu_count() or 1) // jobs)


def run_all(
    runs: Sequence[Run], root: Path, jobs: int, on_end: Callable[[Run, str], None], gpus: Sequence[int] = ()
) -> None:
    """Execute runs, several at a time.

    Args:
        runs: those that are to be made.
        root: folder of the run folders.
        jobs: how many go on at once; they share the cores.
        on_end: called in this thread with each run that has ended and the reason of its failure or "".
        gpus: numbers of the GPUs that the jobs take in turn.
    """
    threads = threads_of(jobs)
    # Threads suffice: each waits for a process. The pool is left last, after the processes were ended.
    with ThreadPoolExecutor(jobs) as pool, ChildProcesses(gpus) as children:
        started = {pool.submit(execute, run, root, threads, children): run for run in runs}
        for future in as_completed(started):
            on_end(started[future], future.result())


def tabulate(
    runs: Sequence[Run],
    root: Path,
    arguments: argparse.Namespace,
    failures: Mapping[str, str],
    current: set[str],
) -> list:
    """Write the tables of all complete runs.

    Args:
        runs: all runs.
        root: folder of the run folders and tables.
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
