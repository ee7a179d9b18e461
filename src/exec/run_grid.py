"""Many runs of unlearn_model.py as one command: configs x settings x seeds, one table.

    python src/exec/run_grid.py --name methods --seeds 0 1 2 \\
        --configs configs/fictional/npo+ft.json configs/fictional/ga+ft.json
    python src/exec/run_grid.py --name tuning --configs configs/fictional/npo+ft.json \\
        --vary unlearn.lr=1e-3,2e-3 unlearn.NPO.beta=.1,.2

Every combination is checked before the first one starts. Run folders lie under files/results/<name>/; a run
that is there whole and has the same settings is not run again, so the same command goes on after an
interruption. table.md and table.csv are written anew after every run. --set holds for all runs. Seeds set
overall.seed and dataset.dataset_seed.
"""

import argparse
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import exec.interpreter  # noqa: E402, F401
from core.files import UserError, lock, read_json  # noqa: E402
from core.screen import show, show_error  # noqa: E402
from exec.rules import missing_files  # noqa: E402
from exec.run import with_clear_errors  # noqa: E402
from exec.settings import Complaints, StrictConfig, settle_settings  # noqa: E402

SCRIPT = Path(__file__).parent / "unlearn_model.py"
RESERVED = {
    "overall.seed": "is what --seeds sets",
    "dataset.dataset_seed": "is what --seeds sets",
    "logger.name": "is made from the settings of each run",
    "logger.json.root": "is what --root and --name say",
    "logger.overwrite": "a grid replaces what is out of date by itself",
    "overall.logger": "a grid needs the run folders",
}
"""Settings that a grid makes itself."""
METRICS = ["forget_quality", "model_utility", "forget/rougeL", "forget/prob", "retain/rougeL", "seconds"]


@dataclass(frozen=True)
class Run:
    """One run of the grid: the line of the table it belongs to, its name, and what is said about it."""

    line: str
    name: str
    config: str
    flags: dict[str, str]

    def settings(self, root: Path):
        """Its settings, checked; Complaints when they are wrong."""
        return settle_settings(
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
                runs.append(
                    Run(
                        line,
                        re.sub(r"[^\w+=,@.-]+", "-", f"{line},seed={seed}"),
                        config,
                        common | chosen | seeds,
                    )
                )
    if len({run.name for run in runs}) < len(runs):
        raise UserError("--configs, --vary and --seeds give the same run twice; name each thing once")
    return runs


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise UserError(f"expected key=value, got {text!r}")
    return key, value


def check(runs: Sequence[Run], root: Path) -> None:
    """UserError with every complaint about every run."""
    complaints: dict[str, list[str]] = {}
    for run in runs:
        try:
            run.settings(root)
        except Complaints as found:
            complaints.setdefault(str(found), []).append(run.name)
    if complaints:
        raise UserError(
            "\n".join(
                f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}:\n{text}"
                for text, names in complaints.items()
            )
        )


def is_done(run: Run, root: Path) -> bool:
    """Is the run there, whole, with the settings it would have now?"""
    folder = root / run.name
    if not (folder / "environment.json").is_file() or not (folder / "metrics.json").is_file():
        return False
    return read_json(folder / "config.json") == json.loads(json.dumps(run.settings(root).resolved()))


def do(run: Run, root: Path, threads: int) -> str:
    """Do one run in a process of its own; returns "" or the last words of a failed one."""
    flags = [f"--{key}={value}" for key, value in (run.flags | run.place(root)).items()]
    done = launch(["--config_file", run.config, *flags], threads)
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
    return next((line for line in lines if line.startswith("error:")), lines[-1])


def launch(words: list[str], threads: int) -> subprocess.CompletedProcess[str]:
    """Run unlearn_model.py with these words in a process of its own, which has `threads` threads."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )


def tabulate(
    runs: Sequence[Run],
    root: Path,
    arguments: argparse.Namespace,
    failures: dict[str, str],
    current: set[str],
) -> list:
    """Write the tables of all runs that are there now; returns their lines."""
    from model.table import figures_of, line, write_tables

    lines = []
    for title in dict.fromkeys(run.line for run in runs):
        ours = [run for run in runs if run.line == title]
        folders = [root / run.name for run in ours if run.name in current]
        lines.append(
            line(
                title,
                [figures_of(folder) for folder in folders],
                arguments.metrics,
                [failures[run.name] for run in ours if run.name in failures],
                folders if arguments.intervals else (),
            )
        )
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
        lambda: run_grid(arguments), failed=2, interrupted="interrupted; the same command goes on"
    )


def run_grid(arguments: argparse.Namespace) -> int:
    """Check, run what is not there yet, print the table. 1 when a run failed."""
    from model.table import check_metrics, markdown

    if arguments.jobs < 1:
        raise UserError("--jobs: expected a whole number at least 1")
    logging.disable(logging.WARNING)  # what a run remarks upon, it remarks upon itself
    root, runs = arguments.root / arguments.name, plan(arguments)
    check_metrics(arguments.metrics)
    check(runs, root)
    root.mkdir(parents=True, exist_ok=True)
    with lock(root / "lock"):
        current = {run.name for run in runs if is_done(run, root)}
        waiting, failures = [run for run in runs if run.name not in current], {}
        show_error(f"{len(runs)} runs, {len(current)} are there already")
        threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            started = {pool.submit(do, run, root, threads): run for run in waiting}
            try:
                for number, future in enumerate(as_completed(started), 1):
                    run, words = started[future], future.result()
                    current |= set() if words else {run.name}
                    failures |= {run.name: words} if words else {}
                    show_error(f"{number}/{len(waiting)} {run.name}{f': {words}' if words else ''}")
                    tabulate(runs, root, arguments, failures, current)
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                raise
        show(markdown(tabulate(runs, root, arguments, failures, current), arguments.metrics), end="")
    show_error(f"\ntables: {root}/table.md, {root}/table.csv")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
