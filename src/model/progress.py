"""Progress bars: on the terminal's error stream, silent when it is none or the run is quiet."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def make_bar(quiet: bool, *columns: ProgressColumn) -> Progress:
    """A bar that shows a description, these columns and the time; hidden where nobody looks."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeElapsedColumn(),
        console=console,
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    )


@contextlib.contextmanager
def progress(title: str, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A counter of rows without a known end; gives the function that adds to it."""
    with make_bar(quiet, TextColumn("{task.completed} rows")) as bar:
        task = bar.add_task(title, total=None)
        yield lambda rows: bar.advance(task, rows)


@contextlib.contextmanager
def counting(title: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar with an end and the time until then; gives the function that is told how much is done of how
    much."""
    with make_bar(quiet, MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
