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
import contextlib
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import UserError, clear_write_errors, fingerprint, lock, read_json
from ..core.screen import show, show_error
from .config.reader import ConfigError, StrictConfig, resolve_settings
from .config.rules.data_rules import missing_files
from .script import with_clear_errors

SCRIPT = Path(__file__).parent / "unlearn_model.py"
CHILD = Path(__file__).parent / "child_process.py"
GRACE = 60
"""Seconds between SIGTERM to a run and SIGKILL."""
LONGEST_NAME = 200
"""Bytes of a run's name; file systems take 255, and temporary files have longer names."""
RESERVED = {
    "overall.seed": "is set by --seeds",
    "dataset.dataset_seed": "is set by --seeds",
    "logger.name": "is made from the settings of each run",
    "logger.json.root": "is set by --root and --name",
    "logger.overwrite": "a grid replaces outdated runs by itself",
    "overall.logger": "a grid needs the run folders",
}
"""Settings that the grid sets itself -> reason in the message."""
PLACE = "--root or --name"
"""The flags of the grid's folder, for messages."""
METRICS = ["forget_quality", "model_utility", "forget/rougeL", "forget/prob", "retain/rougeL", "seconds"]


@dataclass(frozen=True)
class Run:
    """One run of the grid: its line of the table, its folder name, its config file and flags."""

    line: str
    name: str
    config: str
    flags: dict[str, str]

    def settings(self, root: Path):
        """The checked settings. ConfigError when they are wrong."""
        return resolve_settings(
            StrictConfig(), [self.config], self.flags | self.place(root), {}, rules=missing_files
        )

    def place(self, root: Path) -> dict[str, str]:
        return {
            "logger.name": self.name,
            "logger.json.root": str(root),
            "logger.overwrite": "true",
            "overall.quiet": "true",
        }


def plan(arguments: argparse.Namespace) -> list[Run]:
    """Every run of the grid, in the order of the table."""
    common = dict(map(_pair, arguments.set))
    varied = [
        (key, values.split("|" if "|" in values else ",")) for key, values in map(_pair, arguments.vary)
    ]
    for key in (*common, *(key for key, _ in varied)):
        if key in RESERVED:
            raise UserError(f"{key}: {RESERVED[key]}")
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
                runs.append(Run(line, _folder_name(f"{line},seed={seed}"), config, common | chosen | seeds))
    if len({run.name for run in runs}) < len(runs):
        raise UserError("--configs, --vary and --seeds give the same run twice; use each value once")
    return runs


def _folder_name(title: str) -> str:
    """A run's title as the name of a folder; a long one is cut and made unique by a fingerprint."""
    name = re.sub(r"[^\w+=,@.-]+", "-", title)
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name.encode()[: LONGEST_NAME - 17].decode(errors='ignore')}-{fingerprint(title)}"


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise UserError(f"expected key=value, got {text!r}")
    return key, value


def check(runs: Sequence[Run], root: Path) -> None:
    """UserError with all errors in the settings of all runs."""
    names_by_error: dict[str, list[str]] = {}
    for run in runs:
        try:
            run.settings(root)
        except ConfigError as found:
            names_by_error.setdefault(str(found), []).append(run.name)
    messages = []
    for text, names in names_by_error.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        messages.append(f"{names[0]}{more}:\n{text}")
    if messages:
        raise UserError("\n".join(messages))


def is_done(run: Run, root: Path) -> bool:
    """Whether the run is complete and has its present settings."""
    folder = root / run.name
    # All three: a kill while a run is overwritten leaves some of them.
    if not all((folder / name).is_file() for name in ("environment.json", "metrics.json", "config.json")):
        return False
    # Through JSON, as the file went: tuples become lists.
    return read_json(folder / "config.json") == json.loads(json.dumps(run.settings(root).resolved()))


class ChildProcesses:
    """The processes of a grid's runs. They end when the context is left, and when the grid is killed."""

    def __init__(self):
        self.running: set[subprocess.Popen[str]] = set()
        self.mutex = threading.Lock()
        self.open = True

    def __enter__(self) -> "ChildProcesses":
        # The read end is every child's standard input, see child_process.py: a killed grid closes the write
        # end, and with it the children end.
        self.input, self.write_end = os.pipe()
        return self

    def __exit__(self, *reason) -> None:
        """End the running processes and start no more."""
        with self.mutex:
            self.open = False
        try:
            for child in self.running:
                child.terminate()
            for child in self.running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(GRACE)
        finally:
            for child in self.running:
                child.kill()
            os.close(self.write_end)
            os.close(self.input)

    def launch(self, words: list[str], threads: int) -> "ExitState":
        """Run unlearn_model.py in a process of its own and wait for its end.

        Args:
            words: the flags.
            threads: number of threads of the process.
        """
        with self.mutex:
            if not self.open:
                return ExitState(-signal.SIGTERM, "")
            child = subprocess.Popen(
                [sys.executable, str(CHILD), str(SCRIPT), *words],
                stdin=self.input,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            )
            self.running.add(child)
        _, stderr = child.communicate()
        with self.mutex:
            if self.open:  # otherwise __exit__ iterates over the set in another thread
                self.running.discard(child)
        return ExitState(child.returncode, stderr)


@dataclass(frozen=True)
class ExitState:
    """A run's exit code, negative for the signal that killed it, and its standard error."""

    returncode: int
    stderr: str


def execute(run: Run, root: Path, threads: int, children: ChildProcesses) -> str:
    """Execute one run in a process of its own.

    Returns:
        The reason of its failure, or "".
    """
    flags = [f"--{key}={value}" for key, value in (run.flags | run.place(root)).items()]
    ended = children.launch(["--config_file", run.config, *flags], threads)
    if ended.returncode == 0:
        return ""
    if ended.returncode < 0:
        return f"killed by {signal.Signals(-ended.returncode).name}"
    lines = ended.stderr.strip().splitlines() or [f"ended with status {ended.returncode}"]
    return next((line for line in lines if line.startswith("error:")), lines[-1])


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
    parser.add_argument("--name", required=True, help="folder of the grid under --root")
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
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of all runs")
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
    parser.add_argument("--root", type=Path, default=Path("files/results"), help="where grids lie")
    arguments = parser.parse_args(argv)
    return with_clear_errors(
        lambda: run_grid(arguments), failed=2, interrupted="interrupted; the same command resumes"
    )


def _expand_user(root: Path) -> Path:
    """The folder with `~` replaced by the home folder, as runs expand it."""
    try:
        return root.expanduser()
    except RuntimeError:
        raise UserError(f"--root: {root.parts[0]} is not the home of any user") from None


def run_grid(arguments: argparse.Namespace) -> int:
    """Check all runs, execute the missing ones, print the table. Returns 1 when a run failed."""
    from ..model.report.grid_table import check_metrics, markdown

    if arguments.jobs < 1:
        raise UserError("--jobs: expected a whole number at least 1")
    logging.disable(logging.WARNING)  # each run logs the warnings about its settings itself
    root, runs = _expand_user(arguments.root) / arguments.name, plan(arguments)
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
