"""What makes a weight worth updating. Higher is selected first.

A score is a function of one tensor at a time: its start weights, the mean gradients of the cross-entropy on
forget and retain rows (means over tokens, so that more rows do not change what `mu` means), means over
micro-batches of squared or weighted gradients (these depend on `dataset.batch_size`), and the activations
that a matrix meets.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...core.registry import Registry

SCORES = Registry("score")

ABSENT = torch.tensor(math.nan)
"""Stands for what a score did not ask for: `select` takes no score that was made of it."""


@dataclass
class Statistics:
    """What is known of one tensor. Only what the score `needs` is there."""

    name: str
    theta: Tensor
    forget: Tensor = ABSENT
    """Mean gradient of the NLL on the forget answers (on refusals, for a score that asks for them)."""
    retain: Tensor = ABSENT
    forget_square: Tensor = ABSENT
    """Mean over micro-batches of the squared forget gradient."""
    retain_square: Tensor = ABSENT
    forget_saliency: Tensor = ABSENT
    """Mean over micro-batches of |theta x forget gradient|."""
    inputs: Tensor = ABSENT
    """Of a matrix: for each column, the sum over tokens of squared inputs, averaged over rows of data."""
    mu: float = 1e-3
    seed: int = 0


@dataclass(frozen=True)
class Score:
    """A registered score. `scope` is its own default; `forget_answers` what stands for the forget answers."""

    compute: Callable[[Statistics], Tensor]
    needs: frozenset[str] = field(default_factory=frozenset)
    scope: str = "global"
    forget_answers: str = "answers"


def score(name: str, *aliases: str, needs: Iterable[str] = (), **facts):
    """Decorator that files a function as a score."""

    def add(compute):
        SCORES.register(name, *aliases)(Score(compute, frozenset(needs), **facts))
        return compute

    return add


@score("wagle", "snip_advanced", needs={"forget", "retain"})
def wagle(s: Statistics) -> Tensor:
    """|(theta - g_r / mu) g_f|: WAGLE's attribution (arXiv:2410.17509) by its code. mu -> infinity gives
    snip."""
    return ((s.theta - s.retain / s.mu) * s.forget).abs()


@score("wagle_po", "snip_advanced_CL", needs={"forget", "retain"}, forget_answers="refusals")
def wagle_po(s: Statistics) -> Tensor:
    """wagle with the gradient of refusals to the forget questions."""
    return wagle(s)


@score("wagle_gn", "snip_advanced_gn", needs={"forget", "retain", "retain_square"})
def wagle_gn(s: Statistics) -> Tensor:
    """wagle with each weight's own curvature, the mean squared retain gradient, in place of mu."""
    return ((s.theta - s.retain / (s.retain_square + 1e-12)) * s.forget).abs()


@score("snip", needs={"forget"})
def snip(s: Statistics) -> Tensor:
    """|theta g_f|."""
    return (s.theta * s.forget).abs()


@score("snip_batch", needs={"forget_saliency"})
def snip_batch(s: Statistics) -> Tensor:
    """Mean over micro-batches of |theta g_f|: opposite gradients do not cancel."""
    return s.forget_saliency


@score("gradient", needs={"forget"})
def gradient(s: Statistics) -> Tensor:
    """|g_f|."""
    return s.forget.abs()


@score("fisher", needs={"forget_square"})
def fisher(s: Statistics) -> Tensor:
    """Mean over micro-batches of the squared forget gradient."""
    return s.forget_square


@score("fisher_ratio", needs={"forget_square", "retain_square"})
def fisher_ratio(s: Statistics) -> Tensor:
    """Squared forget gradient over squared retain gradient."""
    return s.forget_square / (s.retain_square + 1e-12)


@score("magnitude", "weight")
def magnitude(s: Statistics) -> Tensor:
    """|theta|."""
    return s.theta.abs()


@score("random")
def random(s: Statistics) -> Tensor:
    """Uniform, by seed and tensor name."""
    key = hashlib.blake2b(f"{s.seed}/{s.name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "big"))
    return torch.rand(s.theta.shape, generator=generator).to(s.theta.device)


@score("wanda", needs={"inputs"}, scope="row")
def wanda(s: Statistics) -> Tensor:
    """|W_ij| x norm of input j (Sun et al., arXiv:2306.11695), on the forget rows."""
    return s.theta.abs() * s.inputs.sqrt()[None, :]
