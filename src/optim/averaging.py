"""Weight averaging (SWA, arXiv:1803.05407; for unlearning arXiv:2502.05374): mean of the weights over
training steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.options import knob
from .sharpness import FLATNESS


@FLATNESS.register("WA", "SWA")
@dataclass(frozen=True)
class WA:
    """Running mean of the weights. The mean is saved and measured; training continues with the last weights.

    Formula: mean of θ over the steps start, start + every, ...
    Cost: one float32 copy of the trained weights; no forward."""

    start: int = knob(100, "first optimizer step that counts", at_least=1)
    every: int = knob(5, "steps between those that count", at_least=1)
    on_weights = True


class Averaging:
    """Running mean of weights, in float32 for any dtype of the weights: in bfloat16 most updates of the mean
    would round to nothing.

    Args:
        plan: Steps that count.
    """

    def __init__(self, plan: WA):
        self.plan = plan
        self.count = 0
        self.mean: list[Tensor] = []

    def update(self, step: int, weights: Sequence[Tensor]) -> None:
        """Include the weights after optimizer step `step`, if that step counts: mean += (w - mean) /
        count."""
        if step < self.plan.start or (step - self.plan.start) % self.plan.every:
            return
        self.count += 1
        if self.count == 1:
            self.mean = [w.detach().float().clone() for w in weights]
            return
        for mean, weight in zip(self.mean, weights):
            mean += (weight.detach().float() - mean) / self.count

    @torch.no_grad()
    def put_into(self, weights: Sequence[Tensor]) -> None:
        """Replace the weights by their mean; unchanged before the first step that counts."""
        for weight, mean in zip(weights, self.mean):
            weight.copy_(mean)

    def state_dict(self) -> dict:
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state: Mapping) -> None:
        self.count, self.mean = state["count"], list(state["mean"])
