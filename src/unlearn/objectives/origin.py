"""`origin`: the model as it is. Trains nothing, so that a run evaluates the initial model like any
other."""

from dataclasses import dataclass

from ..base import FORGET, Objective


@FORGET.register("origin")
@dataclass(frozen=True)
class Origin(Objective):
    """No objective: nothing is trained."""

    def terms(self, model, batch, reference):
        return {}
