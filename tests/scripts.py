"""Run the project's scripts: in this process, which costs no start-up, or in one of their own where the
process is what a test is about."""

import contextlib
import gc
import importlib
import io
import itertools
import json
import logging
import os
import random
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NoReturn

import numpy
import pytest
import torch
from filelock import FileLock

REPO = Path(__file__).resolve().parents[1]

# The package under test is this checkout's, whatever is installed.
sys.path.insert(0, str(REPO / "src" / "exec"))
import checkout  # noqa: E402


@dataclass(frozen=True)
class Ended:
    """What a script left behind when it ended, in whichever process it ran."""

    returncode: int
    stdout: str
    stderr: str


def run_script(script: str, *words, cwd=REPO, **environment: str) -> Ended:
    """Call the `main` of src/exec/<script>.py in this process. Output is captured; what the script changes in
    the process is put back. The screen is 80 columns wide, as it is where output goes to a pipe."""
    load_libraries()
    argv, out, err = [str(word) for word in words], io.StringIO(), io.StringIO()
    with kept_state(), contextlib.chdir(cwd):
        _as_at_the_start({"COLUMNS": "80"} | environment, [str(path_of(script)), *argv])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = _exit_code(importlib.import_module(f"{checkout.PACKAGE}.{script}").main, argv)
    return Ended(status, out.getvalue(), err.getvalue())


def run_python(*words, cwd=REPO, **environment: str) -> Ended:
    """Run this Python with these words in a process of its own."""
    done = subprocess.run(
        command(*words), cwd=cwd, capture_output=True, text=True, env=os.environ | environment, timeout=600
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def command(*words) -> list[str]:
    return [sys.executable, *map(str, words)]


TWO_PROCESSES = (
    *("-m", "torch.distributed.run", "--nproc_per_node", "2"),
    *("--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", "--local_addr", "127.0.0.1"),
)
"""A launcher on a port that the system chooses."""


def run_in_two_processes(runs: Sequence[Sequence], folder: Path) -> None:
    """Do these runs of unlearn_model.py one after the other under one launcher; all must succeed."""
    done = launch(runs, folder)
    assert done.returncode == 0, done.stderr[-3000:]


def launch(runs: Sequence[Sequence], folder: Path, *fault) -> Ended:
    """Do runs of unlearn_model.py in two processes; `fault` (rank, step, what) is one of several_runs.py."""
    plan = folder / "runs.json"
    plan.write_text(json.dumps([[str(word) for word in words] for words in runs]))
    script = Path(__file__).with_name("several_runs.py")
    return run_python(*TWO_PROCESSES, script, plan, *fault, OMP_NUM_THREADS="1")


class Forked:
    """A script in a process of its own that is forked from this one, so that it need not load anything: for
    tests in which a process dies. `before` is called in it first."""

    def __init__(
        self, script: str, *words, log: Path, before: Callable[[], object] = int, **environment: str
    ):
        load_libraries()
        self.streams = log.with_suffix(".out"), log.with_suffix(".err")
        self.pid = os.fork()
        if self.pid == 0:
            self._run(script, [str(word) for word in words], before, environment)

    def _run(
        self, script: str, argv: list[str], before: Callable[[], object], environment: dict[str, str]
    ) -> NoReturn:
        status = 70
        try:
            sys.stdout, sys.stderr = (path.open("w", buffering=1) for path in self.streams)
            os.chdir(REPO)
            # Where pytest is a shell's background job, it ignores interrupts, and so would its children.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _as_at_the_start(environment | {"COLUMNS": "80"}, [str(path_of(script)), *argv])
            before()
            status = _exit_code(importlib.import_module(f"{checkout.PACKAGE}.{script}").main, argv)
        finally:
            os._exit(status)

    @cached_property
    def ended(self) -> Ended:
        """Wait for its end. A negative exit code is the signal that killed it."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return Ended(status, *(path.read_text() if path.exists() else "" for path in self.streams))

    @property
    def is_running(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def run_forked(script: str, *words, cwd: Path) -> Ended:
    """Run src/exec/<script>.py as a user would, in a process that has the libraries but nothing of the
    project: neither its modules nor the path to them."""
    load_libraries()
    logs = [cwd.parent / f"{script}.{stream}" for stream in ("out", "err")]
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            for number, path in enumerate(logs, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            _forget_the_project()
            os.chdir(cwd)
            _as_at_the_start({}, [str(path_of(script)), *map(str, words)])
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
            status = _exit_code(lambda argv: runpy.run_path(argv[0], run_name="__main__") and 0, sys.argv)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Ended(status, *(path.read_text() for path in logs))


def _forget_the_project() -> None:
    """Undo what imported the project and its tests into this process."""
    sys.path[:] = [
        path for path in sys.path if REPO not in (Path(path), *Path(path).parents) or ".venv" in path
    ]
    own = [name for name, module in sys.modules.items() if _is_ours(getattr(module, "__file__", None))]
    for name in own:
        del sys.modules[name]


def _is_ours(file: str | None) -> bool:
    return file is not None and file.startswith(f"{REPO}/") and ".venv" not in file


def kill_once(ready: Callable[[], object], *processes: Forked) -> None:
    """Kill the processes, without a chance to tidy up, as soon as `ready()` is true. An error when they ended
    by themselves before."""
    wait_until(lambda: ready() or not all(process.is_running for process in processes))
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    # The first of two may have taken the other with it.
    codes = [process.ended.returncode for process in processes]
    assert -signal.SIGKILL in codes, [process.ended for process in processes]


CHANGES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.link",
    "os.symlink",
    "os.truncate",
)
"""Audit events of what changes a folder, beside `open`. The first argument of each is a path."""


def die_at_change(number: int, folder: Path) -> Callable[[], None]:
    """For `Forked.before`: kill the process just before its change of this number, counted from 1, to a file
    or folder within `folder`."""
    made = itertools.count(1)

    def watch(event: str, arguments: tuple) -> None:
        opens = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not (opens or event in CHANGES) or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path.startswith(str(folder)) and next(made) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(watch)


@contextlib.contextmanager
def mounted(place, options: str):
    """A tmpfs with these options at `place`. Only root can mount one: elsewhere the test is skipped."""
    if os.geteuid():
        pytest.skip("mounting a small disk needs root")
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("root may not mount a tmpfs here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def ranks(count: int) -> list[dict[str, str]]:
    """What a launcher tells each of `count` processes, in its environment."""
    common = {
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    return [
        {key: str(value) for key, value in (common | {"RANK": n, "LOCAL_RANK": n}).items()}
        for n in range(count)
    ]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_until(ready: Callable[[], object], seconds: float = 120) -> None:
    """Come back as soon as `ready()` is true; an error after so many seconds."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not ready after {seconds} seconds")
        time.sleep(0.02)


def once(factory, name: str, fill: Callable[[Path], None]) -> Path:
    """A folder that `fill` filled, made once for all workers of the session (`factory`: tmp_path_factory)."""
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder = root / name
    with FileLock(f"{folder}.lock"):
        if not (folder / ".filled").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            fill(folder)
            (folder / ".filled").touch()
    return folder


def path_of(script: str) -> Path:
    return REPO / "src" / "exec" / f"{script}.py"


RUN_MODULE = "unlearnkit.model.run.unlearn_run"


@cache
def load_libraries() -> None:
    """Load what every run needs, and keep the garbage collector from walking through it in each run: the
    Trainer collects twice, which would cost half a second every time."""
    for name in (RUN_MODULE, "unlearnkit.model.run.training"):
        importlib.import_module(name)
    # A report would cost every run a second; tests about reports have the fixture `reports`.
    sys.modules[RUN_MODULE].write_run_report = lambda settings, logger, environment: None
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def kept_state() -> Iterator[None]:
    """Put back what a run may change in its process: environment, argv, logging, warnings, signals, random
    generators, and the settings of torch, transformers and accelerate."""
    from accelerate.state import AcceleratorState, GradientState
    from transformers.utils import logging as hf_logging

    environment, argv, path = dict(os.environ), sys.argv, list(sys.path)
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, root.manager.disable
    numbers = [n for n in signal.valid_signals() if n not in (signal.SIGKILL, signal.SIGSTOP)]
    signals = {number: signal.getsignal(number) for number in numbers}
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    threads, dtype, grad = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        hf_logging.set_verbosity(verbosity)
        (hf_logging.enable_progress_bar if bars else hf_logging.disable_progress_bar)()
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
        for number, handler in signals.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        root.handlers[:], root.manager.disable = handlers, disabled
        root.setLevel(level)
        sys.argv, sys.path[:] = argv, path
        os.environ.clear()
        os.environ.update(environment)


def _as_at_the_start(environment: dict[str, str], argv: list[str]) -> None:
    """Give a script the process it would find: no log handler yet, its own words, and random generators that
    nobody has seeded."""
    logging.getLogger().handlers.clear()
    os.environ.update(environment)
    sys.argv = argv
    random.seed()
    numpy.random.seed()
    torch.seed()


def _exit_code(main, argv: list[str]) -> int:
    """The exit code that Python would give."""
    try:
        return main(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()
        return 1
