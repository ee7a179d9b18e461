"""What holds the model to its other knowledge: objectives on the retain rows."""

from dataclasses import dataclass

from core.knobs import knob
from core.likelihood import token_jsd, token_kl, token_nll
from unlearn.base import RETAIN, Objective, Term, hidden, logits


@RETAIN.register("FT", "GD", "GDR", "NLL")
@dataclass(frozen=True)
class FT(Objective):
    """Fine-tuning: mean NLL per retain token.

    Cost: one forward and backward over the retain rows."""

    parts = frozenset({"retain"})

    def terms(self, model, batch, reference):
        part = batch["retain"]
        return {"retain_nll": Term(token_nll(logits(model, part), part["labels"]).sum(), "retain", "tokens")}


@RETAIN.register("KL", "KLR", "KLM")
@dataclass(frozen=True)
class KL(Objective):
    """KL(start model || model), mean over the labelled retain tokens. 0 for the start model itself.

    Cost: one forward and backward over the retain rows, one forward of a frozen copy of the start model."""

    needs = frozenset({"reference_logits"})
    parts = frozenset({"retain"})

    def terms(self, model, batch, reference):
        part = batch["retain"]
        divergence = token_kl(reference.logits("retain", part), logits(model, part), part["labels"])
        return {"retain_kl": Term(divergence.sum(), "retain", "tokens")}


@RETAIN.register("JSD")
@dataclass(frozen=True)
class JSD(Objective):
    """Jensen-Shannon divergence from the start model (JensUn, arXiv:2509.02820), mean over the labelled retain tokens.
    0 for the start model itself, at most log 2.

    Cost: one forward and backward over the retain rows, one forward of the start model."""

    needs = frozenset({"reference_logits"})
    parts = frozenset({"retain"})

    def terms(self, model, batch, reference):
        part = batch["retain"]
        divergence = token_jsd(reference.logits("retain", part), logits(model, part), part["labels"])
        return {"retain_jsd": Term(divergence.sum(), "retain", "tokens")}


@RETAIN.register("EMBED", "EMBED_DIFF")
@dataclass(frozen=True)
class EMBED(Objective):
    """Activation matching (RMU's retain term, arXiv:2403.03218): squared distance of one layer's output from the start
    model's, mean over attended retain tokens and hidden units.

    Cost: one forward and backward over the retain rows, one forward of the start model (both through all layers)."""

    layer: int = knob(2, "block whose output is matched, counted from 0", at_least=0)
    needs = frozenset({"reference_hidden"})
    parts = frozenset({"retain"})

    def terms(self, model, batch, reference):
        part = batch["retain"]
        distance = hidden(model, part, self.layer).float() - reference.hidden("retain", part, self.layer).float()
        attended = part["attention_mask"].bool()
        return {"retain_embed": Term((distance**2).mean(-1)[attended].sum(), "retain", "attended")}
