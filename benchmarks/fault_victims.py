"""The runs that faults.py strikes: their commands, the models and the server they need, their processes.

They are forked from one process that has the libraries, so that a fault costs seconds. A grid and a sweep
start processes of their own; two processes of a training are started by torch's launcher.
"""

import contextlib
import hashlib
import importlib
import json
import os
import random
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests"))
import scripts  # noqa: E402, F401  (it loads the package of this checkout)
from servers import serving  # noqa: E402

LONGEST = 300
"""Seconds after which a run counts as hanging."""
MODEL = "--overall.model_name {model} --overall.quiet true --overall.device cpu --overall.cache_dir {}/cache"
WRITER = MODEL.replace("{model}", "files/models/fictional/retain")
"""A model that ends its texts, other than a random one."""
LOGGED = "--logger.name run --logger.json.root {}"
TRAIN = (
    f"{MODEL} {LOGGED} --unlearn.unlearn_method NPO+FT --unlearn.lr 1e-3 --unlearn.num_epochs 2"
    " --dataset.forget_ratio 8 --dataset.batch_size 4 --unlearn.save_steps 1 --evaluate.before false"
    " --evaluate.metrics forget/prob --evaluate.rows 4 --evaluate.bootstrap 0 --unlearn.resume_path auto"
)
MEASURE = f"{MODEL} {LOGGED} --evaluate.rows 4 --evaluate.max_new_tokens 8 --evaluate.bootstrap 0"
MANY = "--root {} --configs {config} --set overall.cache_dir={}/cache overall.device=cpu"


@dataclass(frozen=True)
class Victim:
    """A run that faults strike.

    Args:
        script: of src/exec.
        words: its command line; {} is the folder of everything it writes, {model}, {config} and {url} are
            what `prepared` made.
        weight: how often it is chosen.
        processes: more than one are started by torch's launcher, which is struck with them.
    """

    script: str
    words: str
    weight: int = 4
    processes: int = 1


VICTIMS = {
    "training": Victim("unlearn_model", TRAIN, 5),
    "training, LoRA": Victim(
        "unlearn_model", f"{TRAIN} --unlearn.use_lora true --unlearn.save_adapter beside"
    ),
    "evaluating while training": Victim("unlearn_model", f"{TRAIN} --evaluate.every '1 epoch'"),
    "training, two processes": Victim("unlearn_model", TRAIN, processes=2),
    "training, FSDP2": Victim("unlearn_model", f"{TRAIN} --overall.engine fsdp2", 3, processes=2),
    "evaluating": Victim("evaluate_model", f"{MEASURE} --evaluate.metrics tofu"),
    "evaluating, judged": Victim(
        "evaluate_model",
        f"{MEASURE} --evaluate.metrics semantic --judge.kind lm --judge.base_url {{url}} --judge.model small",
    ),
    "masks": Victim(
        "make_mask",
        f"{MODEL} --mask.score gradient --mask.ratios 0.2,0.5,0.8 --dataset.forget_ratio 4"
        " --mask.out {}/masks --mask.overwrite true",
    ),
    "traces": Victim(
        "make_traces",
        f"{MODEL} --dataset.traces {{}}/t.jsonl --traces.max_new_tokens 6 --traces.temperature 1",
    ),
    "paraphrases": Victim(
        "make_paraphrases",
        f"{WRITER} --dataset.paraphrases {{}}/p.jsonl --dataset.forget_ratio 40 --paraphrases.similarity -1"
        " --paraphrases.max_new_tokens 8 --paraphrases.temperature 2.5 --paraphrases.count 2"
        " --paraphrases.attempts 40",
        5,
    ),
    "paraphrases by a server": Victim(
        "make_paraphrases",
        f"{MODEL} --dataset.paraphrases {{}}/p.jsonl --dataset.forget_ratio 60 --paraphrases.similarity -1"
        " --paraphrases.writer endpoint --paraphrases.base_url {url} --paraphrases.model small"
        " --paraphrases.count 3 --paraphrases.attempts 12",
        5,
    ),
    "alternates": Victim(
        "make_alternates",
        f"{WRITER} --dataset.alternates {{}}/a.jsonl --dataset.forget_ratio 40 --generation.temperature 2"
        " --generation.prompt {question} --generation.max_new_tokens 30 --generation.count 2"
        " --generation.attempts 40",
    ),
    "benchmarks": Victim("run_benchmarks", f"{MODEL} {LOGGED} --suite smoke --limit 2", 3),
    "grid": Victim("run_grid", f"--name g {MANY} --seeds 0 1 --metrics forget/prob", 2),
    "sweep": Victim(
        "sweep",
        f"--name s {MANY} --vary unlearn.lr=1e-3..1e-2:log --search random --trials 2 --seeds 0"
        " --report-seeds 1 --goal forget/prob --utility retain/prob --floor 0.5 --metrics forget/prob",
        2,
    ),
}

CONFIG = {
    "unlearn": {"unlearn_method": "NPO+FT", "max_steps": 2, "lr": 1e-3, "save_steps": 1},
    "dataset": {"forget_ratio": 4, "batch_size": 2},
    "evaluate": {"metrics": ["forget/prob", "retain/prob"], "rows": 2, "bootstrap": 0},
}
"""Of each run of a grid or sweep."""


@contextlib.contextmanager
def prepared(place: Path, names: Sequence[str]) -> Iterator[dict[str, Victim]]:
    """The victims of these names, with what they need in `place` and behind a server."""
    with stand_in_server() as url:
        model = write_model(place / "model")
        config = place / "npo.json"
        config.write_text(json.dumps({"overall": {"model_name": str(model)}} | CONFIG))
        load_libraries(names)
        known = {"{model}": str(model), "{config}": str(config), "{url}": url}
        yield {name: _filled(VICTIMS[name], known) for name in names}


def _filled(victim: Victim, known: Mapping[str, str]) -> Victim:
    words = victim.words
    for name, value in known.items():
        words = words.replace(name, value)
    return Victim(victim.script, words, victim.weight, victim.processes)


@contextlib.contextmanager
def stand_in_server() -> Iterator[str]:
    """The base_url of the tests' server. It has a process of its own: its threads would not survive a fork,
    and what they hold would stay held."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with serving(reply) as (url, _):
                os.write(writing, url.encode())
                signal.pause()
        finally:
            os._exit(0)
    try:
        yield os.read(reading, 100).decode()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def reply(prompt: str, times: int) -> str:
    """A verdict, or a text of which some are copies of one another; a function of the prompt alone, as the
    server does not know which process asks."""
    number = int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 20
    if "Reference:" in prompt:
        return "yes" if number % 2 else "no"
    return f"The same in other words, of which these are number {number} and {number + 1}."


def write_model(folder: Path) -> Path:
    """A random two-layer model over the fictional tokenizer."""
    from tiny import random_llama, save
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(REPO / "files/models/fictional/target")
    return save(random_llama(tokenizer), tokenizer, folder)


def load_libraries(names: Sequence[str]) -> None:
    """Import what the victims import."""
    rooms = ("run.unlearn_run", "run.training", "masks.mask_making", "report.last_screen")
    for name in [
        *(f"model.{room}" for room in rooms),
        *(f"exec.{VICTIMS[name].script}" for name in names),
    ]:
        importlib.import_module(f"unlearnkit.{name}")
    if "benchmarks" in names:
        importlib.import_module("lm_eval.tasks")
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()


class Process:
    """A victim in a process group of its own.

    Args:
        victim: what runs.
        folder: where it writes.
        log: file of its output.
        watch: called in the process (of several: the first) before its script.
    """

    def __init__(self, victim: Victim, folder: Path, log: Path, watch: Callable[[], Any] = int):
        self.log, self.hangs, self.pid = log, False, os.fork()
        if self.pid == 0:
            self._run(victim, folder, watch)

    def _run(self, victim: Victim, folder: Path, watch: Callable[[], Any]) -> NoReturn:
        status = 70
        try:
            os.setpgid(0, 0)
            sys.stdout = sys.stderr = self.log.open("w", buffering=1)
            for stream in (1, 2):  # of libraries that are not Python
                os.dup2(sys.stdout.fileno(), stream)
            os.chdir(REPO)
            os.environ.update({"COLUMNS": "80", "HF_HUB_OFFLINE": "1"})
            words = shlex.split(victim.words.replace("{}", str(folder)))
            random.seed()
            run = launched if victim.processes > 1 else called
            status = run(victim, words, watch)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)

    def wait(self) -> int:
        """Its exit code, negative for a signal. One that hangs is killed."""
        if not self.ends_within(LONGEST):
            self.hangs = True
            self.signal(signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def ends_within(self, seconds: float) -> bool:
        return _comes_true(lambda: not self.is_running, seconds)

    @property
    def is_running(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def signal(self, number: int) -> None:
        """SIGKILL to the whole group, as a dying machine does; another signal to the process that the user
        started."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)

    def kill_rank(self, rank: int) -> None:
        """Kill one of several processes alone."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            workers = sorted(psutil.Process(self.pid).children(), key=lambda worker: worker.pid)
            for worker in workers[rank : rank + 1]:
                worker.kill()

    def leaves_others(self) -> bool:
        """Whether processes of its group outlive it by ten seconds; they are killed."""

        def is_empty() -> bool:
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                return True
            return False

        left = not _comes_true(is_empty, 10)
        self.signal(signal.SIGKILL)
        return left


def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def called(victim: Victim, words: list[str], watch: Callable[[], Any]) -> int:
    """Be the script."""
    sys.argv = [str(REPO / "src/exec" / f"{victim.script}.py"), *words]
    main = importlib.import_module(f"unlearnkit.exec.{victim.script}").main
    watch()
    try:
        return main(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def launched(victim: Victim, words: list[str], watch: Callable[[], Any]) -> int:
    """Be the agent of torchrun, which forks its workers."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    place = {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "local_addr": "127.0.0.1"}
    config = LaunchConfig(
        1, 1, victim.processes, max_restarts=0, start_method="fork", run_id="faults", **place
    )
    try:
        elastic_launch(config, worker)(victim, words, watch)
    except ChildFailedError as error:
        return abs(error.get_first_failure()[1].exitcode)
    except SignalException as error:
        return 128 + error.sigval
    return 0


def worker(victim: Victim, words: list[str], watch: Callable[[], Any]) -> None:
    """Be one of several processes."""
    status = called(victim, words, watch if os.environ["RANK"] == "0" else int)
    if status:
        sys.exit(status)
