"""The contract of an objective.

An objective is a small dataclass in one file. Its fields (`knob`s) are its hyper-parameters; `needs` says what must be
handed to it; `terms` turns a model and a batch into named totals. It never sees a data loader, an optimizer or a rank:

    @FORGET.register("GA")
    @dataclass(frozen=True)
    class GA(Objective):
        def terms(self, model, batch, reference):
            part = batch["forget"]
            return {"ga": Term(-answer_nll(model, part).sum(), "forget", "tokens")}

A `Term` is a total together with what it is averaged over. The trainer divides by the count of the whole accumulation
window over all processes, so that batch 1 x 8, 8 x 1 and two processes take the same step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import ModuleList

from core.files import UserError
from core.likelihood import IGNORE, count_labels, row_sum, shifted, wide
from core.registry import Registry

Part = Mapping[str, Tensor]
"""One part of a batch: input_ids, attention_mask, labels [B, T], and `index` [B], the place of each row in its data set."""

Counts = dict[str, dict[str, Tensor]]
"""Part -> what can be averaged over in it -> how many of that a micro-batch holds."""

FORGET = Registry("forget objective")
RETAIN = Registry("retain objective")
REGULARIZERS = Registry("regularizer")


@dataclass(frozen=True)
class Term:
    """A loss summed over one part of a micro-batch (`total`, a scalar tensor) and what its mean runs over: `rows`, labelled
    (scored) `tokens` or `attended` tokens of the part, or a count that the objective gives itself.

    `side` is for objectives that have terms of both sides; `factor` multiplies the weight of the side."""

    total: Tensor
    part: str
    over: str
    side: Literal["forget", "retain"] | None = None
    factor: float = 1.0


def batch_mean(value: Tensor, name: str, part: Part) -> Term:
    """The mean of `value`, which some published code takes over a whole micro-batch, padding included: it depends on how a
    step is split, and is averaged over micro-batches by their rows."""
    return Term(value.mean() * len(part["labels"]), name, "rows")


def standard_counts(batch: Mapping[str, Part]) -> Counts:
    """Rows, labelled tokens and attended tokens of each part."""
    return {name: {"rows": torch.tensor(len(part["labels"])), "tokens": count_labels(part["labels"]).sum(),
                   "attended": part["attention_mask"].sum()} for name, part in batch.items()}


class Reference(Protocol):
    """What the start model said, in eval mode and without gradient. Only what an objective `needs` is there."""

    def logprob(self, name: str, part: Part) -> Tensor:
        """log p(answer given prompt) of each row of batch part `name`, summed over its labelled tokens, [B]."""

    def answer_logits(self, name: str, part: Part) -> Tensor:
        """Logits of the start model that score the labelled tokens of a part, [N, V] in reading order; kept for rows that
        come again."""

    def logits(self, name: str, part: Part) -> Tensor:
        """Logits of the start model on a part, [B, T, V]."""

    def hidden(self, name: str, part: Part, layer: int) -> Tensor:
        """Output of block `layer` of the start model on a part, [B, T, D]."""

    def reinforced(self, name: str, part: Part) -> Tensor:
        """As `answer_logits`, of a model reinforced on the forget rows."""

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a text, no special ones."""


class Objective:
    """Base of forget and retain objectives and regularizers. Subclasses are dataclasses with knobs for fields.

    The docstring's `Formula:` and `Cost:` lines stand in the method table. One with state of its own (a dual variable)
    gives and takes it as a dict of plain values, which every checkpoint holds."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """Of `reference_logprob`, `reference_logits`, `reference_hidden`, `reinforced_logits`, `token_ids`: what `Unlearn` provides
    through the reference; and `double_backward`: attention that can be differentiated twice."""
    parts: ClassVar[frozenset[str]] = frozenset()
    """The batch parts it reads."""
    alternates: ClassVar[str] = ""
    """What the answers of its part `alternate` are: `refusals`, `generated` or `mismatched`."""
    owns_retain: ClassVar[bool] = False
    """True for a forget objective that has a retain term of its own and takes no retain objective."""

    def counts(self, batch: Mapping[str, Part]) -> Counts:
        """What its terms are averaged over beside the standard counts."""
        return {}

    def terms(self, model, batch: Mapping[str, Part], reference: Reference | None) -> dict[str, Term]:
        """Named totals over this micro-batch, with gradient."""
        raise NotImplementedError

    def after_step(self, means: Mapping[str, float], epoch: float) -> None:
        """Told the means of all terms after each optimizer step, and how many epochs are behind."""

    def logged(self) -> dict[str, float]:
        """State worth a column in the log."""
        return {}

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: Mapping) -> None:
        """Take back what `state_dict` gave."""


class Edit(Objective):
    """Unlearning by way of a reinforced model: by `edit` of the weights, or by training on `terms` that read both models."""

    owns_retain = True

    def edit(self, start: Mapping[str, Tensor], reinforced: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The unlearned weights from those of the start model and of the reinforced one."""
        raise NotImplementedError


def logits(model, part: Part) -> Tensor:
    """One forward pass over a part: logits [B, T, V]."""
    return model(input_ids=part["input_ids"], attention_mask=part["attention_mask"], use_cache=False).logits


def answer_scores(model, part: Part) -> tuple[Tensor, Tensor]:
    """Logits that score the labelled tokens of a part, [N, V] in float32 or wider, and those tokens, [N], in reading order.
    The language-model head is applied only to places where some row has a label, if the model can do that: a prompt costs
    no logits."""
    labels = part["labels"]
    places = (labels[:, 1:] != IGNORE).any(0).nonzero()[:, 0]
    plain = getattr(model, "module", model)
    if not getattr(plain, "_supports_logits_to_keep", bool)():
        return shifted(logits(model, part), labels)
    kept = model(input_ids=part["input_ids"], attention_mask=part["attention_mask"], use_cache=False, logits_to_keep=places).logits
    targets = labels[:, 1:][:, places]
    scored = targets != IGNORE
    return wide(kept[scored]), targets[scored]


def answer_logits(model, part: Part) -> Tensor:
    """The logits of `answer_scores` alone."""
    return answer_scores(model, part)[0]


def answer_nll(model, part: Part) -> Tensor:
    """-log p of every labelled token of a part, [N] in reading order, in float32 or wider."""
    return F.cross_entropy(*answer_scores(model, part), reduction="none")


def answer_row_nll(model, part: Part) -> Tensor:
    """-log p(answer given prompt) of each row of a part, [B]."""
    return row_sum(answer_nll(model, part), part["labels"])


def blocks(model) -> ModuleList:
    """The decoder blocks of a causal language model, under whatever wrappers (DDP, LoRA) it has."""
    found = next((module for module in model.modules() if isinstance(module, ModuleList) and len(module) > 0), None)
    if found is None:
        raise UserError("cannot find the decoder blocks of this model: it has no list of blocks")
    return found


def hidden(model, part: Part, layer: int) -> Tensor:
    """Output of block `layer` in one forward pass over a part, [B, T, D].

    The pass goes through `model` itself, so that a distributed wrapper sees it."""
    found = blocks(model)
    if layer >= len(found):
        raise UserError(f"layer {layer} does not exist: the model has {len(found)} blocks, counted from 0")
    caught: list[Tensor] = []
    handle = found[layer].register_forward_hook(lambda _, __, out: caught.append(out[0] if isinstance(out, tuple) else out))
    try:
        logits(model, part)
    finally:
        handle.remove()
    return caught[0]
