"""Stop rules of a training as config texts: `kl=0.01`, `kl_neutral=0.01`, `holdout=0.05`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...core.files import UserError
from ...core.registry import did_you_mean

LIMITS = {"kl": float("inf"), "kl_neutral": float("inf"), "holdout": 1.0}
"""Name of a rule -> exclusive upper limit of its level."""
BUDGETS = {"kl": "retain rows", "kl_neutral": "neutral text"}
"""Rule that is a budget on the KL to the initial model -> what that is measured on."""
FORM = "a rule and its level, such as kl=0.01 or holdout=0.05"


@dataclass(frozen=True)
class StopRule:
    """When a training stops early.

    Args:
        name: `kl`: the mean KL(reference model || model) per answer token of retain rows exceeds `level`;
            `kl_neutral`: the same per token of the documents of `evaluate.neutral_text`;
            `holdout`: per-row losses of forget and holdout rows do not differ at significance `level`.
        level: Budget in nats, or a p-value.
    """

    name: str
    level: float

    def __str__(self) -> str:
        return f"{self.name}={self.level:g}"


def parse_stop_rule(text: Any) -> StopRule:
    """Read a stop rule. UserError naming what is wrong with it."""
    name, equals, level = (part.strip() for part in str(text).partition("="))
    if name in LIMITS and not equals:
        raise UserError(f"{name} needs a level")
    if name not in LIMITS:
        raise UserError(f"the rules are {', '.join(LIMITS)}{did_you_mean(name, [*LIMITS]).rstrip('?')}")
    try:
        number = float(level)
    except ValueError:
        raise UserError(f"{level!r} is not a number") from None
    if not 0 < number < LIMITS[name]:
        limits = "above 0 and below 1" if name == "holdout" else "a number above 0"
        raise UserError(f"the level of {name} must be {limits}, got {level}")
    return StopRule(name, number)


def stop_rule_text(text: Any) -> str:
    """The usual spelling of a stop rule, for `Knob.read`."""
    return str(parse_stop_rule(text))


def stop_rules(texts: Sequence[str] | None) -> dict[str, StopRule]:
    """Name -> rule, of the texts of `unlearn.stop`."""
    return {rule.name: rule for rule in map(parse_stop_rule, texts or ())}
