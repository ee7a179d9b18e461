"""A mask at work: weights outside it stay what they were, to the bit."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...core.sharding import shard_like
from .mask_file import content_of


class WeightMask:
    """Masks of the trained weights of one model, on their device and sharded as they are.

    Gradients are multiplied before they are combined and clipped, so that frozen weights have no part in any
    norm. Decoupled decay is taken out of the optimizer and applied to selected weights only."""

    def __init__(self, masks: Mapping[str, Tensor], model: nn.Module):
        self.content = content_of(masks)
        self.by_weight = {
            id(p): shard_like(masks[name].to(p.device), p)
            for name, p in model.named_parameters()
            if p.requires_grad
        }

    def of(self, weight: Tensor) -> Tensor:
        return self.by_weight[id(weight)]

    def apply(self, weights: Sequence[Tensor], vector: Sequence[Tensor]) -> list[Tensor]:
        """A vector in weight space with 0 where the weight is frozen, whatever stood there."""
        return [v.masked_fill(~self.of(w), 0) for w, v in zip(weights, vector)]

    @torch.no_grad()
    def apply_to_gradients(self, weights: Sequence[Tensor]) -> None:
        """The same for `.grad`, in place."""
        for weight in weights:
            if weight.grad is not None:
                weight.grad.masked_fill_(~self.of(weight), 0)

    def mask_decay(self, optimizer: Optimizer) -> None:
        """Decay selected weights only: before each step, by the group's learning rate, as AdamW and Sophia
        would."""
        decays = [group["weight_decay"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0

        @torch.no_grad()
        def decay(optimizer, args, kwargs):
            for group, weight_decay in zip(optimizer.param_groups, decays):
                group["weight_decay"] = 0.0
                for weight in group["params"] if weight_decay else ():
                    if weight.grad is not None:
                        weight.copy_(
                            torch.where(self.of(weight), weight * (1 - group["lr"] * weight_decay), weight)
                        )

        optimizer.register_step_pre_hook(decay)
