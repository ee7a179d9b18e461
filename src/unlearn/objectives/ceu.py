"""Cross-entropy to the model's own view without the answer."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ...core.likelihood import IGNORE, count_labels
from ...core.options import knob
from ..base import FORGET, Objective, Term
from ..scoring import answer_scores


@FORGET.register("CEU", "CE-U")
@dataclass(frozen=True)
class CEU(Objective):
    """CE-U (arXiv:2503.01224): cross-entropy to the model's own distribution with the answer token taken out,
    which is held fixed. The gradient on the answer's logit is exactly p: largest where the model is sure.

    Formula: CE(softmax(z without y), p), mean over tokens
    Cost: one forward and backward over the forget rows; no reference."""

    skip: int = knob(1, "first answer tokens of each row that are left alone", at_least=0)
    parts = frozenset({"forget"})
    scores_answers = True

    def counts(self, batch):
        return {"forget": {"later_tokens": count_labels(self._later(batch["forget"]["labels"])).sum()}}

    def terms(self, model, batch, reference):
        part = batch["forget"]
        student, targets = answer_scores(model, {**part, "labels": self._later(part["labels"])})
        answer = F.one_hot(targets, student.shape[-1]).bool()
        teacher = F.softmax(student.detach().masked_fill(answer, float("-inf")), dim=-1)
        return {"ceu": Term(-(teacher * F.log_softmax(student, dim=-1)).sum(), "forget", "later_tokens")}

    def _later(self, labels: Tensor) -> Tensor:
        """The labels without the first `skip` of each row."""
        scored = labels != IGNORE
        scored[:, 0] = False
        return labels.masked_fill(scored.cumsum(-1) <= self.skip, IGNORE)
