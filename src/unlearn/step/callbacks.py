"""Callbacks of the Trainer: the sampler's epoch, the average of the weights."""

from collections.abc import Callable

from torch import Tensor
from transformers import TrainerCallback

from ...core.files import UserError


class SetEpochCallback(TrainerCallback):
    """Set the sampler's epoch: the Trainer's own call does not reach it when several processes resume
    within one."""

    def __init__(self, sampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch + 1e-6))


class WeightAveragingCallback(TrainerCallback):
    """Update the average of the weights after each optimizer step."""

    def __init__(self, averaging, weights: Callable[[], list[Tensor]]):
        self.averaging, self.weights = averaging, weights

    def on_train_begin(self, args, state, control, **kwargs):
        first = self.averaging.plan.start
        if first > state.max_steps:
            raise UserError(
                f"unlearn.flat.WA.start is {first} but the run has {state.max_steps} optimizer steps: none"
                " would count; lower it"
            )

    def on_step_end(self, args, state, control, **kwargs):
        self.averaging.update(state.global_step, self.weights())
