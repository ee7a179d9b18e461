"""A dictionary of named things that answers a wrong name with the nearest right ones."""

import difflib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .files import UserError


def did_you_mean(name: str, known: Iterable[str], limit: int = 3) -> str:
    """`"; did you mean A or B?"`, or the empty string when nothing is near. Upper and lower case count as the
    same."""
    spelling = {}
    for candidate in known:
        spelling.setdefault(candidate.lower(), candidate)
    lower = name.lower()
    near = [lower] if lower in spelling else difflib.get_close_matches(lower, spelling, n=limit, cutoff=0.6)
    return f"; did you mean {' or '.join(spelling[n] for n in near)}?" if near else ""


def near_path(path: str | Path) -> str:
    """`"; did you mean A?"` for a path that is not there, each part in the nearest spelling that is there;
    else the empty string. Upper and lower case count as the same."""
    found = _nearest(Path(path).expanduser())
    return f"; did you mean {found}?" if found else ""


def _nearest(path: Path) -> Path | None:
    if os.path.exists(path):
        return path
    folder = _nearest(path.parent)
    if folder is None or not os.access(folder, os.R_OK | os.X_OK) or not folder.is_dir():
        return None
    names = {name.lower(): name for name in sorted(os.listdir(folder))}
    near = difflib.get_close_matches(path.name.lower(), names, n=1, cutoff=0.6)
    return folder / names[near[0]] if near else None


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
