"""Subtracting what fine-tuning on the forget rows adds."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.files import UserError
from ...core.options import knob
from ..base import FORGET, Edit


@FORGET.register("TV", "task_vector")
@dataclass(frozen=True)
class TV(Edit):
    """Task vector (Ilharco et al., arXiv:2212.04089): the reference model minus alpha times what reinforcing
    added.

    Formula: θ - α (θ_reinforced - θ)
    Cost: no training of its own; making the reinforced model is one forward and backward over the forget rows
    per step.
    """

    alpha: float = knob(1.0, "how much of the vector is subtracted", at_least=0)
    reinforced: str | None = knob(
        None,
        "folder or hub name of a model reinforced on the forget rows; without it one is trained on "
        "the way, with the run's own lr and epochs",
    )

    def edit(self, start: Mapping[str, Tensor], reinforced: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if start.keys() != reinforced.keys() or any(
            start[name].shape != reinforced[name].shape for name in start
        ):
            raise UserError("unlearn.TV.reinforced is of another architecture than overall.model_name")
        moved = {
            name: start[name] - self.alpha * (reinforced[name].to(start[name]) - start[name])
            for name in start
            if start[name].is_floating_point()
        }
        if all(torch.equal(start[name], reinforced[name].to(start[name])) for name in moved):
            raise UserError(
                "unlearn.TV: the reinforced model equals the reference model, so there is nothing to subtract"
            )
        return dict(start) | moved
