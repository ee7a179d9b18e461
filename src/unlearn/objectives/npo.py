"""Negative preference optimisation."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ...core.options import knob
from ..base import FORGET, Objective, Term
from ..published import variants
from ..scoring import answer_row_nll


@FORGET.register("NPO")
@dataclass(frozen=True)
class NPO(Objective):
    """Negative preference optimisation (Zhang et al., arXiv:2404.05868, eq. 3), per row on the summed
    log-probability: -(2 / beta) log sigmoid(-beta (log p - log p_ref)). Bounded below by 0; beta -> 0
    recovers gradient ascent.

    Formula: -(2/β) log σ(-β log(p / p_ref)), p of a whole answer, mean over rows
    Cost: one forward and backward over the forget rows; the reference is one number per row, computed once.
    """

    beta: float = knob(0.1, "inverse temperature: how soon a row counts as forgotten", above=0)
    reduction: str = knob(
        "rows",
        "what goes into the sigmoid: the log-probability of each row, batch_mean (one token mean of the "
        "micro-batch: WAGLE, SOUL) or raw_logits (MUSE's code; no likelihood at all)",
        choices=("rows", "batch_mean", "raw_logits"),
    )
    parts = frozenset({"forget"})

    @property
    def needs(self):
        return frozenset({"reference_logits" if self.reduction == "raw_logits" else "reference_logprob"})

    @property
    def scores_answers(self):
        return self.reduction != "raw_logits"

    def terms(self, model, batch, reference):
        part = batch["forget"]
        if self.reduction != "rows":
            return {"npo": variants.npo(self, model, part, reference)}
        log_ratio = -answer_row_nll(model, part) - reference.logprob("forget", part)
        return {"npo": Term(self.penalty(log_ratio).sum(), "forget", "rows")}

    def penalty(self, log_ratio: Tensor) -> Tensor:
        """The loss of a log-ratio log(p / p_ref), elementwise."""
        return -F.logsigmoid(-self.beta * log_ratio) * 2 / self.beta
