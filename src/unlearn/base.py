"""The contract of an objective.

An objective is a small dataclass in one file. Its fields (`knob`s) are its hyper-parameters; `needs` says
what must be handed to it; `terms` turns a model and a batch into named totals. It never sees a data loader,
an optimizer or a rank:

    @FORGET.register("GA")
    @dataclass(frozen=True)
    class GA(Objective):
        parts = frozenset({"forget"})
        scores_answers = True

        def terms(self, model, batch, reference):
            part = batch["forget"]
            return {"ga": Term(-answer_nll(model, part).sum(), "forget", "tokens")}

A `Term` is a total together with what it is averaged over. The trainer divides by the count of the whole
accumulation window over all processes, so that batch 1 x 8, 8 x 1 and two processes take the same step.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import Module

from ..core.likelihood import count_labels
from ..core.registry import Registry

Part = Mapping[str, Tensor]
"""One part of a batch: input_ids, attention_mask, labels [B, T], and `index` [B], the place of each row in
its data set. Where several rows may go with one leading row, `owner` [B] says with which line of the
batch."""

Counts = dict[str, dict[str, Tensor]]
"""Part -> what can be averaged over in it -> how many of that a micro-batch holds."""

FORGET = Registry("forget objective")

RETAIN = Registry("retain objective")

REGULARIZERS = Registry("regularizer")


@dataclass(frozen=True)
class Term:
    """A loss summed over one part of a micro-batch (`total`, a scalar tensor) and what its mean runs over:
    `rows`, labelled (scored) `tokens` or `attended` tokens of the part, or a count that the objective gives
    itself.

    `side` is for objectives that have terms of both sides; `factor` multiplies the weight of the side."""

    total: Tensor
    part: str
    over: str
    side: Literal["forget", "retain"] | None = None
    factor: float = 1.0


def batch_mean(value: Tensor, name: str, part: Part) -> Term:
    """The mean of `value`, which some published code takes over a whole micro-batch, padding included: it
    depends on how a step is split, and is averaged over micro-batches by their rows."""
    return Term(value.mean() * len(part["labels"]), name, "rows")


def add_up(tensors: Iterable[Tensor]) -> Tensor:
    """Their sum from left to right, always a new tensor; 0 of none."""
    rest = iter(tensors)
    return sum(rest, 0 + next(rest, torch.zeros(())))


def standard_counts(batch: Mapping[str, Part]) -> Counts:
    """Rows, labelled tokens and attended tokens of each part."""
    return {
        name: {
            "rows": torch.tensor(len(part["labels"])),
            "tokens": count_labels(part["labels"]).sum(),
            "attended": part["attention_mask"].sum(),
        }
        for name, part in batch.items()
    }


@dataclass(frozen=True)
class Step:
    """One optimizer step as `Objective.extra_gradient` sees it, at its end, before anything has moved."""

    model: Module
    batches: Sequence[Mapping[str, Part]]
    """This process's micro-batches, without fillers."""
    weights: Sequence[Tensor]
    """What is trained."""
    rows: int
    """Leading rows of the step, over all processes."""
    autocast: Callable
    """Gives the context that forward passes run in."""
    total: Callable[[Tensor], Tensor]
    """Sums a tensor over all processes."""


@dataclass(frozen=True)
class ExtraGradient:
    """A detached vector that is added to the gradient of the forget side, one tensor for each trained weight,
    and what there is to log about it."""

    vector: Sequence[Tensor]
    stats: Mapping[str, float]


@dataclass(frozen=True)
class RunFacts:
    """What an objective may check about its run, before a model is loaded."""

    method: str
    has_retain: bool
    """Is there a retain objective?"""
    published: str
    """`unlearn.published`: the preset that some values may come from."""
    think_open: str
    """The opening think tag of the run's rows."""


class Reference(Protocol):
    """What the reference model computes, in eval mode and without gradient. Only what an objective `needs` is
    there."""

    def logprob(self, name: str, part: Part) -> Tensor:
        """log p(answer given prompt) of each row of batch part `name`, summed over its labelled tokens,
        [B]."""
        ...

    def answer_logits(self, name: str, part: Part) -> Tensor:
        """Logits of the reference model that score the labelled tokens of a part, [N, V] in reading order;
        kept for rows that come again."""
        ...

    def logits(self, name: str, part: Part) -> Tensor:
        """Logits of the reference model on a part, [B, T, V]."""
        ...

    def hidden(self, name: str, part: Part, layer: int) -> Tensor:
        """Output of block `layer` of the reference model on a part, [B, T, D]; 0 on padding; kept for rows
        that come again."""
        ...

    def padded_hidden(self, name: str, part: Part, layer: int) -> Tensor:
        """As `hidden`, with the model's output on padding in place of 0."""
        ...

    def activation_norm(self, layer: int) -> float:
        """Median norm of the reference model's output of block `layer` over attended forget tokens."""
        ...

    def reinforced(self, name: str, part: Part) -> Tensor:
        """As `answer_logits`, of a model reinforced on the forget rows."""
        ...

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a text, no special ones."""
        ...


class Objective:
    """Base of forget and retain objectives and regularizers. Subclasses are dataclasses with knobs for
    fields.

    The docstring's `Formula:` and `Cost:` lines stand in the method table. One with state of its own (a dual
    variable) gives and takes it as a dict of plain values, which every checkpoint holds."""

    __dataclass_fields__: ClassVar[dict[str, Field]]
    """Declared so that type checkers accept `fields`: every subclass is a dataclass."""
    layer: int
    """The block whose output it looks at. Only one that needs `reference_hidden` or `activation_norm` has
    it."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Of `reference_logprob`, `reference_logits`, `reference_hidden`, `reinforced_logits`, `activation_norm`,
    `token_ids`: what `Unlearn` provides through the reference; `double_backward`: attention that can be
    differentiated twice; and `hidden`: its loss ends at a block, so that blocks above it get no gradient."""
    parts: ClassVar[frozenset[str]] = frozenset()
    """The batch parts it reads."""
    scores_answers: ClassVar[bool] = False
    """Does it read the model through the answers of its parts alone, by `scoring`'s functions for answers?
    Then its `terms` get a `JointPass` in place of the model, and its rows share a forward pass with those of
    the other side."""
    alternates: ClassVar[str] = ""
    """What the answers of its part `alternate` are: `refusals`, `generated` or `mismatched`."""
    adds_gradient: ClassVar[bool] = False
    """Does it add an `extra_gradient` to the forget side?"""
    on_weights: ClassVar[bool] = False
    """Is its loss a function of the weights themselves? LoRA trains factors of updates to them."""
    owns_retain: ClassVar[bool] = False
    """True for a forget objective that has a retain term of its own and takes no retain objective."""
    side: ClassVar[Literal["forget", "retain"]] = "retain"
    """The side that a regularizer counts to."""

    @property
    def reads_reference(self) -> bool:
        """Does it compare with the reference model?"""
        return any("reference" in need or need == "activation_norm" for need in self.needs)

    def own_retain(self) -> "Objective | None":
        """The retain objective that a forget objective brings along; one that the method names takes its
        place."""

    def extra_terms(self) -> "tuple[Objective, ...]":
        """Regularizers that an objective brings along."""
        return ()

    def errors(self, run: RunFacts) -> Iterable[str]:
        """Reasons why its values cannot work in this run, each naming its key."""
        return ()

    def warnings(self, run: RunFacts) -> Iterable[str]:
        """What is allowed and probably not meant, each naming its key."""
        return ()

    def check(self, model) -> None:
        """UserError when it cannot be used on this model."""

    def trained(self, model) -> Sequence[str] | None:
        """Names of the parameters of the reference model that it trains; None is all."""

    def counts(self, batch: Mapping[str, Part]) -> Counts:
        """What its terms are averaged over beside the standard counts."""
        return {}

    def terms(self, model, batch: Mapping[str, Part], reference: Reference) -> dict[str, Term]:
        """Named totals over this micro-batch, with gradient. `reference` answers what `needs` asks for."""
        raise NotImplementedError

    def extra_gradient(self, step: Step) -> ExtraGradient:
        """What is added to the forget side's gradient beside that of the terms, the same on every process.
        Only one that `adds_gradient` gives any."""
        raise NotImplementedError

    def after_step(self, means: Mapping[str, float], epoch: float) -> None:
        """Called after each optimizer step with the means of all terms and the epochs done."""

    def logged(self) -> dict[str, float]:
        """State worth a column in the log."""
        return {}

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: Mapping) -> None:
        """Take back what `state_dict` gave."""


class Edit(Objective):
    """Unlearning by way of a reinforced model: by `edit` of the weights, or by training on `terms` that read
    both models."""

    owns_retain = True

    def edit(self, start: Mapping[str, Tensor], reinforced: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The unlearned weights from those of the reference model and of the reinforced one."""
        raise NotImplementedError


def section_of(objective: Objective) -> str:
    """The config section of an objective."""
    kind = type(objective)
    place = "unlearn.retain" if kind in RETAIN.values() else "unlearn"
    home = next(registry for registry in (FORGET, RETAIN, REGULARIZERS) if kind in registry.values())
    return f"{place}.{home.name_of(kind)}"
