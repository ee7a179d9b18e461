"""What an optimizer step gathers over its micro-batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Batch = Mapping[str, Mapping[str, Tensor]]


@dataclass
class Window:
    """What one optimizer step has gathered over its micro-batches so far."""

    means: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, list[Tensor]] = field(default_factory=dict)
    """Sums so far: of each side where they are taken apart, and the curvature estimate."""
    batches: int = 0
    kept: list[Batch] = field(default_factory=list)
    """The micro-batches themselves, without fillers, where an extra gradient is made from them at the end."""

    def add(self, name: str, gradient: list[Tensor]) -> None:
        """Add to a sum, in float32 or wider."""
        known = self.gradients.get(name)
        wide = [g.to(torch.promote_types(g.dtype, torch.float32)) for g in gradient]
        self.gradients[name] = wide if known is None else [a + b for a, b in zip(known, wide)]


def is_filler(batch: Batch) -> bool:
    """True for a batch without any row of its own."""
    return any(bool((part["index"] < 0).any()) for part in batch.values())
