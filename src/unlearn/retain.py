"""What holds the model to its other knowledge: objectives on the retain rows."""

from dataclasses import dataclass

from core.likelihood import token_kl, token_nll
from unlearn.base import RETAIN, Objective, Term, logits


@RETAIN.register("FT", "GD", "GDR", "NLL")
@dataclass(frozen=True)
class FT(Objective):
    """Fine-tuning: mean NLL per retain token.

    Cost: one forward and backward over the retain rows."""

    parts = frozenset({"retain"})

    def terms(self, model, batch, reference):
        part = batch["retain"]
        return {"retain_nll": Term(token_nll(logits(model, part), part["labels"]).sum(), "retain", "tokens")}


@RETAIN.register("KL", "KLR", "KLM")
@dataclass(frozen=True)
class KL(Objective):
    """KL(start model || model), mean over the labelled retain tokens. 0 for the start model itself.

    Cost: one forward and backward over the retain rows, one forward of a frozen copy of the start model."""

    needs = frozenset({"reference_logits"})
    parts = frozenset({"retain"})

    def terms(self, model, batch, reference):
        part = batch["retain"]
        divergence = token_kl(reference.logits("retain", part), logits(model, part), part["labels"])
        return {"retain_kl": Term(divergence.sum(), "retain", "tokens")}
