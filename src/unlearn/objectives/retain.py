"""What holds the model to its other knowledge: objectives on the retain rows."""

from dataclasses import dataclass

import torch.nn.functional as F

from ...core.likelihood import token_jsd, token_kl
from ...core.options import knob
from ..base import RETAIN, Objective, Term
from ..published import variants
from ..scoring import answer_divergence, answer_nll, answer_row_nll


@RETAIN.register("FT", "GD", "GDR", "NLL")
@dataclass(frozen=True)
class FT(Objective):
    """Fine-tuning: mean NLL per retain token.

    Formula: NLL(retain), mean over tokens
    Cost: one forward and backward over the retain rows."""

    parts = frozenset({"retain"})
    scores_answers = True

    def terms(self, model, batch, reference):
        part = batch["retain"]
        return {"retain_nll": Term(answer_nll(model, part).sum(), "retain", "tokens")}


@RETAIN.register("KL", "KLR", "KLM")
@dataclass(frozen=True)
class KL(Objective):
    """KL(reference model || model), mean over the labelled retain tokens. 0 for the reference model itself.

    Formula: KL(p_ref || p) on retain answers, mean over tokens
    Cost: one forward and backward over the retain rows, one forward of the reference model (cached while rows
    come again).
    """

    form: str = knob(
        "answers",
        "answers: KL on answer tokens; all: on prompt and padding too (OpenUnlearning, TOFU); seed_ce: -sum p"
        " log p_ref everywhere (WAGLE); raw_logits: the KL formula on logits, no divergence (MUSE)",
        choices=("answers", "all", "seed_ce", "raw_logits"),
    )
    needs = frozenset({"reference_logits"})
    parts = frozenset({"retain"})

    @property
    def scores_answers(self):
        return self.form == "answers"

    def terms(self, model, batch, reference):
        part = batch["retain"]
        if self.form != "answers":
            return {"retain_kl": variants.retain_kl(self, model, part, reference)}
        divergence = answer_divergence(model, part, reference.answer_logits("retain", part), token_kl)
        return {"retain_kl": Term(divergence.sum(), "retain", "tokens")}


@RETAIN.register("JSD")
@dataclass(frozen=True)
class JSD(Objective):
    """Jensen-Shannon divergence from the reference model (JensUn, arXiv:2509.02820), mean over the labelled
    retain tokens. 0 for the reference model itself, at most log 2.

    Formula: JSD(p_ref, p) on retain answers, mean over tokens
    Cost: one forward and backward over the retain rows, one forward of the reference model (cached while rows
    come again).
    """

    needs = frozenset({"reference_logits"})
    parts = frozenset({"retain"})
    scores_answers = True

    def terms(self, model, batch, reference):
        part = batch["retain"]
        divergence = answer_divergence(model, part, reference.answer_logits("retain", part), token_jsd)
        return {"retain_jsd": Term(divergence.sum(), "retain", "tokens")}


@RETAIN.register("AP")
@dataclass(frozen=True)
class AP(Objective):
    """Answer preservation (Yuan et al., arXiv:2410.08109): on retain questions the right answer stays more
    likely than a refusal. At least 0; no reference.

    Formula: -(1/β) log σ(β [log p(answer) - log p(refusal)]) on retain questions, mean over rows
    Cost: one forward and backward over the retain rows and one over refusals to the same questions."""

    beta: float = knob(0.1, "inverse temperature", above=0)
    parts = frozenset({"retain", "retain_alternate"})
    scores_answers = True

    def terms(self, model, batch, reference):
        answer, refusal = (answer_row_nll(model, batch[name]) for name in ("retain", "retain_alternate"))
        loss = -F.logsigmoid(self.beta * (refusal - answer)) / self.beta
        return {"retain_ap": Term(loss.sum(), "retain", "rows")}
