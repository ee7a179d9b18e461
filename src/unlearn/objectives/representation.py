"""Objectives on the output of one decoder block: what is to be forgotten is steered to a fixed random
direction, what is to be kept is held to the reference model's activations. Every forward ends at that block.

    RMU     steering(forget) + gamma * matching(retain)                    arXiv:2403.03218
    R2MU    RMU + alpha * steering(traces) + beta * matching(reasoning)    arXiv:2506.12963

    paper    here                             in the released code
    c        unlearn.R2MU.steering_coeff      --steering_coeffs
    gamma    unlearn.gamma                    --alpha
    alpha    unlearn.R2MU.alpha               (1)
    beta     unlearn.R2MU.beta                --assist_loss
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from ...core.files import UserError
from ...core.likelihood import IGNORE
from ...core.options import expression, knob
from ..base import FORGET, REGULARIZERS, RETAIN, Counts, Objective, Part, Term, batch_mean, section_of
from ..blocks import block_numbers, blocks, check_layer, hidden

POSITIONS = ("attended", "labels", "all")
DIRECTION_SEED = 0
TUNED_BLOCKS = 3
"""RMU trains the hooked block and the two below it."""


def chosen(part: Part, positions: str) -> Tensor:
    """The positions of a part that count, [B, T]: what attention reaches, or what has a label."""
    return part["attention_mask"].bool() if positions == "attended" else part["labels"] != IGNORE


def shares(part: Part) -> Tensor:
    """The weight of each row of a part, [B]: 1, or 1 / N where N rows go with one leading row."""
    owner = part.get("owner")
    if owner is None:
        return torch.ones(len(part["labels"]), device=part["labels"].device)
    return 1.0 / torch.bincount(owner)[owner]


@lru_cache(maxsize=8)
def unit_vector(kind: str, size: int, seed: int) -> Tensor:
    """A random unit vector, [size]: `gaussian` is uniform over the sphere, `uniform` over its positive
    part."""
    generator = torch.Generator().manual_seed(seed)
    vector = (
        torch.randn(size, generator=generator)
        if kind == "gaussian"
        else torch.rand(size, generator=generator)
    )
    return vector / vector.norm()


@dataclass(frozen=True)
class Representation(Objective):
    """Base: squared distances of one block's output from a target, and what they are averaged over."""

    layer: int = knob(2, "block whose output is compared, counted from 0", at_least=0)
    positions: str = knob(
        "attended",
        "tokens that count: attended, those with labels, or all with padding (released code)",
        choices=POSITIONS,
    )
    reduction: str = knob(
        "tokens", "one mean over tokens, or of each row and then over rows", choices=("tokens", "rows")
    )
    norm: str = knob(
        "mean",
        "mean over hidden units of the squared differences, or their sum (squared L2)",
        choices=("mean", "sum"),
    )

    def check(self, model):
        check_layer(model, self.layer, f"{section_of(self)}.layer")

    def counts(self, batch):
        return {name: self._counts(batch[name], self.positions) for name in self.parts}

    def distance(
        self, name: str, part: Part, states: Tensor, targets: Tensor, positions: str, factor: float = 1.0
    ) -> Term:
        """The term for a part: its states [B, T, D] against targets that broadcast to them."""
        squares = (states.float() - targets.float()) ** 2
        error = squares.mean(-1) if self.norm == "mean" else squares.sum(-1)
        if positions == "all":
            return replace(batch_mean(error, name, part), factor=factor)
        where = chosen(part, positions)
        rows = torch.where(where, error, 0.0).sum(-1)
        if self.reduction == "rows":
            rows = rows / where.sum(-1).clamp(min=1)
        return Term((rows * shares(part)).sum(), name, self._over(positions), factor=factor)

    def _counts(self, part: Part, positions: str) -> dict[str, Tensor]:
        """What `distance` is averaged over."""
        if positions == "all":
            return {}
        tokens = chosen(part, positions).sum(-1)
        return {
            self._over(positions): (
                (shares(part) * (tokens if self.reduction == "tokens" else tokens > 0)).sum()
            )
        }

    def _over(self, positions: str) -> str:
        return f"{positions} {self.reduction}"

    def matching(self, model, name: str, part: Part, reference, factor: float = 1.0) -> Term:
        """Distance of a part's states from the reference model's."""
        ask = reference.padded_hidden if self.positions == "all" else reference.hidden
        return self.distance(
            name, part, hidden(model, part, self.layer), ask(name, part, self.layer), self.positions, factor
        )


@RETAIN.register("EMBED", "EMBED_DIFF")
@dataclass(frozen=True)
class EMBED(Representation):
    """Activation matching (RMU's retain term, arXiv:2403.03218): squared distance of one block's output from
    the reference model's, by default the mean over attended retain tokens and hidden units.

    Formula: (h - h_ref)² on retain rows, mean over tokens and units
    Cost: one forward and backward over the retain rows up to the block, one such forward of the reference
    model (cached while rows come again)."""

    needs = frozenset({"reference_hidden", "hidden"})
    parts = frozenset({"retain"})

    def terms(self, model, batch, reference):
        return {"retain_embed": self.matching(model, "retain", batch["retain"], reference)}


@REGULARIZERS.register("CoT")
@dataclass(frozen=True)
class CoT(Representation):
    """Reasoning kept (R2MU's CoT term, arXiv:2506.12963): activation matching on reasoning about other things
    (`dataset.cot_dataset_name`).

    Formula: β (h - h_ref)² on reasoning, mean over tokens and units
    Cost: as EMBED, over the reasoning rows."""

    positions: str = knob(
        "labels",
        "tokens that count: the reasoning alone (labels), its question too (attended), or all with padding "
        "(released code)",
        choices=POSITIONS,
    )
    weight: float = knob(1.0, "weight of the term", at_least=0)
    needs = frozenset({"reference_hidden", "hidden"})

    @property
    def parts(self):
        return frozenset({"cot"} if self.weight else ())

    def terms(self, model, batch, reference):
        return (
            {"cot": self.matching(model, "cot", batch["cot"], reference, self.weight)} if self.weight else {}
        )


@FORGET.register("RMU")
@dataclass(frozen=True)
class RMU(Representation):
    """Representation misdirection (Li et al., arXiv:2403.03218): one block's output on the forget rows is
    driven to c·u, u a fixed random unit vector. Its retain term is EMBED at the same block with weight
    `unlearn.gamma`; a suffix (`RMU+KL`) replaces it. Only the parameters that are named here are trained.

    Formula: (h - c u)² on forget + γ (h - h_ref)² on retain, means over tokens and units
    Cost: forward and backward over forget and retain rows up to the block, one such forward of the
    reference model over the retain rows (cached while rows come again)."""

    steering_coeff: float = knob(6.5, "c, the length of the target; depends on the model", above=0)
    steering: str = knob(
        "absolute",
        "is c a length, or a multiple of the median norm of the block's output on forget tokens",
        choices=("absolute", "relative"),
    )
    direction: str = knob(
        "gaussian",
        "u: any direction, or one with positive components only (released code)",
        choices=("gaussian", "uniform"),
    )
    train_layers: tuple[int, ...] | None = knob(
        None, "blocks that are trained; the default is the hooked one and the two below it", at_least=0
    )
    train_parameters: str = knob(
        r"mlp\.down_proj\.weight",
        "regular expression: of these blocks, parameters whose name it finds",
        read=expression,
    )
    parts = frozenset({"forget"})

    @property
    def needs(self):
        return frozenset({"hidden", "activation_norm"} if self.steering == "relative" else {"hidden"})

    def own_retain(self):
        return EMBED(self.layer, self.positions, self.reduction, self.norm)

    def terms(self, model, batch, reference):
        return {"steering": self.steered(model, "forget", batch["forget"], reference, self.positions)}

    def steered(self, model, name: str, part: Part, reference, positions: str, factor: float = 1.0) -> Term:
        """Distance of a part's states from c u."""
        states = hidden(model, part, self.layer)
        scale = reference.activation_norm(self.layer) if self.steering == "relative" else 1.0
        target = (
            scale
            * self.steering_coeff
            * unit_vector(self.direction, states.shape[-1], DIRECTION_SEED).to(states.device)
        )
        return self.distance(name, part, states, target, positions, factor)

    def trained(self, model) -> Sequence[str]:
        section, names = section_of(self), block_numbers(model)
        layers = self.train_layers or range(max(0, self.layer - TUNED_BLOCKS + 1), self.layer + 1)
        if missing := [layer for layer in layers if layer not in names.values()]:
            raise UserError(
                f"{section}.train_layers {missing[0]} does not exist: the model has {len(blocks(model))}"
                " blocks, counted from 0"
            )
        useless = [layer for layer in layers if layer > self.layer]
        if useless:
            raise UserError(
                f"{section}.train_layers: block {useless[0]} has no influence on the output of"
                f" {section}.layer {self.layer}"
            )
        found = [
            name
            for name, number in names.items()
            if number in layers and re.search(self.train_parameters, name)
        ]
        if not found:
            here = dict.fromkeys(
                re.sub(r".*?\.\d+\.", "", name, count=1) for name, number in names.items() if number in layers
            )
            raise UserError(
                f"{section}.train_parameters: no parameter of blocks {', '.join(map(str, layers))} has "
                f"{self.train_parameters!r} in its name; a block has {', '.join(here)}"
            )
        return found


@FORGET.register("R2MU-v0", "R2MU_v0")
@dataclass(frozen=True)
class R2MUv0(RMU):
    """R2MU without its CoT term: the reasoning traces of the forget rows (`dataset.traces`) are steered too,
    and nothing holds the ability to reason, which the paper finds destroyed.

    Formula: RMU + α (h - c u)² on traces, each of the N traces of a row counting 1/N
    Cost: as RMU, with another forward and backward over the traces up to the block."""

    alpha: float = knob(1.0, "weight of the term on traces; 0 is RMU", at_least=0)
    trace_positions: str = knob(
        "labels",
        "tokens of a trace that count: the trace alone (labels), its context too (attended), or all "
        "with padding (released code)",
        choices=POSITIONS,
    )

    @property
    def parts(self):
        return frozenset({"forget", "traces"} if self.alpha else {"forget"})

    def counts(self, batch) -> Counts:
        found = {"forget": self._counts(batch["forget"], self.positions)}
        return found | ({"traces": self._counts(batch["traces"], self.trace_positions)} if self.alpha else {})

    def terms(self, model, batch, reference):
        found = super().terms(model, batch, reference)
        if self.alpha:
            found["unthink"] = self.steered(
                model, "traces", batch["traces"], reference, self.trace_positions, self.alpha
            )
        return found


@FORGET.register("R2MU")
@dataclass(frozen=True)
class R2MU(R2MUv0):
    """Reasoning-aware representation misdirection (arXiv:2506.12963): RMU, with the reasoning traces of the
    forget rows steered too and the reasoning about other things (`dataset.cot_dataset_name`) held to the
    reference model.

    Formula: RMU + α (h - c u)² on traces + β (h - h_ref)² on reasoning
    Cost: as R2MU-v0, with another forward and backward over the reasoning rows up to the block, and one
    such forward of the reference model (cached while rows come again)."""

    beta: float = knob(1.0, "weight of the term on reasoning; 0 is R2MU-v0", at_least=0)

    def warnings(self, run):
        if self.beta == 0:
            yield "unlearn.R2MU.beta is 0, which is R2MU-v0: nothing holds the ability to reason"

    def extra_terms(self):
        return (
            (CoT(self.layer, self.trace_positions, self.reduction, self.norm, self.beta),)
            if self.beta
            else ()
        )
