"""How likely a model finds labelled tokens. Pure tensor functions, natural logarithm, float32 or wider
inside.

Everywhere: `logits` is [B, T, V], `labels` is [B, T] with -100 on the prompt and on padding, and the logits
at t - 1 score the label at t (the label of the first position is never scored).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100


def shifted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels of the scored positions, one row per labelled token: [N, V] and [N], in reading
    order."""
    targets = labels[:, 1:]
    scored = targets != IGNORE
    return wide(logits[:, :-1][scored]), targets[scored]


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p of every labelled token, [N] in reading order."""
    return F.cross_entropy(*shifted(logits, labels), reduction="none")


def row_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p(answer given prompt) of each row: the sum over its labelled tokens, [B]."""
    return row_sum(token_nll(logits, labels), labels)


def row_sum(values: Tensor, labels: Tensor) -> Tensor:
    """Sums over the labelled tokens of each row, [B], of values given for every labelled token, [N] in
    reading order."""
    scored = labels[:, 1:] != IGNORE
    return values.new_zeros(scored.shape).masked_scatter(scored, values).sum(-1)


def token_kl(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """KL(p || q) over the last dimension of two tensors of logits (0 when the two are equal, never
    negative)."""
    p, q = (F.log_softmax(wide(scores), dim=-1) for scores in (p_scores, q_scores))
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def token_jsd(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """Jensen-Shannon divergence over the last dimension of two tensors of logits: symmetric, 0 when they are
    equal, at most log 2."""
    p, q = (F.log_softmax(wide(scores), dim=-1) for scores in (p_scores, q_scores))
    middle = torch.logaddexp(p, q) - math.log(2)
    halves = [F.kl_div(middle, side, reduction="none", log_target=True).sum(-1) for side in (p, q)]
    return (halves[0] + halves[1]) / 2


def count_labels(labels: Tensor) -> Tensor:
    """Number of scored tokens in each row, [B]."""
    return (labels[:, 1:] != IGNORE).sum(-1)


def wide(x: Tensor) -> Tensor:
    """float32 or wider: where softmax and sums over a vocabulary are taken."""
    return x if x.dtype == torch.float64 else x.float()
