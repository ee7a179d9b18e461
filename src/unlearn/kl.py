"""Ascent on the divergence from the start model."""

from dataclasses import dataclass

import torch.nn.functional as F

from core.knobs import knob
from core.likelihood import token_kl
from unlearn.base import FORGET, Objective, Term, answer_logits


@FORGET.register("KL")
@dataclass(frozen=True)
class KLForget(Objective):
    """Away from what the start model said: minus the KL divergence between it and the model on the forget answers (the WAGLE
    family's `KL`). Unbounded unless `cap` is set: a token beyond the cap pushes no further. 0 with zero gradient at the
    start, so it needs a retain objective or dropout to begin to move.

    Formula: -min(KL(p_ref || p), cap), mean over tokens
    Cost: one forward and backward over the forget rows, one forward of the start model."""

    form: str = knob("ref_model", "ref_model: KL(ref || model); model_ref: KL(model || ref); seed_ce: -sum p log p_ref, what the "
                     "WAGLE family computes (its maximum is not the start model)", choices=("ref_model", "model_ref", "seed_ce"))
    cap: float = knob(0.0, "largest divergence of a token that still counts; 0 is no limit", at_least=0)
    needs = frozenset({"reference_logits"})
    parts = frozenset({"forget"})

    def terms(self, model, batch, reference):
        part = batch["forget"]
        divergence = self._divergence(reference.answer_logits("forget", part), answer_logits(model, part))
        kept = divergence.clamp(max=self.cap) if self.cap else divergence
        return {"forget_kl": Term(-kept.sum(), "forget", "tokens")}

    def _divergence(self, start, ours):
        if self.form == "ref_model":
            return token_kl(start, ours)
        if self.form == "model_ref":
            return token_kl(ours, start)
        return -(F.softmax(ours, dim=-1) * F.log_softmax(start.float(), dim=-1)).sum(-1)
