"""Gradient ascent that goes slower where a token is forgotten already."""

from dataclasses import dataclass

import torch

from ...core.options import knob
from ..base import FORGET, Objective, Term
from ..scoring import answer_nll


@FORGET.register("WGA")
@dataclass(frozen=True)
class WGA(Objective):
    """Weighted gradient ascent (arXiv:2502.19301): each token's ascent is weighted by its probability to the
    power beta, without gradient through the weight. beta 0 is GA; beta 1 descends on the probability itself.

    Formula: -sg(p^β) NLL, p of a token, mean over tokens
    Cost: one forward and backward over the forget rows; no reference."""

    beta: float = knob(1.0, "power of the token's probability", at_least=0)
    parts = frozenset({"forget"})
    scores_answers = True

    def terms(self, model, batch, reference):
        part = batch["forget"]
        nll = answer_nll(model, part)
        weight = torch.exp(-nll.detach()) ** self.beta
        return {"wga": Term(-(weight * nll).sum(), "forget", "tokens")}


@FORGET.register("SatImp")
@dataclass(frozen=True)
class SatImp(Objective):
    """SatImp (arXiv:2505.11953): ascent weighted by saturation p^beta1 and importance (1 - p)^beta2 of each
    token, without gradient through the weight: tokens that are forgotten, and tokens that are certain, move
    little.

    Formula: -sg(p^β1 (1 - p)^β2) NLL, p of a token, mean over tokens
    Cost: one forward and backward over the forget rows; no reference."""

    beta1: float = knob(5.0, "power of p", at_least=0)
    beta2: float = knob(1.0, "power of 1 - p", at_least=0)
    parts = frozenset({"forget"})
    scores_answers = True

    def terms(self, model, batch, reference):
        part = batch["forget"]
        nll = answer_nll(model, part)
        p = torch.exp(-nll.detach())
        return {"satimp": Term(-(p**self.beta1 * (1 - p) ** self.beta2 * nll).sum(), "forget", "tokens")}
