"""The contract of an objective.

An objective is a small dataclass in one file. Its fields (`knob`s) are its hyper-parameters; `needs` says what must be
handed to it; `terms` turns a model and a batch into named totals. It never sees a data loader, an optimizer or a rank:

    @FORGET.register("GA")
    @dataclass(frozen=True)
    class GA(Objective):
        def terms(self, model, batch, reference):
            part = batch["forget"]
            return {"ga": Term(-token_nll(logits(model, part), part["labels"]).sum(), "forget", "tokens")}

A `Term` is a total together with what it is averaged over. The trainer divides by the count of the whole accumulation
window over all processes, so that batch 1 x 8, 8 x 1 and two processes take the same step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor
from torch.nn import ModuleList

from core.files import UserError
from core.registry import Registry

Part = Mapping[str, Tensor]
"""One part of a batch: input_ids, attention_mask, labels [B, T], and `index` [B], the place of each row in its data set."""

Over = Literal["rows", "tokens", "attended"]
"""What a total is averaged over: rows, labelled (scored) tokens or attended tokens of its part."""

FORGET = Registry("forget objective")
RETAIN = Registry("retain objective")


@dataclass(frozen=True)
class Term:
    """A loss summed over one part of a micro-batch (`total`, a scalar tensor) and what its mean runs over."""

    total: Tensor
    part: str
    over: Over


class Reference(Protocol):
    """What the start model said, in eval mode and without gradient. Only what an objective `needs` is there."""

    def logprob(self, name: str, part: Part) -> Tensor:
        """log p(answer given prompt) of each row of batch part `name`, summed over its labelled tokens, [B]."""

    def logits(self, name: str, part: Part) -> Tensor:
        """Logits of the start model on a part, [B, T, V]."""

    def hidden(self, name: str, part: Part, layer: int) -> Tensor:
        """Output of block `layer` of the start model on a part, [B, T, D]."""


class Objective:
    """Base of forget and retain objectives. Subclasses are dataclasses with knobs for fields."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """Of `reference_logprob`, `reference_logits`, `reference_hidden`: what `Unlearn` provides through the reference."""
    parts: ClassVar[frozenset[str]] = frozenset()
    """The batch parts it reads."""

    def terms(self, model, batch: Mapping[str, Part], reference: Reference | None) -> dict[str, Term]:
        """Named totals over this micro-batch, with gradient."""
        raise NotImplementedError


def logits(model, part: Part) -> Tensor:
    """One forward pass over a part: logits [B, T, V]."""
    return model(input_ids=part["input_ids"], attention_mask=part["attention_mask"], use_cache=False).logits


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
