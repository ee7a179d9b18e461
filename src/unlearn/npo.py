"""Negative preference optimisation."""

from dataclasses import dataclass

import torch.nn.functional as F

from core.knobs import knob
from core.likelihood import row_nll
from unlearn.base import FORGET, Objective, Term, logits


@FORGET.register("NPO")
@dataclass(frozen=True)
class NPO(Objective):
    """Negative preference optimisation (Zhang et al., arXiv:2404.05868, eq. 3), per row on the summed log-probability:
    -(2 / beta) log sigmoid(-beta (log p - log p_ref)). Bounded below by 0; beta -> 0 recovers gradient ascent.

    Cost: one forward and backward over the forget rows; the reference is one number per row, computed once."""

    beta: float = knob(0.1, "inverse temperature: how soon a row counts as forgotten", above=0)
    needs = frozenset({"reference_logprob"})
    parts = frozenset({"forget"})

    def terms(self, model, batch, reference):
        part = batch["forget"]
        log_ratio = -row_nll(logits(model, part), part["labels"]) - reference.logprob("forget", part)
        loss = -F.logsigmoid(-self.beta * log_ratio) * 2 / self.beta
        return {"npo": Term(loss.sum(), "forget", "rows")}
