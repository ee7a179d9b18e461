"""Scores of labelled tokens without the logits of all of them at once.

Logits are the largest tensor of a step where the vocabulary is large: 1,000 labelled tokens of 128,256 words
take .5 GB in float32, and a loss keeps three or four tensors of that size. Above `WHOLE_LOGITS` the
language-model head runs over a few tokens at a time and again in the backward pass, so that no [N, V] tensor
exists; the hidden states [N, D] take its place."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.checkpoint import checkpoint

from ...core.likelihood import wide
from ...core.sparse_logits import labelled_logits
from ..base import Part
from .joint_pass import JointPass
from .model_head import head_is_apart

WHOLE_LOGITS = 2**27
"""Most logits of a micro-batch's part (512 MB in float32) that are computed at once. Fewer are faster whole:
a chunked head computes its logits twice."""
CHUNK_LOGITS = 2**24
"""Logits of one chunk."""

Score = Callable[[Tensor, Tensor, slice], Tensor]
"""(logits [n, V] in float32 or wider, the tokens they predict [n], their place among all labelled tokens) ->
[n]"""


def answer_scores(model: Module | JointPass, part: Part) -> tuple[Tensor, Tensor]:
    """Logits that score the labelled tokens of a part, [N, V] in float32 or wider, and those tokens, [N], in
    reading order. A prompt costs no logits, where the model's head can be applied apart."""
    joint = _joint(model, part)
    if not head_is_apart(joint.model):
        logits, targets = labelled_logits(joint.model, part)
    else:
        states, targets = joint.labelled(part)
        logits = joint.head(states)
    return wide(logits), targets


def score_answers(model: Module | JointPass, part: Part, score: Score) -> Tensor:
    """A score for every labelled token of a part, with gradient.

    Args:
        model: the model, under whatever wrappers it has, or a pass that is made for several parts.
        part: input_ids, attention_mask and labels, [B, T].
        score: computes the scores of some tokens from their logits; each token's is its own.

    Returns:
        Scores, [N] in reading order.
    """
    joint = _joint(model, part)
    if not head_is_apart(joint.model):
        logits, targets = answer_scores(joint, part)
        return score(logits, targets, slice(0, len(targets)))
    states, targets = joint.labelled(part)
    head = joint.head
    vocabulary = head.weight.shape[0]
    if len(targets) * vocabulary <= WHOLE_LOGITS:
        return score(wide(head(states)), targets, slice(0, len(targets)))
    chunk = max(1, CHUNK_LOGITS // vocabulary)
    scores = []
    for start in range(0, len(targets), chunk):
        place = slice(start, start + chunk)

        def scored(some: Tensor, place=place) -> Tensor:
            return score(wide(head(some)), targets[place], place)

        scores.append(checkpoint(scored, states[place], use_reentrant=False))
    return torch.cat(scores)


def _joint(model: Module | JointPass, part: Part) -> JointPass:
    return model if isinstance(model, JointPass) else JointPass(model, [part])
