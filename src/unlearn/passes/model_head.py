"""The language-model head apart from the model under it."""

import contextlib
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.nn import Module

from ...core.sharding import is_sharded
from ...core.sparse_logits import keeps_logits

PROBED = 8
"""Tokens on which it is tried what a model does."""

_ENDS_AT_HEAD: WeakKeyDictionary[Module, bool] = WeakKeyDictionary()


def inner(model: Module) -> Any:
    """The model inside a distributed wrapper."""
    return getattr(model, "module", model)


def head_is_apart(model: Module) -> bool:
    """Are the logits what the head returns, and are its weights whole on this process?"""
    bare = inner(model)
    if not keeps_logits(bare) or (head := bare.get_output_embeddings()) is None:
        return False
    # Sharded weights are put together for the model's own forward pass alone.
    if type(head.weight) is not torch.nn.Parameter or is_sharded(bare):
        return False
    if bare not in _ENDS_AT_HEAD:
        _ENDS_AT_HEAD[bare] = _ends_at_head(bare)
    return _ENDS_AT_HEAD[bare]


@contextlib.contextmanager
def without_head(model: Module) -> Iterator[Any]:
    """The model with hidden states in place of logits; yields the head, which works again afterwards."""
    head = inner(model).get_output_embeddings()
    head.forward = lambda states: states
    try:
        yield head
    finally:
        del head.forward


@contextlib.contextmanager
def probing(model: Any) -> Iterator[None]:
    """No gradient, no dropout and no autocast, while it is tried what a model does."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            yield
    finally:
        model.train(training)
        # Casts of weights that were kept here have no gradient, and the step's own pass would take them.
        torch.clear_autocast_cache()


def _ends_at_head(model: Any) -> bool:
    """Does nothing follow the head? Some architectures scale or cap its output."""
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.arange(PROBED, device=model.device)[None] % vocabulary
    with probing(model):
        whole = model(input_ids=ids, use_cache=False).logits
        with without_head(model) as head:
            states = model(input_ids=ids, use_cache=False).logits
        return states.shape[-1] == head.weight.shape[-1] and torch.equal(head(states), whole)
