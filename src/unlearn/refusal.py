"""Training the model to refuse: the forget questions with refusals for answers."""

from dataclasses import dataclass

from core.likelihood import token_nll
from unlearn.base import FORGET, Objective, Term, logits


@FORGET.register("CL", "PO", "IDK", "IdkNLL")
@dataclass(frozen=True)
class CL(Objective):
    """Refusal training (TOFU's preference optimisation, arXiv:2401.06121; `CL` in the WAGLE family): mean NLL per token of
    a refusal, drawn for each forget row from `dataset.refusals` by seed and row id. Bounded below by 0.

    Cost: one forward and backward over the refusal rows; the forget answers themselves are not read."""

    parts = frozenset({"alternate"})

    def terms(self, model, batch, reference):
        part = batch["alternate"]
        return {"refusal_nll": Term(token_nll(logits(model, part), part["labels"]).sum(), "alternate", "tokens")}
