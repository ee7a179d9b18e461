"""Direct preference optimisation: another answer is preferred to the one to forget."""

from dataclasses import dataclass

import torch.nn.functional as F

from ...core.options import knob
from ..base import FORGET, Objective, Term
from ..scoring import answer_row_nll


@FORGET.register("DPO", "IdkDPO")
@dataclass(frozen=True)
class DPO(Objective):
    """DPO (arXiv:2305.18290; for forgetting: TOFU, arXiv:2401.06121) with a refusal preferred to the forget
    answer. Without the preferred answer it is NPO. Bounded below by 0.

    Formula: -(2/β) log σ(β [log(p / p_ref)(refusal) - log(p / p_ref)(answer)]), mean over rows
    Cost: one forward and backward over the forget rows and one over the refusals; references are numbers,
    computed once.
    """

    beta: float = knob(0.1, "inverse temperature", above=0)
    scale: str = knob(
        "npo",
        "npo: the factor 2 / beta, as TOFU and OpenUnlearning have it; textbook: no factor",
        choices=("npo", "textbook"),
    )
    needs = frozenset({"reference_logprob"})
    parts = frozenset({"forget", "alternate"})
    scores_answers = True
    alternates = "refusals"

    def terms(self, model, batch, reference):
        preference = self._log_ratio(model, batch, reference, "alternate") - self._log_ratio(
            model, batch, reference, "forget"
        )
        factor = 2 / self.beta if self.scale == "npo" else 1
        return {
            type(self).__name__.lower(): Term(
                -factor * F.logsigmoid(self.beta * preference).sum(), "forget", "rows"
            )
        }

    @staticmethod
    def _log_ratio(model, batch, reference, name):
        part = batch[name]
        return -answer_row_nll(model, part) - reference.logprob(name, part)


@FORGET.register("AltPO")
@dataclass(frozen=True)
class AltPO(DPO):
    """AltPO (arXiv:2409.13474): DPO whose preferred answers are plausible alternates that the reference model
    wrote itself (`make_alternates.py`). Each epoch takes the next alternate of a row.

    Formula: as DPO, with an alternate answer in place of the refusal
    Cost: as DPO."""

    alternates = "generated"
