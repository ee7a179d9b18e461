"""Where the gradients of several texts agree: a running sum and a count of signs, never a gradient for each
text."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ...core.sharding import whole

MAX_TEXTS = 127
"""Texts that a sign count of one byte can hold."""


def needed(tau: float, texts: int) -> int:
    """The least |sum of signs| of `texts` gradients that exceeds tau x texts. At most 0: every coordinate
    passes."""
    return math.floor(tau * texts + 1e-9) + 1


def null_rate(tau: float, texts: int) -> float:
    """The share of coordinates that pass when signs are independent coin flips: exact, by the binomial
    distribution."""
    least = needed(tau, texts)
    return (
        sum(math.comb(texts, plus) for plus in range(texts + 1) if abs(2 * plus - texts) >= least) / 2**texts
    )


def always_passes(tau: float, texts: int) -> bool:
    """Is the mask all ones, whatever the gradients? So it is for an odd number of texts and 1 / texts > tau:
    no tie is possible."""
    return null_rate(tau, texts) == 1


class Agreement:
    """The sum S (float32 or wider) and the sign count C (one byte) of gradients that come one after the
    other, for each weight.

    5 bytes a weight, however many texts there are."""

    def __init__(self, weights: Sequence[Tensor]):
        wide = lambda w: torch.promote_types(w.dtype, torch.float32)
        self.sums = [torch.zeros_like(w, dtype=wide(w), requires_grad=False) for w in weights]
        self.signs = [torch.zeros_like(w, dtype=torch.int8, requires_grad=False) for w in weights]
        self.texts = 0

    def add(self, place: int, gradient: Tensor) -> None:
        """Add one text's gradient of weight number `place`."""
        self.sums[place] += gradient
        self.signs[place] += gradient.sign().to(torch.int8)

    def is_finite(self) -> bool:
        """Is every gradient so far a number?"""
        return bool(torch.isfinite(torch.stack([whole(total.sum()) for total in self.sums]).sum()))

    def passing(self, place: int, tau: float | None) -> Tensor:
        """Where the signs agree: |C| > tau x texts; everywhere for tau None."""
        return self.signs[place].abs() >= (needed(tau, self.texts) if tau is not None else 0)

    def agreed(
        self, tau: float | None, clip: float, scaled: bool = False
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each weight: the mean gradient where signs agree, 0 elsewhere, cut to ±clip; how many
        coordinates that the sum reaches pass; and how many it reaches. `scaled` divides each tensor by its
        share of passing coordinates. The sums are used up.
        """
        for place, value in enumerate(self.sums):
            reached, passing = _nonzero(value), self.passing(place, tau)
            value.div_(self.texts).mul_(passing)
            passed = _nonzero(value)
            if scaled:
                value.mul_(passing.numel() / whole(passing.sum()).clamp(min=1))
            yield value.clamp_(-clip, clip), passed, reached

    def clear(self) -> None:
        """Begin again, in the same memory."""
        self.texts = 0
        for tensor in (*self.sums, *self.signs):
            tensor.zero_()


def _nonzero(value: Tensor) -> Tensor:
    return whole((value != 0).sum())


@contextmanager
def set_aside(weights: Sequence[Tensor]) -> Iterator[None]:
    """Gradients that are there are put away for the block and back at its end."""
    before = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    try:
        yield
    finally:
        for weight, gradient in zip(weights, before):
            weight.grad = gradient


@contextmanager
def as_agreed(weights: Sequence[Tensor], take: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Within the block a backward hands each weight's gradient to `take(place, gradient)` as soon as it is
    whole, and keeps none."""

    def hook(place: int) -> Callable[[Tensor], None]:
        def hand_on(weight: Tensor) -> None:
            assert weight.grad is not None, "it was accumulated just now"
            take(place, weight.grad)
            weight.grad = None

        return hand_on

    handles = [weight.register_post_accumulate_grad_hook(hook(place)) for place, weight in enumerate(weights)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
