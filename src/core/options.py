"""Settings as dataclass fields: one declaration gives type, default, limits and help of a config key.

    beta: float = knob(0.1, "inverse temperature", above=0)

`exec/config` turns such fields into config keys, flags, checks and help lines; no other place repeats them.
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
    """Help and limits of a setting.

    Args:
        help: Help text.
        above: Exclusive lower limit.
        below: Exclusive upper limit.
        at_least: Inclusive lower limit.
        at_most: Inclusive upper limit.
        choices: Allowed words, or a function that lists them: registries are complete only after all imports.
        path: `file`, `folder` or `file or folder`; the value is a path that must exist.
        never: A number within the limits that is not allowed.
        pattern: Regular expression that the whole text must match.
        read: Parses a given text, or raises UserError, for texts with a grammar of their own.
        form: Description of what `read` accepts, for help and errors.
        obsolete: Why the key has no effect any more; it is accepted with this warning.
    """

    help: str
    above: float | None = None
    below: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] | Callable[[], Sequence[str]] | None = None
    path: str | None = None
    never: float | None = None
    pattern: str | None = None
    read: Callable[[Any], Any] | None = None
    form: str = "a regular expression"
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
    """Declare a setting: a dataclass field with default, help text and limits.

    Args:
        default: Default value.
        help: Help text.
        limits: Further fields of `Knob`.
    """
    return field(default=default, metadata={"knob": Knob(help, **limits)})


def expression(text: Any) -> str:
    """Check a regular expression, for `Knob.read`; UserError for an invalid one."""
    try:
        return re.compile(text).pattern
    except (re.error, TypeError) as error:
        raise UserError(f"it is not a regular expression: {error}") from None
