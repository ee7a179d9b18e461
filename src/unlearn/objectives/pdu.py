"""Primal-dual unlearning: forget under a constraint on the retain loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.options import knob
from ..base import FORGET, Objective, Term
from ..published import variants
from ..scoring import answer_logits, answer_nll


@FORGET.register("PDU")
@dataclass
class PDU(Objective):
    """PDU (arXiv:2506.05314): flatten the logits of the forget answers while the retain loss stays below eps.
    The multiplier of the constraint is learned: dual <- max(0, dual + dual_step (retain loss - eps)) after
    every optimizer step.

    Formula: (max_v z - mean_v z)², mean over tokens, + λ (NLL(retain) - ε); λ <- max(0, λ + η (NLL(retain) -
    ε))
    Cost: one forward and backward over the forget rows and one over the retain rows; no reference."""

    eps: float = knob(0.3, "retain loss to stay below; must exceed the reference model's", above=0)
    dual: float = knob(100.0, "multiplier of the constraint at the start", at_least=0)
    dual_step: float = knob(5.0, "step of the multiplier", at_least=0)
    warmup_epochs: float = knob(0.0, "epochs before the multiplier moves", at_least=0)
    positions: str = knob(
        "shifted",
        "shifted: the logits that predict the answer; unshifted: one place too late (OpenUnlearning's code)",
        choices=("shifted", "unshifted"),
    )
    parts = frozenset({"forget", "retain"})
    owns_retain = True

    @property
    def scores_answers(self):
        # While the multiplier is 0 the retain rows need no gradient.
        return self.positions == "shifted" and self.dual > 0

    def terms(self, model, batch, reference):
        forget, retain = batch["forget"], batch["retain"]
        with torch.set_grad_enabled(self.dual > 0):
            nll = answer_nll(model, retain).sum()
        return {
            "pdu": self._flattening(model, forget),
            "retain_nll": Term(nll, "retain", "tokens", side="retain", factor=self.dual),
        }

    def _flattening(self, model, part) -> Term:
        if self.positions == "unshifted":
            return variants.pdu(self, model, part)
        return Term(self.margin(answer_logits(model, part)).sum(), "forget", "tokens")

    @staticmethod
    def margin(scores: Tensor) -> Tensor:
        """(max z - mean z)² over the vocabulary, of logits [..., V]."""
        return (scores.max(-1).values - scores.mean(-1)) ** 2

    def after_step(self, means, epoch):
        if epoch >= self.warmup_epochs:
            self.dual = max(0.0, self.dual + self.dual_step * (means["retain_nll"] - self.eps))

    def logged(self):
        return {"dual": self.dual}

    def state_dict(self):
        return {"dual": self.dual}

    def load_state_dict(self, state):
        self.dual = state["dual"]
