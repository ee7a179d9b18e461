"""Durations of a training: `1 epoch`, `0.5 epochs`, `20 steps`."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .files import UserError

FORM = "a duration with its unit, such as '1 epoch', '0.5 epochs' or '20 steps'"


@dataclass(frozen=True)
class Duration:
    """A positive number of epochs, exact, or of optimizer steps, whole."""

    amount: Fraction
    unit: str
    """`epoch` or `step`."""

    def __str__(self) -> str:
        amount = str(self.amount) if self.amount.denominator == 1 else f"{float(self.amount):.12g}"
        return f"{amount} {self.unit}{'' if self.amount == 1 else 's'}"


def parse_duration(text: Any) -> Duration:
    """Read a duration. UserError naming what is wrong with it."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(epoch|step)s?\s*", text) if isinstance(text, str) else None
    if not found:
        raise UserError("it needs a number and a unit")
    amount, unit = Fraction(found[1]), found[2]
    if amount == 0:
        raise UserError("it must be above 0")
    if unit == "step" and amount.denominator > 1:
        raise UserError("steps are whole")
    return Duration(amount, unit)


def duration_text(text: Any) -> str:
    """The usual spelling of a duration, for `Knob.read`."""
    return str(parse_duration(text))
