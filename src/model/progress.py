"""Progress bars: on the terminal's error stream, silent when it is none or the run is quiet."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

HIDDEN = ("step", "epoch", "loss", "tokens", "tokens_per_second", "learning_rate", "grad_norm")
"""What a record holds beside the terms; it is all in log.jsonl."""


def _bar(quiet: bool, *columns) -> Progress:
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
    with _bar(quiet, TextColumn("{task.completed} rows")) as bar:
        task = bar.add_task(title, total=None)
        yield lambda rows: bar.advance(task, rows)


class TrainingBar(TrainerCallback):
    """Steps done, time left, and the terms of the loss."""

    def __init__(self, title: str, quiet: bool):
        self.title = title
        self.bar = _bar(
            quiet,
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("{task.fields[terms]}"),
            TimeRemainingColumn(),
        )

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar.start()
        self.task = self.bar.add_task(self.title, total=state.max_steps, terms="")

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs):
        shown = {name: value for name, value in (logs or {}).items() if name not in HIDDEN}
        self.bar.update(self.task, terms="  ".join(f"{name} {value:.3g}" for name, value in shown.items()))

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.stop()
