"""Who's Harry Potter: what a reinforced model likes more is liked less."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ...core.options import knob
from ..base import FORGET, Edit, Term
from ..scoring import answer_logits


def damped(start: Tensor, reinforced: Tensor, alpha: float) -> Tensor:
    """Logits of the reference model, lowered where the reinforced model's are higher; none is ever raised."""
    return start - alpha * F.relu(reinforced - start)


@FORGET.register("WHP")
@dataclass(frozen=True)
class WHP(Edit):
    """Who's Harry Potter (Eldan and Russinovich, arXiv:2310.02238), its logit rule distilled into one
    checkpoint: cross-entropy on the forget rows to the reference model's logits, lowered where those of a
    reinforced model are higher. (The paper's replacement of anchor terms is not part of it.)

    Formula: CE(softmax(z - α relu(z_reinforced - z)), p), mean over tokens
    Cost: one forward and backward over the forget rows, one forward each of the reference model and of the
    reinforced one.
    """

    alpha: float = knob(1.0, "how far logits that reinforcing raised are lowered", at_least=0)
    reinforced: str | None = knob(
        None,
        "folder or hub name of a model reinforced on the forget rows; without it one is trained on "
        "the way, with the run's own lr and epochs",
    )
    needs = frozenset({"reference_logits", "reinforced_logits"})
    parts = frozenset({"forget"})
    scores_answers = True

    def terms(self, model, batch, reference):
        part = batch["forget"]
        teacher = damped(
            reference.answer_logits("forget", part), reference.reinforced("forget", part), self.alpha
        )
        student = F.log_softmax(answer_logits(model, part), dim=-1)
        return {"whp": Term(-(F.softmax(teacher.float(), dim=-1) * student).sum(), "forget", "tokens")}
