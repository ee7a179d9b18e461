"""Likelihoods of labelled tokens. Pure tensor functions, natural logarithm, float32 or wider inside.

In all of them `logits` is [B, T, V] and `labels` is [B, T] with -100 on the prompt and on padding. The logits
at t - 1 score the label at t, so the label of the first position is never scored. N is the number of scored
labels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100


def shifted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, V] and labels [N] of the scored positions, in reading order (row by row)."""
    targets = labels[:, 1:]
    scored = targets != IGNORE
    # Selected before the cast: float32 logits of prompts and padding would take most of the memory.
    return wide(logits[:, :-1][scored]), targets[scored]


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p of every scored token, [N] in reading order."""
    return F.cross_entropy(*shifted(logits, labels), reduction="none")


def row_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p(answer | prompt) of each row: the sum over its scored tokens, [B]."""
    return row_sum(token_nll(logits, labels), labels)


def row_sum(values: Tensor, labels: Tensor) -> Tensor:
    """Sum over the scored tokens of each row.

    Args:
        values: A value per scored token, [N] in reading order.
        labels: [B, T].

    Returns:
        Sums, [B]; 0 for a row without scored tokens.
    """
    scored = labels[:, 1:] != IGNORE
    return values.new_zeros(scored.shape).masked_scatter(scored, values).sum(-1)


def token_kl(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """KL(p || q) = sum p (log p - log q) over the last dimension of logits [..., V]: [...], at least 0."""
    p, q = (F.log_softmax(wide(scores), dim=-1) for scores in (p_scores, q_scores))
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def token_jsd(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """Jensen-Shannon divergence (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2, over the last dimension of
    logits [..., V]: [...], 0 to log 2."""
    p, q = (F.log_softmax(wide(scores), dim=-1) for scores in (p_scores, q_scores))
    # log m without leaving the logarithm, where small probabilities do not underflow.
    middle = torch.logaddexp(p, q) - math.log(2)
    halves = [F.kl_div(middle, side, reduction="none", log_target=True).sum(-1) for side in (p, q)]
    return (halves[0] + halves[1]) / 2


def count_labels(labels: Tensor) -> Tensor:
    """Number of scored tokens in each row, [B]."""
    return (labels[:, 1:] != IGNORE).sum(-1)


def wide(x: Tensor) -> Tensor:
    """Cast to float32, or keep float64: softmax and sums over a vocabulary lose digits in bfloat16."""
    return x if x.dtype == torch.float64 else x.float()
