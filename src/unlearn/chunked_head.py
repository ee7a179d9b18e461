"""Scores of labelled tokens without the logits of all of them at once.

Logits are the largest tensor of a step where the vocabulary is large: 1,000 labelled tokens of 128,256 words
take .5 GB in float32, and a loss keeps three or four tensors of that size. Above `WHOLE_LOGITS` the
language-model head runs over a few tokens at a time and again in the backward pass, so that no [N, V] tensor
exists; the hidden states [N, D] take its place."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.checkpoint import checkpoint

from ..core.likelihood import IGNORE, wide
from ..core.sharding import is_sharded
from ..core.sparse_logits import keeps_logits, labelled_logits

WHOLE_LOGITS = 2**27
"""Most logits of a micro-batch's part (512 MB in float32) that are computed at once. Fewer are faster whole:
a chunked head computes its logits twice."""
CHUNK_LOGITS = 2**24
"""Logits of one chunk."""
PROBED = 8
"""Tokens on which it is tried whether logits are what the head returns."""

Score = Callable[[Tensor, Tensor, slice], Tensor]
"""(logits [n, V] in float32 or wider, the tokens they predict [n], their place among all labelled tokens) ->
[n]"""

_ENDS_AT_HEAD: WeakKeyDictionary[Module, bool] = WeakKeyDictionary()


def score_answers(model, part: Mapping[str, Tensor], score: Score) -> Tensor:
    """A score for every labelled token of a part, from one forward pass, with gradient.

    Args:
        model: the model, under whatever wrappers it has.
        part: input_ids, attention_mask and labels, [B, T].
        score: computes the scores of some tokens from their logits; each token's is its own.

    Returns:
        Scores, [N] in reading order.
    """
    if not keeps_logits(model) or _logits_of(model, part) <= WHOLE_LOGITS or not _can_be_chunked(model):
        logits, targets = labelled_logits(model, part)
        return score(wide(logits), targets, slice(0, len(targets)))
    with _without_head(model) as head:
        states, targets = labelled_logits(model, part)
    chunk = max(1, CHUNK_LOGITS // head.weight.shape[0])
    scores = []
    for start in range(0, len(targets), chunk):
        place = slice(start, start + chunk)

        def scored(some: Tensor, place=place) -> Tensor:
            return score(wide(head(some)), targets[place], place)

        scores.append(checkpoint(scored, states[place], use_reentrant=False))
    return torch.cat(scores)


def _logits_of(model, part: Mapping[str, Tensor]) -> int:
    """Logits that the head computes for a part: of every place where some row has a label."""
    labelled = part["labels"][:, 1:] != IGNORE
    return len(labelled) * int(labelled.any(0).sum()) * _inner(model).config.get_text_config().vocab_size


def _inner(model):
    """The model inside a distributed wrapper."""
    return getattr(model, "module", model)


def _can_be_chunked(model) -> bool:
    """Are the logits what the head returns, and are its weights whole on this process?"""
    inner = _inner(model)
    head = inner.get_output_embeddings()
    if head is None:
        return False
    # Sharded weights are put together for the model's own forward pass alone.
    if type(head.weight) is not torch.nn.Parameter or is_sharded(inner):
        return False
    if inner not in _ENDS_AT_HEAD:
        _ENDS_AT_HEAD[inner] = _ends_at_head(inner)
    return _ENDS_AT_HEAD[inner]


@torch.no_grad()
def _ends_at_head(model) -> bool:
    """Does nothing follow the head? Some architectures scale or cap its output."""
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.arange(PROBED, device=model.device)[None] % vocabulary
    training = model.training
    model.eval()
    try:
        whole = model(input_ids=ids, use_cache=False).logits
        with _without_head(model) as head:
            states = model(input_ids=ids, use_cache=False).logits
        return states.shape[-1] == head.weight.shape[-1] and torch.equal(head(states), whole)
    finally:
        model.train(training)


@contextlib.contextmanager
def _without_head(model) -> Iterator[Any]:
    """The model with hidden states in place of logits; yields the head, which works again afterwards."""
    head = _inner(model).get_output_embeddings()
    head.forward = lambda states: states
    try:
        yield head
    finally:
        del head.forward
