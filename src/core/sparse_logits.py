"""Logits at selected positions only."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import pad

from .likelihood import IGNORE


def labelled_logits(model, part: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits of one forward pass that predict the labelled tokens of a batch part.

    Args:
        model: Causal language model of transformers.
        part: input_ids, attention_mask and labels, [B, T], on the model's device.

    Returns:
        The logits, [N, V] in reading order, and the tokens that they predict, [N].
    """
    targets = part["labels"][:, 1:]
    labelled = targets != IGNORE
    return kept_logits(model, part["input_ids"], part["attention_mask"], pad(labelled, (0, 1))), targets[
        labelled
    ]


def kept_logits(model, input_ids: Tensor, attention_mask: Tensor | None, wanted: Tensor) -> Tensor:
    """Logits of one forward pass at selected positions.

    The language-model head is applied only to positions that some row selects, if the model supports that, so
    that prompts take no memory for logits.

    Args:
        model: Causal language model of transformers.
        input_ids: [B, T].
        attention_mask: [B, T]; None for rows padded on the right, which need none under causal attention and
            are faster without.
        wanted: Selected positions, boolean, [B, T].

    Returns:
        Logits, [N, V] in reading order.
    """
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    if not keeps_logits(model):
        return model(**inputs).logits[wanted]
    positions = wanted.any(0).nonzero()[:, 0]
    return model(**inputs, logits_to_keep=positions).logits[wanted[:, positions]]


def keeps_logits(model) -> bool:
    """Whether the model can compute the logits of selected positions only."""
    # `.module` is the model inside a distributed wrapper.
    return getattr(getattr(model, "module", model), "_supports_logits_to_keep", bool)()
