"""Self-distillation from a teacher that likes the answer less."""

from dataclasses import dataclass

import torch.nn.functional as F

from ...core.options import knob
from ..base import FORGET, Objective, Term, batch_mean
from ..scoring import answer_scores, logits


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

    def terms(self, model, batch, reference):
        part = batch["forget"]
        if self.positions == "all":
            teacher, student = (
                scores[:, :-1] for scores in (reference.logits("forget", part), logits(model, part))
            )
            return {
                "undial": batch_mean(
                    self._distil(teacher, student, part["labels"][:, 1:] % student.shape[-1]), "forget", part
                )
            }
        student, targets = answer_scores(model, part)
        return {
            "undial": Term(
                self._distil(reference.answer_logits("forget", part), student, targets).sum(),
                "forget",
                "tokens",
            )
        }

    def _distil(self, teacher, student, targets):
        damped = teacher - self.beta * F.one_hot(targets, teacher.shape[-1])
        return -(F.softmax(damped, dim=-1) * F.log_softmax(student, dim=-1)).sum(-1)
