"""What fields of JSON records that others wrote may hold.

for place, row in read_records(path):
    check_fields(place, row, {"question": TEXT}, {"perturbed_answer": TEXTS})
"""

import json
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .files import UserError

SHOWN = 60
"""Characters of a wrong value that stand in a message."""
ROUNDING = 1e-3
"""How far a probability or a loss may lie outside its range: peers compute in bfloat16."""


@dataclass(frozen=True)
class Kind:
    """Values that a field may have: a description for messages and a test."""

    about: str
    holds: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Is it a finite number? true and false are none, nor is a whole number beyond floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def number(least: float = -math.inf, most: float = math.inf, slack: float = 0.0) -> Kind:
    """Finite numbers within limits, which are missed by at most `slack`."""
    limits = f" from {least:g} to {most:g}" if math.isfinite(most) else f" of at least {least:g}"
    about = "a finite number" + (limits if math.isfinite(least) else "")
    return Kind(about, lambda value: is_number(value) and least - slack <= value <= most + slack)


def list_of(kind: Kind) -> Kind:
    """Lists with at least one item, each of a kind."""
    return Kind(
        f"a list, each {kind.about}",
        lambda value: isinstance(value, list) and bool(value) and all(map(kind.holds, value)),
    )


def or_null(kind: Kind) -> Kind:
    """null, or what `kind` takes."""
    return Kind(f"{kind.about} or null", lambda value: value is None or kind.holds(value))


STRING = Kind("a text", lambda value: isinstance(value, str))
TEXT = Kind("a text with words in it", lambda value: isinstance(value, str) and bool(value.strip()))
TEXTS = Kind("a list of texts", list_of(TEXT).holds)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind("a whole number of at least 0", lambda value: type(value) is int and value >= 0)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
PROBABILITY = number(0, 1, ROUNDING)
LOSS = number(0, slack=ROUNDING)


def check_value(place: str, value: Any, kind: Kind, advice: str = "") -> None:
    """UserError when a value is of another kind. `place` names it; `advice` ends the message."""
    if not kind.holds(value):
        raise UserError(f"{place} must be {kind.about}, got {shown(value)}{advice}")


def check_fields(
    place: str,
    record: Mapping[str, Any],
    required: Mapping[str, Kind],
    optional: Mapping[str, Kind] | None = None,
    advice: str = "",
) -> None:
    """UserError naming place and field when a required field is missing or a field is of another kind."""
    for key, kind in required.items():
        if key not in record:
            raise UserError(f"{place}: {key!r} is missing, expected {kind.about}{advice}")
    for key, kind in {**required, **(optional or {}), **required}.items():
        if key in record:
            check_value(f"{place}: {key!r}", record[key], kind, advice)


def shown(value: Any) -> str:
    """A value in a message, on one line and cut to `SHOWN` characters."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = SHORT.repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


SHORT = reprlib.Repr()
"""Values of others may be nested so deeply that Python's own repr gives up."""
SHORT.maxlevel, SHORT.maxstring, SHORT.maxother = 3, SHOWN, SHOWN
