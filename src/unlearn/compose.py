"""Method names to objectives: `NPO+FT` is the forget objective NPO with the retain objective FT."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.files import UserError
from core.registry import did_you_mean
from unlearn.base import FORGET, RETAIN, Objective, Part, Reference, Term

ALIASES = {"GradDiff": "GA+FT", "grad_diff": "GA+FT", "npo_grad_diff": "NPO+FT", "npo_gdr": "NPO+FT", "npo_klr": "NPO+KL"}
"""Names that other toolkits give to a whole method."""


@dataclass(frozen=True)
class Method:
    """What an `unlearn_method` names: a forget objective, a retain objective, either or (for `origin`) neither trains."""

    name: str
    forget: str | None
    retain: str | None

    @property
    def sections(self) -> dict[str, type[Objective]]:
        """Config section -> class of each objective that takes part."""
        found = {}
        if self.forget:
            found[f"unlearn.{self.forget}"] = FORGET[self.forget]
        if self.retain:
            found[f"unlearn.retain.{self.retain}"] = RETAIN[self.retain]
        return found

    @property
    def trains(self) -> bool:
        return any(objective.parts for objective in self.sections.values())


def parse_method(text: str) -> Method:
    """`GA`, `NPO+FT`, `FT` (fine-tuning, no forget part), or an alias. UserError with near names otherwise."""
    if not isinstance(text, str):
        raise UserError(f"a method is a name such as NPO+FT, not {text!r}")
    lower = {alias.lower(): name for alias, name in ALIASES.items()}
    spelled = lower.get(text.lower(), text)
    head, plus, tail = spelled.partition("+")
    if not plus and RETAIN.resolve(head) in RETAIN and FORGET.resolve(head) not in FORGET:
        return Method(RETAIN.resolve(head), None, RETAIN.resolve(head))
    if FORGET.resolve(head) not in FORGET or (plus and RETAIN.resolve(tail) not in RETAIN):
        near = did_you_mean(text, method_names()) or f"; there are {', '.join(method_names())}"
        raise UserError(f"unknown method {text!r}{near}")
    forget, retain = FORGET.resolve(head), RETAIN.resolve(tail) if plus else None
    if forget == "origin" and retain:
        raise UserError(f"method {text!r}: origin trains nothing and takes no retain objective")
    return Method(f"{forget}+{retain}" if retain else forget, forget, retain)


def method_name(text: str) -> str:
    """The proper name of a method, however it was spelt."""
    return parse_method(text).name


def method_names() -> list[str]:
    """Every method, then the aliases."""
    pairs = [f"{forget}+{retain}" for forget in FORGET if forget != "origin" for retain in RETAIN]
    alone = [name for name in RETAIN if name not in FORGET]
    return [*FORGET, *alone, *pairs, *ALIASES]


@dataclass(frozen=True)
class WeightedTerm:
    """A term with its weight in the loss and the side (`forget` or `retain`) it belongs to."""

    term: Term
    weight: float
    side: str


@dataclass(frozen=True)
class Composition:
    """forget_weight x forget objective + gamma x retain objective. A part of weight 0 is not computed at all."""

    forget: Objective | None
    retain: Objective | None
    forget_weight: float = 1.0
    gamma: float = 1.0

    @property
    def active(self) -> list[tuple[str, float, Objective]]:
        sides = [("forget", self.forget_weight, self.forget), ("retain", self.gamma, self.retain)]
        return [(side, weight, part) for side, weight, part in sides if part is not None and weight != 0]

    @property
    def parts(self) -> frozenset[str]:
        """The batch parts that some active objective reads."""
        return frozenset().union(*(objective.parts for _, _, objective in self.active))

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(objective.needs for _, _, objective in self.active))

    def terms(self, model, batch: Mapping[str, Part], reference: Reference | None) -> dict[str, WeightedTerm]:
        """Every term of every active objective by name."""
        return {name: WeightedTerm(term, weight, side)
                for side, weight, objective in self.active
                for name, term in objective.terms(model, batch, reference).items()}


def compose(method: Method, components: Mapping[str, Objective], forget_weight: float = 1.0, gamma: float = 1.0) -> Composition:
    """The objective of a method. `components` holds the configured objects by section, see `Method.sections`."""
    return Composition(
        forget=components[f"unlearn.{method.forget}"] if method.forget else None,
        retain=components[f"unlearn.retain.{method.retain}"] if method.retain else None,
        forget_weight=forget_weight,
        gamma=gamma,
    )
