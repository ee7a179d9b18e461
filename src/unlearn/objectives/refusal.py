"""Training the model to refuse: the forget questions with refusals for answers."""

from dataclasses import dataclass

from ...core.likelihood import count_labels
from ...core.options import knob
from ..base import FORGET, Objective, Term
from ..scoring import answer_nll


@FORGET.register("CL", "PO", "IDK", "IdkNLL")
@dataclass(frozen=True)
class CL(Objective):
    """Refusal training (TOFU's preference optimisation, arXiv:2401.06121; `CL` in the WAGLE family): mean NLL
    per token of a refusal, drawn for each forget row from `dataset.refusals` by seed and row id. Bounded
    below by 0.

    Formula: NLL(refusal), mean over tokens
    Cost: one forward and backward over the refusal rows; the forget answers themselves are not read."""

    batch: str = knob(
        "separate",
        "separate: the retain objective has a mean of its own; concat: refusals and retain rows in one "
        "mean over all their tokens (TOFU's idk), takes no retain objective",
        choices=("separate", "concat"),
    )
    alternates = "refusals"
    scores_answers = True

    @property
    def parts(self):
        return frozenset({"alternate", "retain"} if self.batch == "concat" else {"alternate"})

    def errors(self, run):
        if self.batch == "concat" and run.has_retain:
            by = f" (it comes from unlearn.published {run.published})" if run.published != "none" else ""
            yield (
                f"unlearn.CL.batch concat has the retain rows in the same mean{by}: unlearn_method CL, not"
                f" {run.method}"
            )

    def counts(self, batch):
        if self.batch == "separate":
            return {}
        return {
            "alternate": {
                "tokens_with_retain": sum(count_labels(batch[name]["labels"]).sum() for name in self.parts)
            }
        }

    def terms(self, model, batch, reference):
        nll = {name: answer_nll(model, batch[name]).sum() for name in sorted(self.parts)}
        if self.batch == "separate":
            return {"refusal_nll": Term(nll["alternate"], "alternate", "tokens")}
        return {
            "refusal_nll": Term(nll["alternate"], "alternate", "tokens_with_retain"),
            "retain_nll": Term(nll["retain"], "alternate", "tokens_with_retain", side="retain"),
        }
