"""A seeded campaign of faults: runs are killed or their disk fills up at random moments, and the same command
is given again. Counted is what was lost (the second command fails) and what is silently different (its files
are not those of a run that nothing disturbed, to the bit; only times and speeds may differ).

    OMP_NUM_THREADS=1 python benchmarks/faults.py --kills 100 --seed 0

Faults: SIGKILL and SIGTERM at a random time, SIGKILL just before a random change of a file, SIGKILL of one of
several processes, a disk that is full after a random number of bytes (root only: a tmpfs of that size). The
runs are in fault_victims.py.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fault_victims import VICTIMS, Process, Victim, prepared
from scripts import CHANGES

FAULTS = ("kill", "term", "change", "full", "rank")
TIMES = ("tokens_per_second", "seconds", "evaluation_seconds", "train_seconds", "started", "peak_memory_mb")
"""Fields whose values are times, speeds and sizes of the process."""
IN_TEXT = re.compile(rb"at 0x[0-9a-f]+|[0-9]+ s of training")
"""The address of a function, in the harness's printed config of a task, and the time in a sweep's report."""
UNCOMPARED = ("lock", "environment.json", "report.html", "judge.json", "trials.log")
"""Files that hold times as text, or what this process asked of a server."""
FIRST_BYTES = 65536
"""Least size of a disk that fills up: a run that cannot even write its settings has nothing to lose."""
WHOLE_RUN = ("holds a whole run", "already holds a run;")
"""What a run says that was whole when the fault came."""


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
    """A traceback where one line was due, a run that hangs, processes that outlive it."""


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
    content = IN_TEXT.sub(b"", path.read_bytes())
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
        code = Process(victim, folder, place / "log", die_at_change(0, folder, count)).wait()
        seconds = time.monotonic() - start
        return Undisturbed(code, seconds, count.stat().st_size, bytes_in(folder), contents(folder))


def strike(outcome: Outcome, victim: Victim, clean: Undisturbed, place: Path, draw: random.Random) -> None:
    """Run a victim, let the fault strike, run it again, compare."""
    folder, log = place / "work", place / "log"
    size, watch = 0, lambda: None
    if outcome.fault == "full":
        size = int(FIRST_BYTES + draw.random() * max(0, clean.size - FIRST_BYTES))
    if outcome.fault == "change":
        watch = die_at_change(draw.randint(1, max(1, clean.changes)), folder)
    with disk(folder, size) as make_room:
        process = Process(victim, folder, log, watch)
        if outcome.fault in ("kill", "term", "rank") and not process.ends_within(outcome.moment):
            hit(process, outcome.fault, draw)
        outcome.code = process.wait()
        outcome.unclear = fault_of_end(process, outcome.fault)
        outcome.struck = outcome.code != clean.code
        if not outcome.struck:
            # The run was whole already; what its second start does is not about the fault.
            outcome.lost = "" if contents(folder) == clean.files else "whole, and not what it should be"
            return
        make_room()
        outcome.again = Process(victim, folder, log).wait()
        compare(outcome, clean, contents(folder), log.read_text(errors="replace"))


def hit(process: Process, fault: str, draw: random.Random) -> None:
    if fault == "rank":
        process.kill_rank(draw.randrange(2))
    else:
        process.signal(signal.SIGKILL if fault == "kill" else signal.SIGTERM)


def fault_of_end(process: Process, fault: str) -> str:
    """What is wrong with the way in which a struck run ended; "" when nothing is."""
    said = process.log.read_text(errors="replace")
    if process.hangs:
        return f"hangs: {said[-800:]}"
    if process.leaves_others():
        return "processes outlive it"
    # Those within a line are the launcher's own.
    return said[-1500:] if fault in ("term", "full") and re.search("^Traceback", said, re.MULTILINE) else ""


def compare(outcome: Outcome, clean: Undisturbed, found: dict[str, str], said: str) -> None:
    """Put down what the second run lacks, and what is not as an undisturbed run left it."""
    missing = sorted(clean.files.keys() - found.keys())
    other = sorted(name for name in found if name in clean.files and found[name] != clean.files[name])
    other += sorted(found.keys() - clean.files.keys())
    was_whole = found == clean.files and any(words in said for words in WHOLE_RUN)
    if missing or (outcome.again != clean.code and not was_whole):
        outcome.lost = f"code {outcome.again}, missing {missing}: {said[-800:]}"
    outcome.different = ", ".join(other)


def campaign(options: argparse.Namespace, place: Path) -> list[Outcome]:
    """Strike until enough runs have ended by it, or the time is over."""
    names = [name for name in VICTIMS if options.only in name]
    if not names:
        raise SystemExit(f"--only: no run's name holds {options.only!r}; there are {', '.join(VICTIMS)}")
    draw, outcomes, clean = random.Random(options.seed), [], {}
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    with prepared(place, names) as victims:
        while sum(outcome.struck for outcome in outcomes) < options.kills and time.monotonic() < end:
            name = draw.choices(names, [victims[name].weight for name in names])[0]
            victim = victims[name]
            faults = [fault for fault in FAULTS if fault != "rank" or victim.processes > 1]
            if os.geteuid():
                faults.remove("full")
            fault, share = draw.choice(faults), draw.random()
            if name not in clean:
                clean[name] = repeatable(name, victim, place)
            outcome = Outcome(len(outcomes) + 1, name, fault, share * clean[name].seconds)
            strike(outcome, victim, clean[name], place, draw)
            outcomes.append(outcome)
            print(json.dumps(asdict(outcome)), flush=True)
    return outcomes


def repeatable(name: str, victim: Victim, place: Path) -> Undisturbed:
    """What a victim is undisturbed. An error when that fails, or when two such runs differ: then a fault
    would not be seen."""
    first, second = undisturbed(victim, place), undisturbed(victim, place)
    files = first.files.keys() | second.files.keys()
    other = sorted(file for file in files if first.files.get(file) != second.files.get(file))
    if first.code or other:
        said = (place / "log").read_text(errors="replace")[-1500:]
        raise SystemExit(f"{name}: its code is {first.code}, two undisturbed runs differ in {other}: {said}")
    print(f"# {name}: {first.seconds:.1f} s, {first.changes} changes", flush=True)
    return first


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
        f" {lost} lost, {different} silently different, {unclear} without a clear end."
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
