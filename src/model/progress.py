"""Progress bars: on the terminal's error stream, silent when it is none or the run is quiet."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn


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
