"""What objectives read off a model: logits, log-probabilities of answers, and dropout switched off."""

import contextlib
from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.dropout import _DropoutNd

from ..core.likelihood import row_sum
from .base import Part
from .passes.chunked_head import answer_scores, score_answers

Divergence = Callable[[Tensor, Tensor], Tensor]
"""Of two sets of logits [..., V]: [...]."""


def logits(model, part: Part) -> Tensor:
    """One forward pass over a part: logits [B, T, V]."""
    return model(input_ids=part["input_ids"], attention_mask=part["attention_mask"], use_cache=False).logits


def answer_logits(model, part: Part) -> Tensor:
    """The logits of `answer_scores` alone."""
    return answer_scores(model, part)[0]


def answer_nll(model, part: Part) -> Tensor:
    """-log p of every labelled token of a part, [N] in reading order, in float32 or wider."""
    return score_answers(
        model, part, lambda logits, targets, _: F.cross_entropy(logits, targets, reduction="none")
    )


def answer_divergence(model, part: Part, other: Tensor, divergence: Divergence) -> Tensor:
    """`divergence(other, ours)` of every labelled token of a part, [N] in reading order, between logits [N,
    V] of another model and the model's own."""
    return score_answers(model, part, lambda logits, _, place: divergence(other[place], logits))


def answer_row_nll(model, part: Part) -> Tensor:
    """-log p(answer given prompt) of each row of a part, [B]."""
    return row_sum(answer_nll(model, part), part["labels"])


@contextlib.contextmanager
def in_eval_mode(model: Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def without_dropout(model: Module) -> contextlib.AbstractContextManager:
    """Eval mode for a model that has dropout. One that has none is left as it is: layers recompute their
    activations (gradient checkpointing) in train mode only."""
    return in_eval_mode(model) if any(map(_drops, model.modules())) else contextlib.nullcontext()


def _drops(module: Module) -> bool:
    """Has a module a dropout of its own, as a layer or as a number that its forward reads?"""
    if isinstance(module, _DropoutNd):
        return module.p > 0
    return any(
        isinstance(value, float) and value > 0 for name, value in vars(module).items() if "dropout" in name
    )
