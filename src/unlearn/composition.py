"""The objectives of a method as one weighted sum: what a step computes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from .base import Counts, ExtraGradient, Objective, Part, Reference, Step, Term, standard_counts
from .method import Method
from .passes.joint_pass import JointPass


@dataclass(frozen=True)
class WeightedTerm:
    """A term with its weight in the loss and the side (`forget` or `retain`) it belongs to."""

    term: Term
    weight: float
    side: str


@dataclass(frozen=True)
class Composition:
    """forget_weight x forget objective + gamma x retain objective + regularizers. An objective of weight 0 is
    not computed at all."""

    forget: Objective | None
    retain: Objective | None
    regularizers: tuple[Objective, ...] = ()
    forget_weight: float = 1.0
    gamma: float = 1.0

    @property
    def active(self) -> list[tuple[str, float, Objective]]:
        """(side, weight of the side, objective) of everything that is computed."""
        sides = [("forget", self.forget_weight, self.forget), ("retain", self.gamma, self.retain)]
        sides += [(regularizer.side, 1.0, regularizer) for regularizer in self.regularizers]
        return [(side, weight, part) for side, weight, part in sides if part is not None and weight != 0]

    @property
    def parts(self) -> frozenset[str]:
        """The batch parts that some active objective reads."""
        return frozenset().union(*(objective.parts for _, _, objective in self.active))

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(objective.needs for _, _, objective in self.active))

    @property
    def logprob_parts(self) -> frozenset[str]:
        """The parts whose rows' log-probabilities under the reference model are asked for."""
        return frozenset().union(
            *(objective.parts for _, _, objective in self.active if "reference_logprob" in objective.needs)
        )

    @property
    def deepest_layer(self) -> int:
        """The last block whose output in the reference model is asked for."""
        asking = {"reference_hidden", "activation_norm"}
        return max(objective.layer for _, _, objective in self.active if asking & objective.needs)

    def check(self, model) -> None:
        """UserError when an objective cannot be used on this model."""
        for _, _, objective in self.active:
            objective.check(model)

    def trained(self, model) -> set[str] | None:
        """Names of the parameters that are trained; None is all."""
        chosen = [names for _, _, objective in self.active if (names := objective.trained(model)) is not None]
        return set().union(*chosen) if chosen else None

    @property
    def alternates(self) -> str:
        """What the answers of part `alternate` are."""
        return self.forget.alternates if self.forget else ""

    def counts(self, batch: Mapping[str, Part]) -> Counts:
        """Everything that terms can be averaged over in this micro-batch."""
        counts = standard_counts(batch)
        for _, _, objective in self.active:
            for part, more in objective.counts(batch).items():
                counts[part] |= more
        return counts

    def terms(
        self,
        model,
        batch: Mapping[str, Part],
        reference: Reference | None,
        side: str | None = None,
        relative: bool = False,
    ) -> dict[str, WeightedTerm]:
        """Every term of every active objective by name.

        Args:
            model: the model that is trained.
            batch: a micro-batch, by part.
            reference: answers what the objectives need of the reference model.
            side: the terms of this side only. An objective of the other side is computed too where it reads
                this side's rows and may have a term there (PDU, and CL with retain rows in its mean).
            relative: give weights relative to the weight of the term's side, which a combiner applies itself.
        """
        found = {}
        asked = [one for one in self.active if side in (None, one[0]) or side in one[2].parts]
        joint = JointPass(model, _scored_parts([objective for _, _, objective in asked], batch))
        for home, weight, objective in asked:
            read = joint if objective.scores_answers else model
            # `make_reference` provides what any active objective needs.
            for name, term in objective.terms(read, batch, cast(Reference, reference)).items():
                own = term.side or home
                absolute = self.gamma if own == "retain" and home == "forget" else weight
                scale = absolute / self.side_weight(own) if relative else absolute
                found[name] = WeightedTerm(term, scale * term.factor, own)
        return {name: term for name, term in found.items() if side in (None, term.side)}

    def side_weight(self, side: str) -> float:
        """The weight that a combiner gives to a side. One of weight 0 can still hold regularizers, whose own
        weight is 1."""
        return (self.forget_weight if side == "forget" else self.gamma) or 1.0

    @property
    def adds_gradient(self) -> bool:
        """Does some active objective add an extra gradient?"""
        return any(objective.adds_gradient for _, _, objective in self.active)

    def extra_gradients(self, step: Step) -> list[ExtraGradient]:
        """What active objectives add to the forget side's gradient."""
        return [objective.extra_gradient(step) for _, _, objective in self.active if objective.adds_gradient]

    def after_step(self, means: Mapping[str, float], epoch: float) -> None:
        """Pass the means of all terms of an optimizer step to every objective."""
        for _, _, objective in self.active:
            objective.after_step(means, epoch)

    def logged(self) -> dict[str, float]:
        return {name: value for _, _, objective in self.active for name, value in objective.logged().items()}

    def state_dict(self) -> dict:
        return {
            type(objective).__name__: objective.state_dict()
            for _, _, objective in self.active
            if objective.state_dict()
        }

    def load_state_dict(self, state: Mapping) -> None:
        for _, _, objective in self.active:
            if type(objective).__name__ in state:
                objective.load_state_dict(state[type(objective).__name__])


def _scored_parts(objectives: Sequence[Objective], batch: Mapping[str, Part]) -> list[Part]:
    """The parts of a batch that objectives read by their answers alone."""
    names = {name for one in objectives if one.scores_answers for name in one.parts}
    return [part for name, part in batch.items() if name in names]


def compose(
    method: Method, components: Mapping[str, Objective], forget_weight: float = 1.0, gamma: float = 1.0
) -> Composition:
    """The objective of a method, fresh, so that no state leaks from one run into another.
    `components` holds the configured objects by section, see `Method.sections`."""

    def fresh(section: str) -> Objective:
        return replace(components[section])

    forget = fresh(f"unlearn.{method.forget}") if method.forget else None
    named = fresh(f"unlearn.retain.{method.retain}") if method.retain else None
    extra_terms = forget.extra_terms() if forget else ()
    return Composition(
        forget=forget,
        retain=named or (forget.own_retain() if forget else None),
        regularizers=(*extra_terms, *(fresh(f"unlearn.{name}") for name in method.regularizers)),
        forget_weight=forget_weight,
        gamma=gamma,
    )
