"""Derivatives of a loss outside `.grad`, under the same random draws."""

import torch
from torch import Tensor

from ..base import add_up


class RandomState:
    """The random state at which a micro-batch begins. A flatness wrapper compares gradients at several
    places: under another dropout for each their difference would be noise."""

    def __init__(self, device: torch.device):
        self.device = device
        self.cpu = torch.get_rng_state()
        self.gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def repeat(self) -> None:
        """Draw the same numbers again from here on."""
        torch.set_rng_state(self.cpu)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu, self.device)


def gradient_of(loss: Tensor, weights: list[Tensor], create_graph: bool = False) -> list[Tensor]:
    """d loss / d weights, zero where the loss does not reach. It goes into no `.grad`."""
    found = torch.autograd.grad(loss, weights, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found)]


def hessian_vector_product(loss: Tensor, weights: list[Tensor], vector: list[Tensor]) -> list[Tensor]:
    """The Hessian of the loss times a vector, by a double backward."""
    along = add_up(
        (g * v.to(g.dtype)).sum() for g, v in zip(gradient_of(loss, weights, create_graph=True), vector)
    )
    return gradient_of(along, weights)
