"""A seeded campaign of faults: runs are killed or their disk fills up at random moments, and the same command
is given again. Counted is what was lost (the second command fails) and what is silently different (its files
are not those of a run that nothing disturbed, to the bit; only times and speeds may differ).

    OMP_NUM_THREADS=1 python benchmarks/faults.py --kills 100 --seed 0

Faults: SIGKILL and SIGTERM at a random time, SIGKILL just before a random change of a file, a disk that is
full after a random number of bytes (root only: a tmpfs of that size). Victims are forked from one process
that has the libraries, so that a fault costs seconds; runs of a grid are processes of their own.
"""

import argparse
import contextlib
import hashlib
import importlib
import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests"))
from scripts import CHANGES  # noqa: E402  (it loads the package of this checkout too)

FAULTS = ("kill", "term", "change", "full")
TIMES = ("tokens_per_second", "seconds", "evaluation_seconds", "train_seconds", "started", "peak_memory_mb")
"""Fields whose values are times, speeds and sizes of the process."""
ADDRESS = re.compile(rb"at 0x[0-9a-f]+")
"""Of a function, in the harness's printed config of a task."""
UNCOMPARED = ("lock", "environment.json", "report.html")
"""Files that hold times, as text."""
FIRST_BYTES = 65536
"""Least size of a disk that fills up: a run that cannot even write its settings has nothing to lose."""

TRAIN = (
    "--unlearn.unlearn_method NPO+FT --unlearn.lr 1e-3 --unlearn.num_epochs 2 --dataset.forget_ratio 8"
    " --dataset.batch_size 4 --unlearn.save_steps 1 --evaluate.before false --evaluate.metrics forget/prob"
    " --evaluate.rows 4 --evaluate.bootstrap 0 --unlearn.resume_path auto --logger.name run"
    " --logger.json.root {}"
    " --overall.cache_dir {}/cache"
)


@dataclass(frozen=True)
class Victim:
    """A run that faults strike.

    Args:
        script: of src/exec.
        words: its command line; {} is the folder of everything it writes.
        weight: how often it is chosen.
        processes: of two the first is struck, and takes the other with it.
    """

    script: str
    words: str
    weight: int = 4
    processes: int = 1


VICTIMS = {
    "training": Victim("unlearn_model", TRAIN, 6),
    "training, LoRA": Victim(
        "unlearn_model", f"{TRAIN} --unlearn.use_lora true --unlearn.save_adapter beside", 4
    ),
    "evaluating while training": Victim("unlearn_model", f"{TRAIN} --evaluate.every '1 epoch'", 4),
    "training, two processes": Victim("unlearn_model", TRAIN, 3, processes=2),
    "evaluating": Victim(
        "evaluate_model",
        "--evaluate.metrics tofu --evaluate.rows 4 --evaluate.max_new_tokens 8 --evaluate.bootstrap 0"
        " --logger.name run --logger.json.root {} --overall.cache_dir {}/cache",
        5,
    ),
    "masks": Victim(
        "make_mask",
        "--mask.score gradient --mask.ratios 0.2,0.5,0.8 --dataset.forget_ratio 4 --mask.out {}/masks"
        " --overall.cache_dir {}/cache --mask.overwrite true",
        4,
    ),
    "traces": Victim(
        "make_traces",
        "--dataset.forget_ratio 6 --traces.max_new_tokens 6 --dataset.traces {}/t.jsonl"
        " --overall.cache_dir {}/cache"
        " --evaluate.batch_tokens 64",
        3,
    ),
    "benchmarks": Victim(
        "run_benchmarks",
        "--suite smoke --limit 2 --logger.name run --logger.json.root {} --overall.cache_dir {}/cache",
        3,
    ),
}


@dataclass
class Outcome:
    """What became of one fault."""

    number: int
    victim: str
    fault: str
    moment: float
    struck: bool = False
    """Did the fault end the victim? One that was done before does not count."""
    code: int | None = None
    again: int | None = None
    lost: str = ""
    different: str = ""
    unclear: str = ""
    """A traceback where one line was due."""


class Process:
    """A script in a process forked from this one."""

    def __init__(
        self, victim: Victim, folder: Path, log: Path, rank: dict[str, str], watch: Callable[[], None]
    ):
        self.log, self.pid = log, os.fork()
        if self.pid == 0:
            self._run(victim, folder, rank, watch)

    def _run(self, victim: Victim, folder: Path, rank: dict[str, str], watch: Callable[[], None]) -> None:
        status = 70
        try:
            os.setpgid(0, 0)
            sys.stdout = sys.stderr = self.log.open("w", buffering=1)
            os.chdir(REPO)
            os.environ.update({"COLUMNS": "80", "HF_HUB_OFFLINE": "1"} | rank)
            words = shlex.split(victim.words.replace("{}", str(folder)))
            sys.argv = [str(REPO / "src/exec" / f"{victim.script}.py"), *words]
            random.seed()
            watch()
            main = importlib.import_module(f"unlearnkit.exec.{victim.script}").main
            try:
                status = main(words)
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def is_running(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def signal(self, number: int) -> None:
        """To the process and, where it dies at once, to the children that a dying machine would take
        along."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)


def ranks(count: int) -> list[dict[str, str]]:
    """The environment of each of several processes, as a launcher sets it."""
    if count == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{k: str(v) for k, v in (common | {"RANK": n, "LOCAL_RANK": n}).items()} for n in range(count)]


def die_at_change(number: int, folder: Path, count: Path | None = None) -> Callable[[], None]:
    """Kill this process just before its change of this number within `folder`; for 0 write the number of
    changes to `count` instead, as they are made."""
    made = itertools.count(1)

    def watch(event: str, arguments: tuple) -> None:
        opens = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not (opens or event in CHANGES) or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if not os.path.abspath(os.fsdecode(arguments[0])).startswith(f"{folder}/"):
            return
        now = next(made)
        if count:
            os.truncate(count, now)
        elif now == number:
            os.killpg(0, signal.SIGKILL)

    return lambda: sys.addaudithook(watch)


def run(victim: Victim, folder: Path, log: Path, watch: Callable[[], None] = lambda: None) -> list[Process]:
    return [
        Process(victim, folder, log.with_suffix(f".{n}"), rank, watch if n == 0 else lambda: None)
        for n, rank in enumerate(ranks(victim.processes))
    ]


def contents(folder: Path) -> dict[str, str]:
    """Hash of everything that a run is about, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts) or parts[0] == "cache"
        if path.is_file() and not hidden and path.name not in UNCOMPARED:
            found["/".join(parts)] = hashlib.sha256(_without_times(path)).hexdigest()
    return found


def _without_times(path: Path) -> bytes:
    content = ADDRESS.sub(b"at 0x", path.read_bytes())
    if path.suffix not in (".json", ".jsonl"):
        return content
    lines = content.splitlines() if path.suffix == ".jsonl" else [content]
    try:
        return "\n".join(json.dumps(_cleared(json.loads(line)), sort_keys=True) for line in lines).encode()
    except ValueError:
        return content


def _cleared(value):
    if isinstance(value, dict):
        return {key: _cleared(item) for key, item in value.items() if key not in TIMES}
    return [_cleared(item) for item in value] if isinstance(value, list) else value


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """A disk of `size` bytes at `folder`; yields what makes room on it. 0 is a plain folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if not size:
        yield lambda: None
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=2G", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


@dataclass(frozen=True)
class Undisturbed:
    """What a run is without a fault."""

    code: int
    seconds: float
    changes: int
    size: int
    files: dict[str, str]


def undisturbed(victim: Victim, place: Path) -> Undisturbed:
    folder, count = place / "work", place / "changes"
    with disk(folder, 0):
        count.write_bytes(b"")
        start = time.monotonic()
        processes = run(victim, folder, place / "log", die_at_change(0, folder, count))
        codes = [process.wait() for process in processes]
        seconds = time.monotonic() - start
        size = bytes_in(folder)
        return Undisturbed(codes[0], seconds, count.stat().st_size, size, contents(folder))


def strike(outcome: Outcome, victim: Victim, clean: Undisturbed, place: Path, draw: random.Random) -> None:
    """Run a victim, let the fault strike, run it again, compare."""
    folder, log = place / "work", place / "log"
    size = (
        int(FIRST_BYTES + draw.random() * max(0, clean.size - FIRST_BYTES)) if outcome.fault == "full" else 0
    )
    watch = lambda: None
    if outcome.fault == "change":
        watch = die_at_change(draw.randint(1, max(1, clean.changes)), folder)
    with disk(folder, size) as make_room:
        processes = run(victim, folder, log, watch)
        if outcome.fault in ("kill", "term"):
            _wait(processes[0], outcome.moment)
            processes[0].signal(signal.SIGKILL if outcome.fault == "kill" else signal.SIGTERM)
        outcome.code = processes[0].wait()
        for other in processes[1:]:
            other.signal(signal.SIGKILL)
            other.wait()
        outcome.struck = outcome.code != clean.code
        told = log.with_suffix(".0").read_text(errors="replace")
        if outcome.fault in ("term", "full") and outcome.struck and "Traceback" in told:
            outcome.unclear = told[-1500:]
        if not outcome.struck:
            # The run was whole already; what its second start does is not about the fault.
            outcome.lost = "" if contents(folder) == clean.files else "whole, and not what it should be"
            return
        make_room()
        again = [process.wait() for process in run(victim, folder, log)]
        outcome.again = again[0]
        found = contents(folder)
        missing = sorted(clean.files.keys() - found.keys())
        other = sorted(name for name in found if name in clean.files and found[name] != clean.files[name])
        other += sorted(found.keys() - clean.files.keys())
        if outcome.again != clean.code or missing:
            outcome.lost = (
                f"code {outcome.again}, missing {missing}: {log.with_suffix('.0').read_text()[-800:]}"
            )
        outcome.different = ", ".join(other)


def _wait(process: Process, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.is_running:
        time.sleep(0.005)


def write_victims(place: Path) -> Path:
    """A random two-layer model over the fictional tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from unlearnkit.core.files import write_json
    from unlearnkit.core.provenance import PROVENANCE

    tokenizer = AutoTokenizer.from_pretrained(REPO / "files/models/fictional/target")
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0, "bos_token_id": None}
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=512, **shape, **ids
    )
    folder = place / "model"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / PROVENANCE, {"dataset": {"forget_dataset_name": "Fictional_forget10"}})
    return folder


def load_libraries(names: list[str]) -> None:
    for name in (
        *(
            "model.run.unlearn_run",
            "model.run.training",
            "model.masks.mask_making",
            "model.report.last_screen",
        ),
        *(f"exec.{VICTIMS[name].script}" for name in names),
    ):
        importlib.import_module(f"unlearnkit.{name}")
    if "benchmarks" in names:
        importlib.import_module("lm_eval.tasks")
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()


def campaign(options: argparse.Namespace, place: Path) -> list[Outcome]:
    model, draw, outcomes = write_victims(place), random.Random(options.seed), []
    names = [name for name in VICTIMS if not options.only or options.only in name]
    load_libraries(names)
    common = f" --overall.model_name {model} --overall.quiet true --overall.device cpu"
    victims = {
        name: Victim(v.script, v.words + common, v.weight, v.processes)
        for name, v in VICTIMS.items()
        if name in names
    }
    faults = [fault for fault in FAULTS if fault != "full" or os.geteuid() == 0]
    clean: dict[str, Undisturbed] = {}
    start, number = time.monotonic(), 0
    while sum(outcome.struck for outcome in outcomes) < options.kills:
        if options.minutes and time.monotonic() - start > 60 * options.minutes:
            break
        name = draw.choices(names, [victims[name].weight for name in names])[0]
        fault, share = draw.choice(faults), draw.random()
        if name not in clean:
            clean[name] = undisturbed(victims[name], place)
            again = undisturbed(victims[name], place)
            if clean[name].files != again.files or clean[name].code:
                other = {file for file in again.files if again.files[file] != clean[name].files.get(file)}
                print(
                    f"# {name} left out: its code is {clean[name].code}, two undisturbed runs differ in"
                    f" {other}"
                )
                print((place / "log.0").read_text()[-1500:], flush=True)
                names.remove(name)
                continue
            print(f"# {name}: {clean[name].seconds:.1f} s, {clean[name].changes} changes", flush=True)
        number += 1
        outcome = Outcome(number, name, fault, share * clean[name].seconds)
        strike(outcome, victims[name], clean[name], place, draw)
        outcomes.append(outcome)
        print(json.dumps(asdict(outcome)), flush=True)
    return outcomes


def summary(outcomes: list[Outcome], seed: int) -> str:
    struck = [outcome for outcome in outcomes if outcome.struck]
    by_victim = ", ".join(
        f"{name} {count}" for name, count in Counter(o.victim for o in struck).most_common()
    )
    by_fault = ", ".join(f"{name} {count}" for name, count in Counter(o.fault for o in struck).most_common())
    lost, different, unclear = (
        sum(bool(getattr(outcome, name)) for outcome in outcomes) for name in ("lost", "different", "unclear")
    )
    return (
        f"seed {seed}: {len(struck)} faults ended a run ({len(outcomes) - len(struck)} more came too late);"
        f" {lost} lost, {different} silently different, {unclear} with a traceback."
        f" By run: {by_victim}. By fault: {by_fault}."
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="faults that must end a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0, help="stop after this time; 0 is no limit")
    parser.add_argument("--only", default="", help="runs whose name holds this text")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        outcomes = campaign(options, Path(temporary))
    print(summary(outcomes, options.seed))
    return int(any(outcome.lost or outcome.different or outcome.unclear for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
