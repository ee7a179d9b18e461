"""Ascent on the divergence from the reference model."""

from dataclasses import dataclass

from torch import Tensor

from ...core.likelihood import token_kl
from ...core.options import knob
from ..base import FORGET, Objective, Term
from ..published import variants
from ..scoring import answer_divergence


@FORGET.register("KL")
@dataclass(frozen=True)
class KLForget(Objective):
    """Away from the reference model's answers: minus the KL divergence between it and the model on the forget
    answers (the WAGLE family's `KL`). Unbounded unless `cap` is set: a token beyond the cap has no
    gradient. 0 with zero gradient at the start, so it needs a retain objective or dropout to begin to move.

    Formula: -min(KL(p_ref || p), cap), mean over tokens
    Cost: one forward and backward over the forget rows, one forward of the reference model."""

    form: str = knob(
        "ref_model",
        "ref_model: KL(ref || model); model_ref: KL(model || ref); seed_ce: -sum p log p_ref over all "
        "positions, what the WAGLE family computes (its maximum is not the reference model)",
        choices=("ref_model", "model_ref", "seed_ce"),
    )
    cap: float = knob(0.0, "largest divergence of a token that still counts; 0 is no limit", at_least=0)
    needs = frozenset({"reference_logits"})
    parts = frozenset({"forget"})

    @property
    def scores_answers(self):
        return self.form != "seed_ce"

    def terms(self, model, batch, reference):
        part = batch["forget"]
        if self.form == "seed_ce":
            return {"forget_kl": variants.forget_kl(self, model, part, reference)}
        kl = token_kl if self.form == "ref_model" else lambda start, ours: token_kl(ours, start)
        divergence = answer_divergence(model, part, reference.answer_logits("forget", part), kl)
        return {"forget_kl": Term(-self.capped(divergence).sum(), "forget", "tokens")}

    def capped(self, divergence: Tensor) -> Tensor:
        return divergence.clamp(max=self.cap) if self.cap else divergence
