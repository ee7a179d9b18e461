"""Loss adjustment by an f-divergence between a template answer and the answer to forget."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.likelihood import count_labels, row_sum
from ...core.options import knob
from ..base import FORGET, Objective, Term, batch_mean
from ..scoring import answer_nll

DIVERGENCES = {
    "tv": lambda good, bad: torch.tanh(bad) / 2 - torch.tanh(good) / 2,
    "kl": lambda good, bad: torch.exp(bad - 1) - good,
    "pearson": lambda good, bad: bad + bad**2 / 4 - good,
    "js": lambda good, bad: F.softplus(-good) + bad + F.softplus(-bad) - 2 * math.log(2),
}
"""Loss from the mean token probabilities of the template (`good`) and of the forget answer (`bad`)."""


@FORGET.register("FLAT")
@dataclass(frozen=True)
class FLAT(Objective):
    """FLAT (arXiv:2410.11143, by its code): a variational f-divergence between template answers (refusals)
    and forget answers, on mean token probabilities. Forget data only: no reference, and no retain set needed.
    Bounded.

    Formula: tanh(P(answer))/2 - tanh(P(refusal))/2 (tv), P = mean token probability of a row, mean over rows
    Cost: one forward and backward over the forget rows and one over the refusals; no reference."""

    divergence: str = knob(
        "tv", "total variation, Kullback-Leibler, Pearson or Jensen-Shannon", choices=tuple(DIVERGENCES)
    )
    positions: str = knob(
        "labels",
        "labels: mean over a row's answer tokens; all: over every position of the micro-batch, others "
        "counting 0 (the authors' code; padding changes it)",
        choices=("labels", "all"),
    )
    parts = frozenset({"forget", "alternate"})
    scores_answers = True
    alternates = "refusals"

    def terms(self, model, batch, reference):
        good, bad = (self._probability(model, batch[name]) for name in ("alternate", "forget"))
        loss = DIVERGENCES[self.divergence](good, bad)
        if self.positions == "all":
            return {"flat": batch_mean(loss, "forget", batch["forget"])}
        return {"flat": Term(loss.sum(), "forget", "rows")}

    def _probability(self, model, part) -> Tensor:
        labels = part["labels"]
        p = torch.exp(-answer_nll(model, part))
        if self.positions == "all":
            return p.sum() / labels[:, 1:].numel()
        return row_sum(p, labels) / count_labels(labels)
