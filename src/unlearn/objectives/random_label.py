"""Training on other rows' answers."""

from dataclasses import dataclass

from ..base import FORGET, Objective, Term
from ..scoring import answer_nll


@FORGET.register("RL", "mismatch")
@dataclass(frozen=True)
class RL(Objective):
    """Random label (LLMU's mismatch term, arXiv:2310.10683): the forget questions with the answers of other
    rows, drawn from the retain set by seed and row id, never a row's own answer. Bounded below by 0.

    Formula: NLL(another row's answer), mean over tokens
    Cost: one forward and backward over as many rows; the forget answers themselves are not read."""

    parts = frozenset({"alternate"})
    scores_answers = True
    alternates = "mismatched"

    def terms(self, model, batch, reference):
        part = batch["alternate"]
        return {"mismatch_nll": Term(answer_nll(model, part).sum(), "alternate", "tokens")}
