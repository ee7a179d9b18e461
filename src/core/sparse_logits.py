"""Logits of the places that are wanted, without those of all others."""

from torch import Tensor


def kept_logits(model, input_ids: Tensor, attention_mask: Tensor | None, wanted: Tensor) -> Tensor:
    """One forward pass over [B, T] ids: the logits [N, V] at the places where `wanted` [B, T] is true, in
    reading order. The language-model head is applied only to places that some row wants, if the model can do
    that: a prompt costs no logits. Without a mask all is attended to: padding on the right needs none under
    causal attention, which is faster so."""
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    if not keeps_logits(model):
        return model(**inputs).logits[wanted]
    places = wanted.any(0).nonzero()[:, 0]
    return model(**inputs, logits_to_keep=places).logits[wanted[:, places]]


def keeps_logits(model) -> bool:
    """Can the model be asked for the logits of some places only?"""
    return getattr(getattr(model, "module", model), "_supports_logits_to_keep", bool)()
