"""A dictionary of named things that answers a wrong name with the nearest right ones."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from core.files import UserError


def did_you_mean(name: str, known: Iterable[str], limit: int = 3) -> str:
    """`"; did you mean A or B?"`, or the empty string when nothing is near. Upper and lower case count as the
    same."""
    spelling = {}
    for candidate in known:
        spelling.setdefault(candidate.lower(), candidate)
    near = difflib.get_close_matches(name.lower(), spelling, n=limit, cutoff=0.6)
    return f"; did you mean {' or '.join(spelling[n] for n in near)}?" if near else ""


class Registry(dict[str, Any]):
    """name -> thing, in order of registration, plus aliases that lead to the same thing."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.aliases: dict[str, str] = {}

    def register(self, name: str, *aliases: str) -> Callable:
        """Decorator: file a thing under `name` and under `aliases`."""

        def add(thing):
            if self.resolve(name) in self:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self[name] = thing
            self.aliases.update(dict.fromkeys(aliases, name))
            return thing

        return add

    def resolve(self, name: str) -> str:
        """The proper spelling of a name: an alias and any mixture of upper and lower case are accepted."""
        known = {key.lower(): key for key in self} | {
            alias.lower(): key for alias, key in self.aliases.items()
        }
        return known.get(name.lower(), name)

    def proper(self, name: str) -> str:
        """The proper spelling of a name that is there; UserError with near names when there is none."""
        proper = self.resolve(str(name))
        if proper not in self:
            near = did_you_mean(str(name), [*self, *self.aliases]) or f"; there are {', '.join(self)}"
            raise UserError(f"unknown {self.kind} {name!r}{near}")
        return proper

    def name_of(self, thing: Any) -> str:
        """The name under which a thing is filed."""
        return next(name for name, filed in self.items() if filed is thing)

    def find(self, name: str) -> Any:
        """The thing of that name; UserError with near names when there is none."""
        return self[self.proper(name)]
