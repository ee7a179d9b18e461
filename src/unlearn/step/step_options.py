"""What a step has beside the plain gradient and AdamW."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..gradients import Combiner
from ..mask import WeightMask


@dataclass(frozen=True)
class StepOptions:
    """What a step has beside the plain gradient and AdamW; handed over by `model/`, which knows the
    optimizers."""

    make_optimizer: Callable[[list[dict]], torch.optim.Optimizer] | None = None
    """From parameter groups to an optimizer; None is the Trainer's AdamW."""
    flatten: Callable[..., list[Tensor]] | None = None
    """A flatness wrapper: (weights, gradient, total, curvature, restrict, step) -> the forget gradient, see
    `optim.sharpness`."""
    curvature: Any = None
    """Estimates for a second-order optimizer: `every` steps, on `parts`, by `drawn_nll(scores,
    generator)`."""
    averaging: Any = None
    """Weight averaging: `update(step, weights)`, `put_into(weights)` and its state."""
    mask: WeightMask | None = None
    """What may change."""
    combiner: Combiner | None = None
    """What makes one update of the two sides' gradients; None is their weighted sum."""
    weights: tuple[float, float] = (1.0, 1.0)
    """The weights of the forget and of the retain side."""


@runtime_checkable
class SecondOrder(Protocol):
    """What an optimizer has that takes estimates of the curvature."""

    def update_curvature(self, weights: list[Tensor], gradients: list[Tensor], tokens: int) -> None: ...
