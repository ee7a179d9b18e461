"""How the gradients of several processes become those of the whole step.

Two cases hide behind the same calls. Whole weights (one process, DDP, adapters beside sharded weights): a
gradient is the share of this process until `total` sums it. Sharded weights (FSDP2): every backward sums over
processes already and leaves each of them its part, so `total` has nothing to do."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from ...core.files import UserError
from ...core.sharding import is_part, local
from ..gradients.agreement import set_aside
from .derivatives import gradient_of, hessian_vector_product

Batches = list[Any]


class WholeGradients:
    """Gradients of whole weights: each process has its share until they are summed."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator

    def of(self, loss: Tensor, weights: list[Tensor]) -> list[Tensor]:
        """d loss / d weights outside `.grad`: this process's share."""
        return gradient_of(loss, weights)

    def along(self, loss: Tensor, weights: list[Tensor], vector: list[Tensor]) -> list[Tensor]:
        """The Hessian of the loss times a vector: this process's share."""
        return hessian_vector_product(loss, weights, vector)

    def total(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """Shares summed over processes."""
        return [sum_over_processes(self.accelerator, part) for part in vector]

    def shared_batches(self, batches: Batches) -> tuple[Batches, Callable[[Tensor], Tensor]]:
        """The batches from which this process makes its share of an extra gradient, and the sum over
        processes of what it makes."""
        return batches, lambda value: sum_over_processes(self.accelerator, value)


class ShardedGradients(WholeGradients):
    """Gradients of sharded weights: each process has its part of the sum."""

    def of(self, loss, weights):
        # FSDP2 reaches `.grad` alone, and takes the mean over processes.
        with set_aside(weights):
            (loss * self.accelerator.num_processes).backward()
            return [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]

    def along(self, loss, weights, vector):
        raise UserError(
            "a double backward does not work with sharded weights (FSDP2); set the wrapper's mode to"
            " differences, or use overall.engine ddp"
        )

    def total(self, vector):
        return list(vector)

    def shared_batches(self, batches):
        """All processes make the gradient of the same text at the same time: a backward would sum those of
        different ones."""
        return everywhere(self.accelerator, batches), lambda value: value


class AdapterGradients(WholeGradients):
    """Gradients of whole adapters beside sharded frozen weights, whose passes all processes must make
    together."""

    def shared_batches(self, batches):
        return everywhere(self.accelerator, batches), lambda value: value


def make_gradients(accelerator: Accelerator, weights: Sequence[Tensor], sharded: bool) -> WholeGradients:
    """By the trained weights, and by whether those of the model are sharded."""
    if any(map(is_part, weights)):
        return ShardedGradients(accelerator)
    return AdapterGradients(accelerator) if sharded else WholeGradients(accelerator)


def everywhere(accelerator: Accelerator, batches: Batches) -> Batches:
    """The batches of all processes, on each of them."""
    move = lambda batch, device: {
        name: {key: value.to(device) for key, value in part.items()} for name, part in batch.items()
    }
    found = gather_object([move(batch, "cpu") for batch in batches])
    return [move(batch, accelerator.device) for batch in found]


def sum_over_processes(accelerator: Accelerator, value: Tensor) -> Tensor:
    """A whole tensor summed over processes."""
    if accelerator.num_processes == 1:
        return value
    summed = accelerator.reduce(value, "sum")
    assert isinstance(summed, Tensor)
    return summed


def is_finite(tensors: Sequence[Tensor]) -> bool:
    """Is every element here a finite number? Of sharded tensors the part of this process."""
    # torch.isfinite makes a copy and two masks of the tensor; minimum and maximum pass NaN on.
    values = (local(tensor).detach() for tensor in tensors)
    return all(bool(torch.isfinite(torch.stack(v.aminmax())).all()) for v in values if v.numel())
