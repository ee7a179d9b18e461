"""Arithmetic of a training: how the rows of an epoch become micro-batches and optimizer steps."""

from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any

from ...core.durations import Duration


@dataclass(frozen=True)
class StepPlan:
    """Micro-batches and optimizer steps of a training.

    A step never spans two epochs: the last window of an epoch is short where rows or micro-batches do not
    divide. No row is dropped and none counts twice, on any number of processes.

    Args:
        rows: Leading rows of an epoch.
        batch: Rows per micro-batch and process.
        accumulation: Micro-batches per optimizer step.
        processes: Processes that share the rows.
        epochs: Configured passes over the rows.
        max_steps: Optimizer steps in place of `epochs`; -1 for none.
    """

    rows: int
    batch: int
    accumulation: int = 1
    processes: int = 1
    epochs: int = 1
    max_steps: int = -1

    @property
    def rows_per_step(self) -> int:
        """Rows of a full window, of all processes."""
        return self.batch * self.accumulation * self.processes

    @property
    def micro_steps_per_epoch(self) -> int:
        """Micro-batches of one process; every process has as many."""
        return -(-self.rows // (self.batch * self.processes))

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.micro_steps_per_epoch // self.accumulation)

    @property
    def steps(self) -> int:
        """Optimizer steps of the training."""
        return self.max_steps if self.max_steps > 0 else self.epochs * self.steps_per_epoch

    @property
    def last_window_rows(self) -> int:
        """Rows of the last optimizer step of an epoch."""
        return self.rows - (self.steps_per_epoch - 1) * self.rows_per_step

    def micro_steps(self, step: int) -> int:
        """Micro-batches of one process in the first `step` optimizer steps."""
        whole, rest = divmod(step, self.steps_per_epoch)
        return whole * self.micro_steps_per_epoch + rest * self.accumulation

    def epoch(self, step: int) -> Fraction:
        """Passes over the rows after `step` optimizer steps, in micro-batches."""
        return Fraction(self.micro_steps(step), self.micro_steps_per_epoch)

    def is_due(self, every: Duration, step: int) -> bool:
        """Is step the first at or after a multiple of `every`, or the last of the training?"""
        if step == self.steps:
            return True
        if every.unit == "step":
            return step % every.amount == 0
        return floor(self.epoch(step) / every.amount) > floor(self.epoch(step - 1) / every.amount)

    def record(self, done: int) -> dict[str, Any]:
        """What was configured and what is done after `done` optimizer steps, for environment.json."""
        return {
            "epochs_configured": self.epochs,
            "epochs_done": round(float(self.epoch(done)), 6),
            "max_steps_configured": self.max_steps if self.max_steps > 0 else None,
            "optimizer_steps_planned": self.steps,
            "optimizer_steps_done": done,
            "micro_steps_done": self.micro_steps(done),
            "rows_per_micro_step": self.batch,
            "micro_steps_per_step": self.accumulation,
            "processes": self.processes,
            "rows_per_step": self.rows_per_step,
            "rows_per_epoch": self.rows,
            "last_window_rows": self.last_window_rows,
            "last_window_share": round(self.last_window_rows / self.rows_per_step, 6),
        }
