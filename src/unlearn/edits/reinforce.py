"""Learning the forget rows even better: how edits make their reinforced model."""

from dataclasses import dataclass

from core.likelihood import token_nll
from unlearn.base import Objective, Term, logits


@dataclass(frozen=True)
class Reinforce(Objective):
    """Mean NLL per forget token, descended."""

    parts = frozenset({"forget"})

    def terms(self, model, batch, reference):
        part = batch["forget"]
        return {"reinforce_nll": Term(token_nll(logits(model, part), part["labels"]).sum(), "forget", "tokens")}
