"""Strict value checkers for fastargs, and the rule by which a dataclass field gets its checker.

Each takes what a JSON file or a command line can hold and returns the proper value, or raises ValueError
saying what it expected. `check` of a value that was already checked returns it unchanged.
"""

import math
import re
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

from fastargs.validation import Checker

from ...core.files import UserError
from ...core.options import Knob
from ...core.registry import did_you_mean, near_path

LISTED = 12
"""Choices that are all listed in messages."""

TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")


class Flag(Checker):
    """true/false, yes/no, 1/0 in any case, and JSON booleans."""

    def check(self, value):
        word = str(value).lower()
        if isinstance(value, bool | int | str) and word in (*TRUE, *FALSE):
            return word in TRUE
        raise ValueError(self.help())

    def help(self):
        return "true or false"


class Limited(Checker):
    """Shared by numbers: limits from the field."""

    word: str

    def __init__(self, knob: Knob):
        self.knob = knob

    def _within(self, number):
        bounds = [
            (self.knob.above, lambda a: number > a),
            (self.knob.below, lambda a: number < a),
            (self.knob.at_least, lambda a: number >= a),
            (self.knob.at_most, lambda a: number <= a),
        ]
        if number == self.knob.never or any(
            limit is not None and not holds(limit) for limit, holds in bounds
        ):
            raise ValueError(self.help())
        return number

    def help(self):
        names = {
            "above": self.knob.above,
            "below": self.knob.below,
            "at least": self.knob.at_least,
            "at most": self.knob.at_most,
        }
        limits = [
            f"{name} {limit if isinstance(limit, int) else f'{limit:g}'}"
            for name, limit in names.items()
            if limit is not None
        ]
        limits += [f"not {self.knob.never:g}"] if self.knob.never is not None else []
        return " ".join([self.word, " and ".join(limits)]).strip()


class Number(Limited):
    """Finite floats."""

    word = "a number"

    def check(self, value):
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(self.help())
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise ValueError(self.help()) from None
        if not math.isfinite(number):
            raise ValueError(self.help())
        return self._within(number)


class Int(Limited):
    """Whole numbers, also as 3.0 and "1e3"; 1.9 and true are none."""

    word = "a whole number"

    def check(self, value):
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(self.help())
        try:
            number = int(value)
        except (ValueError, OverflowError):
            number = self._from_float(value)
        if isinstance(value, float) and value != number:
            raise ValueError(self.help())
        return self._within(number)

    def _from_float(self, value):
        try:
            number = float(value)
        except ValueError:
            raise ValueError(self.help()) from None
        if not math.isfinite(number) or number != int(number):
            raise ValueError(self.help())
        return int(number)


class Text(Checker):
    """Any non-empty text, or one that matches the field's pattern."""

    def __init__(self, pattern: str | None = None):
        self.pattern = pattern

    def check(self, value):
        if (
            not isinstance(value, str)
            or not value
            or (self.pattern and not re.fullmatch(self.pattern, value))
        ):
            raise ValueError(self.help())
        if "\0" in value:
            raise ValueError("a text without NUL characters")
        check_home(value)
        return value

    def help(self):
        return f"a text of the form {self.pattern}" if self.pattern else "a text"


def check_home(value: str) -> None:
    """ValueError for a path in the home of a user that there is not."""
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f"a path that exists ({value.partition('/')[0]} is nobody's home)") from None


class Read(Checker):
    """A text with a grammar of its own, read by the field's function."""

    def __init__(self, knob: Knob):
        self.knob = knob

    def check(self, value):
        assert self.knob.read, "checker_for gives this checker to fields with a function alone"
        try:
            return self.knob.read(value)
        except UserError as error:
            form = Choice(self.knob.choices).form if self.knob.choices else self.knob.form
            raise ValueError(f"{form} ({error})") from None

    def help(self):
        return Choice(self.knob.choices).help() if self.knob.choices else self.knob.form


class Choice(Checker):
    """One of a list of words, in any case; a wrong one is answered with the nearest."""

    def __init__(self, choices: Sequence[str] | Callable[[], Sequence[str]]):
        self.choices = choices

    @property
    def words(self) -> Sequence[str]:
        return self.choices() if callable(self.choices) else self.choices

    def check(self, value):
        proper = {word.lower(): word for word in self.words}
        if isinstance(value, str) and value.lower() in proper:
            return proper[value.lower()]
        near = did_you_mean(str(value), self.words).rstrip("?")
        raise ValueError(self.form + near if near else self.help())

    @property
    def form(self) -> str:
        """What is expected, without a list that is too long to be read."""
        return f"one of {', '.join(self.words)}" if len(self.words) <= LISTED else "a known name"

    def help(self):
        more = len(self.words) > LISTED
        return f"{self.form} ({', '.join(self.words[:LISTED])}, ...)" if more else self.form


class Existing(Checker):
    """A path to a file or folder that is there. Nothing is created; `~` is understood and the text kept as
    given."""

    def __init__(self, kind: str):
        self.kind = kind

    def check(self, value):
        if not isinstance(value, str) or not value:
            raise ValueError(self.help())
        check_home(value)
        path = Path(value).expanduser()
        there = {"file": path.is_file, "folder": path.is_dir, "file or folder": path.exists}[self.kind]
        try:
            found = there()
        except OSError as error:
            raise ValueError(f"{self.help()} ({error.strerror})") from None
        if not found:
            raise ValueError(self.help() + ("" if path.exists() else near_path(path).rstrip("?")))
        return value

    def help(self):
        return f"an existing {self.kind}"


class Listing(Checker):
    """A JSON list or `a,b,c`; every item is checked."""

    def __init__(self, of: Checker):
        self.of = of

    def check(self, value):
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not items:
            raise ValueError(self.help())
        return tuple(self.of.check(item.strip() if isinstance(item, str) else item) for item in items)

    def help(self):
        return f"a list: each {self.of.help()}"


class Optional(Checker):
    """null, or what the inner checker takes."""

    def __init__(self, of: Checker):
        self.of = of

    def check(self, value):
        return None if value is None else self.of.check(value)

    def help(self):
        return self.of.help()


def takes_several(checker: Checker) -> bool:
    """Does it take a list, so that a flag may be followed by several words?"""
    return isinstance(checker.of if isinstance(checker, Optional) else checker, Listing)


def checker_for(kind, knob: Knob) -> Checker:
    """The checker of a field, from its resolved type and its knob."""
    if isinstance(kind, types.UnionType) and type(None) in typing.get_args(kind):
        inner = next(arg for arg in typing.get_args(kind) if arg is not type(None))
        return Optional(checker_for(inner, knob))
    if typing.get_origin(kind) is tuple:
        return Listing(checker_for(typing.get_args(kind)[0], knob))
    if knob.read:
        return Read(knob)
    if knob.choices:
        return Choice(knob.choices)
    if knob.path:
        return Existing(knob.path)
    simple = {
        bool: lambda: Flag(),
        int: lambda: Int(knob),
        float: lambda: Number(knob),
        str: lambda: Text(knob.pattern),
    }
    return simple[kind]()
