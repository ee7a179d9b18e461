"""The exact top share of scores, streaming: no sort of all of them, and no copy.

Non-negative float32 numbers order like their bit patterns. Two counting passes over the upper and the lower
16 bits find the exact threshold; a third writes the mask. Among equal scores the first win, in the order of
tensors and of their elements.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.files import UserError
from ..base import add_up

SCOPES = ("global", "tensor", "row")
CHUNK = 2**20
"""Scores that are looked at together; temporary memory is some 20 bytes for each of these."""
BUCKETS = 2**16


@dataclass(frozen=True)
class Threshold:
    """Bit patterns above `bits` are in, and the first `ties` that equal it."""

    bits: int
    ties: int


def select(scores: Mapping[str, Tensor], ratio: float, scope: str = "global") -> dict[str, Tensor]:
    """Bool masks of the floor(n * ratio) highest scores: of all tensors together (`global`), of each
    (`tensor`), or of each output row (`row`, which drops floor(columns * (1 - ratio)) of every row). Scores
    are float32 and at least 0.
    """
    for name, score in scores.items():
        if not (score >= 0).all():
            raise UserError(f"the score of {name} has values that are negative or no numbers")
    if scope == "row":
        return {name: _rows(score, ratio) for name, score in scores.items()}
    if scope == "tensor":
        return {name: _together([score], ratio)[0] for name, score in scores.items()}
    return dict(zip(scores, _together(list(scores.values()), ratio)))


def share(count: int, ratio: float) -> int:
    """floor(count * ratio), safe from binary rounding: 10 * .8 is 8."""
    return math.floor(count * ratio + 1e-9)


def _together(scores: Sequence[Tensor], ratio: float) -> list[Tensor]:
    chosen = share(sum(score.numel() for score in scores), ratio)
    threshold = find_threshold(scores, chosen)
    ties, masks = threshold.ties, []
    for score in scores:
        mask = torch.empty(score.shape, dtype=torch.bool)
        flat, start = mask.view(-1), 0
        for bits in _chunks(score):
            equal = bits == threshold.bits
            admitted = equal & (equal.cumsum(0) <= ties)
            flat[start : start + len(bits)] = ((bits > threshold.bits) | admitted).cpu()
            ties -= int(admitted.sum())
            start += len(bits)
        masks.append(mask)
    return masks


def find_threshold(scores: Sequence[Tensor], chosen: int) -> Threshold:
    """The bit pattern of the `chosen`-th largest score, and how many that equal it are needed."""
    if chosen == 0:
        return Threshold(2**31 - 1, 0)
    upper = add_up(
        torch.bincount(bits >> 16, minlength=BUCKETS) for score in scores for bits in _chunks(score)
    )
    bucket, above = _bucket(upper, chosen)
    inside = ((bits[bits >> 16 == bucket] & (BUCKETS - 1)) for score in scores for bits in _chunks(score))
    lower = add_up(torch.bincount(part, minlength=BUCKETS) for part in inside)
    place, before = _bucket(lower, chosen - above)
    return Threshold((bucket << 16) + place, chosen - above - before)


def _bucket(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The bucket that holds the `wanted`-th largest, and how many lie in higher ones."""
    reached = counts.flip(0).cumsum(0)
    place = int((reached >= wanted).nonzero()[0, 0])
    return len(counts) - 1 - place, int(reached[place] - counts.flip(0)[place])


def _chunks(score: Tensor) -> Iterator[Tensor]:
    """The bit patterns of a score in reading order, some at a time. (-0 counts as 0.)"""
    for part in score.detach().reshape(-1).split(CHUNK):
        yield (part.float() + 0.0).view(torch.int32)


def _rows(score: Tensor, ratio: float) -> Tensor:
    """Every row keeps its highest; a vector is one row."""
    table = score.reshape(score.shape[0], -1) if score.dim() > 1 else score.reshape(1, -1)
    kept = table.shape[1] - share(table.shape[1], 1 - ratio)
    order = table.float().cpu().sort(dim=1, descending=True, stable=True).indices
    return torch.zeros(table.shape, dtype=torch.bool).scatter_(1, order[:, :kept], True).reshape(score.shape)
