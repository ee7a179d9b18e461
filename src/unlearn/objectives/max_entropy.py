"""Towards knowing nothing: the uniform distribution."""

import math
from dataclasses import dataclass

import torch.nn.functional as F

from ...core.options import knob
from ..base import FORGET, Objective, Term
from ..scoring import answer_logits


@FORGET.register("ME")
@dataclass(frozen=True)
class ME(Objective):
    """Maximum entropy (Yuan et al., arXiv:2410.08109): the divergence of the answer tokens' distribution from
    the uniform one. At least 0; at most log V in the default form.

    Formula: KL(p || uniform) = log V - H(p), mean over tokens
    Cost: one forward and backward over the forget rows; no reference."""

    form: str = knob(
        "model_uniform",
        "model_uniform: KL(p || uniform), entropy in the literal sense; uniform_model: KL(uniform || "
        "p), what the authors' code computes (unbounded)",
        choices=("model_uniform", "uniform_model"),
    )
    parts = frozenset({"forget"})
    scores_answers = True

    def terms(self, model, batch, reference):
        part = batch["forget"]
        logp = F.log_softmax(answer_logits(model, part), dim=-1)
        size = math.log(logp.shape[-1])
        divergence = (
            -size - logp.mean(-1) if self.form == "uniform_model" else size + (logp.exp() * logp).sum(-1)
        )
        return {"max_entropy": Term(divergence.sum(), "forget", "tokens")}
