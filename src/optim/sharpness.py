"""Flat minima of the forget loss (Fan et al., arXiv:2502.05374), from which relearning is harder.

Each wrapper turns the forget loss near the current weights into the gradient of the step; the retain gradient
is taken at the weights themselves. A wrapper works on a `Landscape`, without access to model or batch.

Weights are moved in place and restored from a copy, bit for bit. `Cost` in a wrapper's docstring counts these
copies.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..core.options import knob
from ..core.registry import Registry
from ..core.sharding import shard_like, whole

FLATNESS = Registry("flatness wrapper")

Gradient = list[Tensor]


@dataclass(frozen=True)
class Landscape:
    """The forget loss around the current weights, on one micro-batch of every process.

    Args:
        weights: Trained weights; they may be moved within a wrapper.
        gradient: Returns this micro-batch's share of the gradient at the current weights.
        total: Sums a gradient over all processes.
        curvature: Multiplies the Hessian at the current weights by a vector, with a double backward; this
            micro-batch's share.
        apply_mask: Sets the entries of a vector that a mask freezes to 0. The results of the other functions
            are masked already.
        step: Number of the optimizer step.
        seed: Seed of the run.
    """

    weights: Sequence[Tensor]
    gradient: Callable[[], Gradient]
    total: Callable[[Gradient], Gradient]
    curvature: Callable[[Gradient], Gradient]
    """The Hessian at the weights as they are now times a vector, by a double backward; this micro-batch's
    share."""
    apply_mask: Callable[[Gradient], Gradient]
    step: int
    seed: int


class Wrapper(Protocol):
    """A flatness wrapper."""

    def gradient(self, landscape: Landscape) -> Gradient:
        """The forget gradient of the step, one tensor per weight."""
        ...


@contextlib.contextmanager
def moved(weights: Sequence[Tensor], direction: Gradient, scale: float = 1.0) -> Iterator[None]:
    """Move the weights by scale x direction for the block, and restore them exactly."""
    with torch.no_grad():
        # A copy, since adding and subtracting would leave rounding errors in the weights.
        kept = [w.detach().clone() for w in weights]
        for w, d in zip(weights, direction):
            w.add_(d.to(w.dtype), alpha=scale)
    try:
        yield
    finally:
        with torch.no_grad():
            for w, old in zip(weights, kept):
                w.copy_(old)


def norm(vector: Gradient) -> Tensor:
    """L2 norm over all tensors, in float32 or wider."""
    wide = (t if t.dtype == torch.float64 else t.float() for t in vector)
    return torch.linalg.vector_norm(torch.stack([whole(torch.linalg.vector_norm(t)) for t in wide]))


def unit(vector: Gradient) -> Gradient:
    """The vector scaled to length 1; a zero vector stays 0."""
    length = norm(vector)
    return [t / length if length > 0 else torch.zeros_like(t) for t in vector]


def difference(after: Gradient, before: Gradient, over: float = 1.0) -> Gradient:
    """(after - before) / over."""
    return [(a - b) / over for a, b in zip(after, before)]


def plus(vector: Gradient, other: Gradient, scale: float) -> Gradient:
    """vector + scale x other."""
    return [v + scale * o for v, o in zip(vector, other)]


@FLATNESS.register("SAM")
@dataclass(frozen=True)
class SAM:
    """Sharpness-aware minimisation (Foret et al., arXiv:2010.01412): the gradient at the worst point within
    rho.

    Formula: ∇L_f(θ + ρ g / ||g||), g = ∇L_f(θ)
    Cost: one more forward and backward over the forget rows, one copy of the weights."""

    rho: float = knob(0.01, "radius of the neighbourhood, in the norm of all weights together", at_least=0)
    scope: str = knob(
        "global", "one radius for all weights, or one for each tensor", choices=("global", "tensor")
    )

    def gradient(self, landscape: Landscape) -> Gradient:
        share = landscape.gradient()
        if self.rho == 0:
            return share
        # The direction belongs to the whole batch: every process has to move to the same point.
        uphill = landscape.total(share)
        direction = unit(uphill) if self.scope == "global" else [unit([g])[0] for g in uphill]
        with moved(landscape.weights, direction, self.rho):
            return landscape.gradient()


@FLATNESS.register("RS")
@dataclass(frozen=True)
class RS:
    """Randomised smoothing: the mean gradient at weights with Gaussian noise, the same noise for all of a
    step's micro-batches.

    Formula: mean over n of ∇L_f(θ + δ), δ ~ N(0, ρ²)
    Cost: n - 1 more forwards and backwards over the forget rows, two copies of the weights."""

    rho: float = knob(1e-4, "standard deviation of the noise", at_least=0)
    samples: int = knob(3, "draws per step", at_least=1)

    def gradient(self, landscape: Landscape) -> Gradient:
        if self.rho == 0:
            return landscape.gradient()
        mean = [torch.zeros_like(w) for w in landscape.weights]
        for draw in range(self.samples):
            with moved(landscape.weights, landscape.apply_mask(self._noise(landscape, draw)), self.rho):
                mean = plus(mean, landscape.gradient(), 1 / self.samples)
        return mean

    @staticmethod
    def _noise(landscape: Landscape, draw: int) -> Gradient:
        device = landscape.weights[0].device
        # The same noise in every process and micro-batch of a step: all average over the same points. (A hash
        # of whole numbers is the same in every process.)
        generator = torch.Generator(device).manual_seed(hash((landscape.seed, landscape.step, draw)) % 2**63)
        return [
            shard_like(torch.randn(w.shape, generator=generator, device=device), w) for w in landscape.weights
        ]


@dataclass(frozen=True)
class SecondOrder:
    """Base of wrappers that need the Hessian of the forget loss times a vector."""

    mode: str = knob(
        "differences",
        "how the Hessian is met: finite differences, or exact by a double backward",
        choices=("differences", "exact"),
    )
    epsilon: float = knob(0.01, "length of a finite difference", above=0)

    def hessian_times(self, landscape: Landscape, vector: Gradient, here: Gradient) -> Gradient:
        """H v at the current weights: (g(w + epsilon v) - g(w)) / epsilon, or exact.

        Args:
            landscape: The forget loss.
            vector: v.
            here: g(w), the gradient at the current weights.
        """
        if self.mode == "exact":
            return landscape.curvature(vector)
        with moved(landscape.weights, vector, self.epsilon):
            return difference(landscape.gradient(), here, self.epsilon)


@FLATNESS.register("GP")
@dataclass(frozen=True)
class GP(SecondOrder):
    """Gradient penalty: the norm of the forget gradient is minimised with the loss.

    Formula: ∇(L_f + ρ ||∇L_f||)
    Cost: one more forward and backward over the forget rows (differences) or a double backward (exact)."""

    rho: float = knob(10.0, "weight of the gradient norm", at_least=0)

    def gradient(self, landscape: Landscape) -> Gradient:
        here = landscape.gradient()
        if self.rho == 0:
            return here
        return plus(here, self.hessian_times(landscape, unit(landscape.total(here)), here), self.rho)


@FLATNESS.register("CR")
@dataclass(frozen=True)
class CR(SecondOrder):
    """Curvature regularisation: the change of the forget gradient along itself is minimised with the loss.

    Formula: ∇(L_f + ρ ||∇L_f(θ + μ ĝ) - ∇L_f(θ)||), ĝ = ∇L_f / ||∇L_f|| held fixed
    Cost: three more forwards and backwards over the forget rows (differences) or two double backwards
    (exact).
    """

    rho: float = knob(10.0, "weight of the gradient's change", at_least=0)
    mu: float = knob(0.01, "length of the step along the gradient", above=0)

    def gradient(self, landscape: Landscape) -> Gradient:
        here = landscape.gradient()
        if self.rho == 0:
            return here
        along = unit(landscape.total(here))
        with moved(landscape.weights, along, self.mu):
            there = landscape.gradient()
        # The gradient of ||g(w + mu d) - g(w)|| with d fixed is (H(w + mu d) - H(w)) u, u the unit
        # difference.
        change = unit(landscape.total(difference(there, here)))
        with moved(landscape.weights, along, self.mu):
            bent = self.hessian_times(landscape, change, there)
        return plus(here, difference(bent, self.hessian_times(landscape, change, here)), self.rho)
