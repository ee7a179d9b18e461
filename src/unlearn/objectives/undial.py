"""Self-distillation from a teacher that likes the answer less."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ...core.options import knob
from ..base import FORGET, Objective, Term
from ..published import variants
from ..scoring import answer_scores


@FORGET.register("UNDIAL")
@dataclass(frozen=True)
class UNDIAL(Objective):
    """UNDIAL (Dong et al., arXiv:2402.10052): cross-entropy to the reference model's distribution with the
    answer token's logit lowered by beta. Bounded below by the teacher's entropy. beta 0 holds the model where
    it is.

    Formula: CE(softmax(z_ref - β onehot(y)), p), mean over tokens
    Cost: one forward and backward over the forget rows, one forward of the reference model."""

    beta: float = knob(10.0, "how far the teacher lowers the answer token's logit", at_least=0)
    positions: str = knob(
        "labels",
        "labels: answer tokens; all: prompt and padding too, where entry V - 100 is lowered "
        "(OpenUnlearning's code)",
        choices=("labels", "all"),
    )
    needs = frozenset({"reference_logits"})
    parts = frozenset({"forget"})

    @property
    def scores_answers(self):
        return self.positions != "all"

    def terms(self, model, batch, reference):
        part = batch["forget"]
        if self.positions == "all":
            return {"undial": variants.undial(self, model, part, reference)}
        student, targets = answer_scores(model, part)
        loss = self.distil(reference.answer_logits("forget", part), student, targets)
        return {"undial": Term(loss.sum(), "forget", "tokens")}

    def distil(self, teacher: Tensor, student: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of the student to the teacher without the targets, of logits [..., V]."""
        damped = teacher - self.beta * F.one_hot(targets, teacher.shape[-1])
        return -(F.softmax(damped, dim=-1) * F.log_softmax(student, dim=-1)).sum(-1)
