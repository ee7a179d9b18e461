"""Gradient ascent on the forget answers."""

from dataclasses import dataclass

from ..base import FORGET, Objective, Term
from ..scoring import answer_nll


@FORGET.register("GA", "GradAscent")
@dataclass(frozen=True)
class GA(Objective):
    """Gradient ascent: minus the mean NLL per forget token (TOFU, arXiv:2401.06121). Unbounded: watch the
    retain set.

    Formula: -NLL, mean over tokens
    Cost: one forward and backward over the forget rows."""

    parts = frozenset({"forget"})
    scores_answers = True

    def terms(self, model, batch, reference):
        part = batch["forget"]
        return {"ga": Term(-answer_nll(model, part).sum(), "forget", "tokens")}
