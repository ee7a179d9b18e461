"""Settings as dataclass fields: one declaration gives the type, the default, the limits and the help of a
key.

    beta: float = knob(0.1, "inverse temperature", above=0)

`exec/settings.py` turns such fields into config keys, flags, checks and help lines; no other place repeats
them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .files import UserError

Condition = tuple
"""A key, then the values under which the condition holds."""


@dataclass(frozen=True)
class Knob:
    """What is known of a setting beside its type and default."""

    help: str
    above: float | None = None
    below: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] | Callable[[], Sequence[str]] | None = None
    """Allowed words, or a function that lists them when they are asked for."""
    path: str | None = None
    """`file`, `folder` or `file or folder`: the value is a path that must exist."""
    never: float | None = None
    """A number that is not allowed although the limits allow it."""
    pattern: str | None = None
    """A regular expression that the whole text must match."""
    read: Callable[[Any], Any] | None = None
    """Turns what was given into the proper value, or raises a UserError: for texts with a grammar of their
    own."""
    form: str = "a regular expression"
    """What `read` takes, for help and errors."""
    obsolete: str = ""
    """Why the key does nothing any more: it is accepted, with this as a warning."""
    only_if: Condition | Sequence[Condition] = ()
    """Where the key has an effect: (another key or a fact of the run, its values ...), or several of these,
    of which one must hold. A callable value is a predicate. Set elsewhere, the key is reported as unused."""
    transport: bool = False
    """It decides how a result is fetched (speed, price, retries), not what it is: no part of a cache key."""
    resumable: bool = False
    """It may differ when a file that it takes part in writing is continued."""


def conditions(only_if: Condition | Sequence[Condition]) -> list[Condition]:
    """The alternatives of `Knob.only_if`, one or several."""
    single = isinstance(only_if, tuple)
    return [only_if] if single and only_if else [*only_if]


def knob(default: Any, help: str, **limits: Any) -> Any:
    """A dataclass field with its help text and limits; the keywords are the fields of `Knob`."""
    return field(default=default, metadata={"knob": Knob(help, **limits)})


def expression(text: Any) -> str:
    """A regular expression, for `Knob.read`; UserError when it is none."""
    try:
        return re.compile(text).pattern
    except (re.error, TypeError) as error:
        raise UserError(f"it is not a regular expression: {error}") from None
