"""Progress of the phases of a run, on standard error: a bar in a terminal, else a plain line when a phase
begins, one after two seconds and one every half minute; a phase that is often short has no first line.
Nothing when the run is quiet."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from ...core.screen import Screen, show_error

INTERVAL = 30.0
"""Seconds between two lines about a phase."""
FIRST = 2.0
"""Seconds after which the first of them comes, with a forecast: a shorter phase needs none."""


class Phase:
    """What a phase has done of what it has to do; this one shows nothing.

    Args:
        title: what is being done.
        unit: what is counted, e.g. rows or steps.
        total: how many there are; None when it is not known yet.
        done: how many an interrupted run has done before.
    """

    def __init__(self, title: str, unit: str, total: int | None = None, done: int = 0):
        self.title, self.unit, self.total, self.done, self.note = title, unit, total, done, ""

    @property
    def count(self) -> str:
        """`3 of 8 rows`; empty where nothing is counted."""
        if self.total is None:
            return f"{self.done} {self.unit}" if self.done else ""
        return f"{self.done} of {self.total} {self.unit}"

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def update(self, done: int | None = None, total: int | None = None, note: str | None = None) -> None:
        """Take in what has changed: how much is done, how much there is, a word beside it."""
        self.done = self.done if done is None else done
        self.total = self.total if total is None else total
        self.note = self.note if note is None else note

    def add(self, more: int) -> None:
        """Take in that so much more is done. Processes that share rows report as if each had an equal part,
        which may come to more than there is."""
        done = self.done + more
        self.update(done if self.total is None else min(done, self.total))


class Bar(Phase):
    """A phase as a bar in the terminal, which goes when the phase ends."""

    def __enter__(self):
        self.screen = Screen(sys.stderr)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            # Last, and cut where the line ends: a long note must not hide the bar and the time left.
            TextColumn("{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            console=self.screen,
            transient=True,
            expand=True,
        )
        title = self.screen.literal(self.title)
        self.task = self.bar.add_task(title, total=self.total, completed=self.done, count="", note="")
        self.bar.start()
        self.update()
        return self

    def __exit__(self, *_) -> None:
        self.bar.stop()

    def update(self, done: int | None = None, total: int | None = None, note: str | None = None) -> None:
        super().update(done, total, note)
        self.bar.update(
            self.task,
            completed=self.done,
            total=self.total,
            count=self.count.replace(" of ", "/", 1),
            note=self.screen.literal(self.note),
        )


class Lines(Phase):
    """A phase as lines of a log: one at its begin, then one every `interval` seconds, whether or not
    something has been done since.

    Args:
        interval: seconds between two lines.
        clock: gives the time in seconds.
        is_late: whether the first line comes only when the phase has taken two seconds, for phases that are
            often shorter.
    """

    def __init__(
        self,
        title: str,
        unit: str,
        total: int | None = None,
        done: int = 0,
        interval: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        is_late: bool = False,
    ):
        super().__init__(title, unit, total, done)
        self.is_late = is_late
        self.interval, self.clock = INTERVAL if interval is None else interval, clock
        self.start, self.first, self.over = clock(), done, threading.Event()

    def __enter__(self):
        if not self.is_late:
            show_error(self.title + (f": {self.total} {self.unit}" if self.total is not None else ""))
        self.thread = threading.Thread(target=self._repeat, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()

    def _repeat(self) -> None:
        wait = min(FIRST, self.interval)
        while not self.over.wait(wait):
            self.show()
            wait = self.interval

    def update(self, done: int | None = None, total: int | None = None, note: str | None = None) -> None:
        if done is not None and done < self.done:  # a count that begins anew has its own speed
            self.start, self.first = self.clock(), done
        super().update(done, total, note)

    def show(self) -> None:
        """Print how far the phase is."""
        words = (self.count, self.note, self._forecast())
        show_error(f"{self.title}: {', '.join(filter(None, words))}")

    def _forecast(self) -> str:
        """The time left at the speed so far, or the time that has gone by where there is no telling."""
        elapsed, done = self.clock() - self.start, self.done - self.first
        if self.total is None or done <= 0:
            return f"{_clock_time(elapsed)} so far"
        return f"{_clock_time(elapsed / done * max(0, self.total - self.done))} left"


def make_phase(
    title: str,
    unit: str,
    quiet: bool,
    total: int | None = None,
    done: int = 0,
    is_late: bool = False,
) -> Phase:
    """The display of a phase that suits the place where the run writes. Of several processes only the first
    shows anything."""
    if quiet or os.environ.get("RANK", "0") != "0":
        return Phase(title, unit, total, done)
    in_terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if in_terminal:
        return Bar(title, unit, total, done)
    return Lines(title, unit, total, done, is_late=is_late)


@contextlib.contextmanager
def activity(title: str, quiet: bool) -> Iterator[None]:
    """A phase in which nothing is counted; without a terminal it has lines only from two seconds on."""
    with make_phase(title, "", quiet, is_late=True):
        yield


@contextlib.contextmanager
def progress(title: str, quiet: bool, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A phase that goes through `total` rows; gives the function that adds to those done."""
    with make_phase(title, "rows", quiet, total) as phase:
        yield phase.add


@contextlib.contextmanager
def counting(title: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A phase of rows whose total shows later; gives the function that takes the rows done and the total."""
    with make_phase(title, "rows", quiet) as phase:
        yield phase.update


def _clock_time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
