"""Method names: `NPO+FT` is the forget objective NPO with the retain objective FT.

FORGET[+RETAIN][+REGULARIZER...][+WRAPPER]        NPO, NPO+FT, GA+KL+L1, NPO+FT+SAM, SimNPO+FT+GAO
RETAIN[+REGULARIZER...][+WRAPPER]                 FT (fine-tuning), FT+L1
GAO[+RETAIN][...]                                 NPO+FT+GAO, with another retain objective where one is named
"""

import re
from dataclasses import dataclass

from ..core.files import UserError
from ..core.registry import did_you_mean
from .base import FORGET, REGULARIZERS, RETAIN, Edit, Objective

ALIASES = {
    "GradDiff": "GA+FT",
    "grad_diff": "GA+FT",
    "ga_gdr": "GA+FT",
    "ga_klr": "GA+KL",
    "npo_grad_diff": "NPO+FT",
    "npo_gdr": "NPO+FT",
    "npo_klr": "NPO+KL",
    "simnpo_grad_diff": "SimNPO+FT",
    "simnpo_gdr": "SimNPO+FT",
    "SimNPO_GradDiff": "SimNPO+FT",
    "simnpo_klr": "SimNPO+KL",
    "dpo_grad_diff": "DPO+FT",
    "dpo_gdr": "DPO+FT",
    "dpo_klr": "DPO+KL",
    "idk_grad_diff": "CL+FT",
    "me_gd": "ME+FT",
    "idk_ap": "CL+AP",
    "l1_sparse": "FT+L1",
    "l1sparse": "FT+L1",
}
"""Names that other toolkits give to a whole method."""

COMPOSITES = {"GAO": ("NPO", "FT", "GAO")}
"""Names of a forget objective, a retain objective and a regularizer together; a method that names a retain
objective replaces that one."""

WRAPPERS = {"SAM": "SAM", "RS": "RS", "GP": "GP", "CR": "CR", "WA": "WA", "SWA": "WA"}
"""Flatness wrappers that a method name may end in, as they are spelt; they are `unlearn.flatness` in another
place."""


@dataclass(frozen=True)
class Method:
    """What an `unlearn_method` names. `forget` or `retain` may be None; with `origin` nothing trains."""

    name: str
    forget: str | None
    retain: str | None
    regularizers: tuple[str, ...] = ()
    flatness: str | None = None

    @property
    def sections(self) -> dict[str, type[Objective]]:
        """Config section -> class of each objective that takes part."""
        found = {}
        if self.forget:
            found[f"unlearn.{self.forget}"] = FORGET[self.forget]
        if self.retain:
            found[f"unlearn.retain.{self.retain}"] = RETAIN[self.retain]
        return found | {f"unlearn.{name}": REGULARIZERS[name] for name in self.regularizers}

    @property
    def trains(self) -> bool:
        return self.forget != "origin"

    @property
    def edits(self) -> bool:
        """Does it go by way of a reinforced model?"""
        return self.forget is not None and issubclass(FORGET[self.forget], Edit)


def parse_method(text: str) -> Method:
    """`GA`, `NPO+FT`, `NPO+FT+L1+SAM`, `FT` (fine-tuning, no forget part), or an alias. UserError with near
    names or the reason why two things do not go together."""
    if not isinstance(text, str):
        raise UserError(f"a method is a name such as NPO+FT, not {text!r}")
    lower = {alias.lower(): name for alias, name in ALIASES.items()}
    first, plus, rest = text.partition("+")
    head, *tail = (lower.get(first.lower(), first) + plus + rest).split("+")
    head, default, tail = _expanded(head, tail)
    forget = FORGET.resolve(head) if FORGET.resolve(head) in FORGET else None
    retain = RETAIN.resolve(head) if forget is None and RETAIN.resolve(head) in RETAIN else None
    if not forget and not retain:
        raise _unknown(text)
    regularizers: list[str] = []
    flatness = None
    for word in tail:
        if RETAIN.resolve(word) in RETAIN and retain is None:
            retain = RETAIN.resolve(word)
        elif REGULARIZERS.resolve(word) in REGULARIZERS and REGULARIZERS.resolve(word) not in regularizers:
            regularizers.append(REGULARIZERS.resolve(word))
        elif word.upper() in WRAPPERS and flatness is None:
            flatness = WRAPPERS[word.upper()]
        elif (
            RETAIN.resolve(word) in RETAIN
            or word.upper() in WRAPPERS
            or REGULARIZERS.resolve(word) in regularizers
        ):
            raise UserError(
                f"method {text!r}: {word} is one too many; there is one retain objective, one wrapper, and"
                " each regularizer once"
            )
        else:
            raise _unknown(text)
    retain = retain or default
    method = Method(
        "+".join(filter(None, [forget, retain, *regularizers, flatness])),
        forget,
        retain,
        tuple(regularizers),
        flatness,
    )
    _check_compatibility(text, method)
    return method


def _expanded(head: str, tail: list[str]) -> tuple[str, str | None, list[str]]:
    """The forget objective of a composite, its retain objective for when none is named, and the rest of the
    words."""
    names = {name.lower(): parts for name, parts in COMPOSITES.items()}
    if head.lower() not in names:
        return head, None, tail
    forget, retain, regularizer = names[head.lower()]
    return forget, retain, [*tail, regularizer]


def _unknown(text: str) -> UserError:
    """The error for a name that is none: with the method that was meant where only the sign between its parts
    is another, else with those of nearest spelling."""
    for sign in ("+", ""):
        joined = re.sub(r"[\W_]+", sign, text).strip("+")
        if joined != text and is_method(joined):
            return UserError(f"unknown method {text!r}; did you mean {method_name(joined)}?")
    near = did_you_mean(text, method_names()) or f"; there are {', '.join([*FORGET, *COMPOSITES])}, and" + (
        f" {', '.join(RETAIN)} alone or behind one of them (NPO+FT)"
    )
    return UserError(f"unknown method {text!r}{near}")


def _check_compatibility(text: str, method: Method) -> None:
    """The compatibility table: UserError with the reason for what cannot stand together."""
    if method.forget == "origin" and (method.retain or method.regularizers or method.flatness):
        raise UserError(f"method {text!r}: origin trains nothing and cannot be combined with other terms")
    if method.edits and (method.retain or method.regularizers or method.flatness):
        raise UserError(
            f"method {text!r}: {method.forget} edits the model by way of a reinforced one and is never paired"
        )
    if method.forget and method.retain and FORGET[method.forget].owns_retain:
        raise UserError(
            f"method {text!r}: {method.forget} has a retain term of its own and takes no retain objective"
        )
    brought = (
        {type(objective) for objective in FORGET[method.forget]().extra_terms()} if method.forget else set()
    )
    twice = [name for name in method.regularizers if REGULARIZERS[name] in brought]
    if twice:
        raise UserError(f"method {text!r}: {method.forget} has a {twice[0]} term of its own")
    if method.flatness and not method.forget and method.flatness != "WA":
        raise UserError(f"method {text!r}: {method.flatness} flattens the forget loss, and there is none")


def method_name(text: str) -> str:
    """The proper name of a method, however it was spelt."""
    return parse_method(text).name


def is_method(text: str) -> bool:
    try:
        return bool(parse_method(text))
    except UserError:
        return False


def method_names() -> list[str]:
    """Every method but for regularizers and wrappers, then the aliases."""
    pairs = [
        f"{forget}+{retain}"
        for forget, kind in FORGET.items()
        if forget != "origin" and not kind.owns_retain
        for retain in RETAIN
    ]
    alone = [name for name in RETAIN if name not in FORGET]
    return [*FORGET, *alone, *pairs, *COMPOSITES, *ALIASES]
