"""Runs of unlearn_model.py as child processes: planned with their settings, checked together, done once."""

import argparse
import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.files import UserError, fingerprint, read_json
from .config.reader import ConfigError, StrictConfig, resolve_settings
from .config.rules.data_rules import missing_files

SCRIPT = Path(__file__).parent / "unlearn_model.py"
CHILD = Path(__file__).parent / "child_process.py"
GRACE = 60
"""Seconds between SIGTERM to a run and SIGKILL."""
LONGEST_NAME = 200
"""Bytes of a run's name; file systems take 255, and temporary files have longer names."""
RESERVED = {
    "logger.name": "is made from the settings of each run",
    "logger.json.root": "is set by --root and --name",
    "logger.overwrite": "outdated runs are replaced without it",
    "overall.logger": "a grid needs the run folders",
}
"""Settings that are not the user's -> reason in the message."""
PLACE = "--root or --name"
"""The flags of the folder of all runs, for messages."""
COLUMNS = ("forget_quality", "model_utility", "forget/rougeL", "forget/prob", "retain/rougeL")
"""Metrics of a table of runs."""
KILLED = "killed by"
"""Beginning of the reason of a run that a signal ended."""


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


def folder_name(title: str) -> str:
    """A run's title as the name of a folder; a long one is cut and made unique by a fingerprint."""
    name = re.sub(r"[^\w+=,@.-]+", "-", title)
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name.encode()[: LONGEST_NAME - 17].decode(errors='ignore')}-{fingerprint(title)}"


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
    """The processes of many runs. They end when the context is left, and when this process is killed.

    Args:
        gpus: numbers of GPUs, for the runs that go on at once in turn; none leaves all visible to each.
    """

    def __init__(self, gpus: Sequence[int] = ()):
        self.gpus = list(gpus)
        self.workers: list[subprocess.Popen[str]] = []
        self.idle: list[subprocess.Popen[str]] = []
        self.mutex = threading.Lock()
        self.open = True

    def __enter__(self) -> "ChildProcesses":
        # Workers and their runs hold the read end, see child_process.py: a killed parent closes the write
        # end, and with it they end.
        self.read_end, self.write_end = os.pipe()
        self.log = tempfile.TemporaryFile("w+", errors="replace", encoding="utf-8")
        return self

    def __exit__(self, *reason) -> None:
        """End the running processes and start no more."""
        with self.mutex:
            self.open = False
        try:
            for worker in self.workers:
                worker.terminate()
            for worker in self.workers:
                with contextlib.suppress(OSError):
                    worker.stdin.close()  # type: ignore[union-attr]
            for worker in self.workers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.wait(GRACE)
        finally:
            for worker in self.workers:
                worker.kill()
            os.close(self.write_end)
            os.close(self.read_end)
            self.log.close()

    def launch(self, words: list[str], threads: int) -> "ExitState":
        """Run unlearn_model.py in a process of its own and wait for its end.

        Args:
            words: the flags.
            threads: number of threads of the process, the same for all runs.
        """
        with self.mutex:
            if not self.open:
                return ENDED
            worker = self.idle.pop() if self.idle else self._start(threads)
        with tempfile.NamedTemporaryFile("r", errors="replace", encoding="utf-8") as log:
            try:
                assert worker.stdin and worker.stdout, "they are pipes"
                worker.stdin.write(json.dumps({"words": words, "stderr": log.name}) + "\n")
                worker.stdin.flush()
                answer = worker.stdout.readline()
            except (OSError, ValueError):
                answer = ""
            stderr = log.read()
        with self.mutex:
            if not self.open:
                return ENDED
            if not answer:  # the worker itself was killed
                self.workers.remove(worker)
                self.log.seek(0)
                return ExitState(worker.wait() or 1, stderr or self.log.read())
            self.idle.append(worker)
        return ExitState(int(answer), stderr)

    def _start(self, threads: int) -> subprocess.Popen[str]:
        """A further process for runs, which loads the libraries once."""
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(self.gpus[len(self.workers) % len(self.gpus)])
        worker = subprocess.Popen(
            [sys.executable, str(CHILD), str(SCRIPT), str(self.read_end)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            pass_fds=[self.read_end],
            text=True,
            env=environment,
        )
        self.workers.append(worker)
        return worker


@dataclass(frozen=True)
class ExitState:
    """A run's exit code, negative for the signal that killed it, and its standard error."""

    returncode: int
    stderr: str


ENDED = ExitState(-signal.SIGTERM, "")
"""Of a run that was ended, or not started, since all end."""


def is_disk_failure(reason: str) -> bool:
    """Whether a run failed because its files could not be written, which says nothing about its settings."""
    signs = ("cannot be written", "fix the disk", os.strerror(errno.ENOSPC))
    return any(sign in reason for sign in signs)


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
        return f"{KILLED} {signal.Signals(-ended.returncode).name}"
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    lines = lines or [f"ended with status {ended.returncode}"]
    return next((line for line in lines if line.startswith("error:")), lines[-1])


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a folder of runs and of what all of them are told."""
    parser.add_argument("--name", required=True, help="folder of the runs under --root")
    parser.add_argument("--root", type=Path, default=Path("files/results"), help="where such folders lie")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of all runs")


def pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise UserError(f"expected key=value, got {text!r}")
    return key, value


def expand_user(root: Path) -> Path:
    """The folder with `~` replaced by the home folder, as runs expand it."""
    try:
        return root.expanduser()
    except RuntimeError:
        raise UserError(f"--root: {root.parts[0]} is not the home of any user") from None
