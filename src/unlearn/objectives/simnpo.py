"""Negative preference optimisation without a reference model."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ...core.likelihood import count_labels
from ...core.options import knob
from ..base import FORGET, Objective, Term
from ..published import variants
from ..scoring import answer_row_nll


@FORGET.register("SimNPO")
@dataclass(frozen=True)
class SimNPO(Objective):
    """SimNPO (Fan et al., arXiv:2410.07163): NPO on the mean NLL per token of each row, with a margin in
    place of a reference: -(2 / beta) log sigmoid(beta nll - margin). Bounded below by 0.

    Formula: -(2/β) log σ(β nll - margin), nll = mean NLL per token of a row, mean over rows
    Cost: one forward and backward over the forget rows; no reference."""

    beta: float = knob(2.5, "inverse temperature on the mean NLL per token", above=0)
    margin: float = knob(0.0, "reward margin: a row must be this much less likely to count as forgotten")
    margin_form: str = knob(
        "outside",
        "outside: beta nll - margin, the paper; inside: beta (nll - margin), the code of "
        "OpenUnlearning and TOFU runs",
        choices=("outside", "inside"),
    )
    reduction: str = knob(
        "rows",
        "what goes into the sigmoid: the mean NLL of each row, batch_mean (of the micro-batch: the WMDP "
        "code) or raw_logits (the MUSE code; no likelihood at all)",
        choices=("rows", "batch_mean", "raw_logits"),
    )
    parts = frozenset({"forget"})

    @property
    def scores_answers(self):
        return self.reduction != "raw_logits"

    def terms(self, model, batch, reference):
        part = batch["forget"]
        if self.reduction != "rows":
            return {"simnpo": variants.simnpo(self, model, part)}
        nll = answer_row_nll(model, part) / count_labels(part["labels"])
        return {"simnpo": Term(self.penalty(nll).sum(), "forget", "rows")}

    def penalty(self, nll: Tensor) -> Tensor:
        """The loss of a mean NLL per token, elementwise."""
        margin = self.beta * self.margin if self.margin_form == "inside" else self.margin
        return -F.logsigmoid(self.beta * nll - margin) * 2 / self.beta
