"""Learning the forget rows even better: how edits make their reinforced model."""

from dataclasses import dataclass

from ..base import Objective, Term
from ..scoring import answer_nll


@dataclass(frozen=True)
class Reinforce(Objective):
    """Mean NLL per forget token, descended."""

    parts = frozenset({"forget"})
    scores_answers = True

    def terms(self, model, batch, reference):
        part = batch["forget"]
        return {"reinforce_nll": Term(answer_nll(model, part).sum(), "forget", "tokens")}
