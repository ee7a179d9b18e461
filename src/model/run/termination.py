"""SIGTERM while a model is trained, which schedulers send before they kill: the step is finished and
saved."""

import signal
import threading
from typing import Any

from transformers import TrainerCallback

from ...core.sharding import any_process


class SaveOnTermination(TrainerCallback):
    """Saves a step checkpoint at the end of the optimizer step in which SIGTERM arrives at any process, then
    lets the program end as SIGTERM ends it. A second SIGTERM ends it at once."""

    def __init__(self):
        self.asked = False
        self.ends: Any = None
        """What handled SIGTERM before this training; None while it is not watched."""

    def on_train_begin(self, args, state, control, **kwargs):
        if threading.current_thread() is threading.main_thread():
            self.ends = signal.signal(signal.SIGTERM, self._note)

    def _note(self, number, frame):
        self.asked = True
        signal.signal(signal.SIGTERM, self.ends)

    def on_step_end(self, args, state, control, **kwargs):
        # Every process must save at the same step, whichever of them was told to end.
        self.asked = any_process(self.asked, args.device)
        control.should_save |= self.asked

    def on_save(self, args, state, control, **kwargs):
        if self.asked:
            self.release()
            signal.raise_signal(signal.SIGTERM)

    def on_train_end(self, args, state, control, **kwargs):
        self.release()

    def release(self) -> None:
        """Give SIGTERM back to what handled it before."""
        if self.ends is not None:
            signal.signal(signal.SIGTERM, self.ends)
            self.ends = None
