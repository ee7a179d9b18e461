"""Registries of named objects, with suggestions for misspelt names."""

import difflib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .files import UserError


def did_you_mean(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Suggest names: `"; did you mean A or B?"`, or the empty string when no name is near. Case is
    ignored."""
    spelling = {}
    for candidate in known:
        spelling.setdefault(candidate.lower(), candidate)
    lower = name.lower()
    near = [lower] if lower in spelling else difflib.get_close_matches(lower, spelling, n=limit, cutoff=0.6)
    return f"; did you mean {' or '.join(spelling[n] for n in near)}?" if near else ""


def near_path(path: str | Path) -> str:
    """Suggest an existing path for a missing one: `"; did you mean A?"`, each part in its nearest existing
    spelling, or the empty string. Case is ignored."""
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
    """Name -> object, in order of registration, with aliases.

    Args:
        kind: Description of the objects, for messages.
    """

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.aliases: dict[str, str] = {}

    def register(self, name: str, *aliases: str) -> Callable:
        """Register an object under `name` and `aliases` (decorator). ValueError for a name in use."""

        def add(item):
            if self.resolve(name) in self:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self[name] = item
            self.aliases.update(dict.fromkeys(aliases, name))
            return item

        return add

    def resolve(self, name: str) -> str:
        """The registered spelling of a name or alias, ignoring case; an unknown name is returned as it is."""
        known = {key.lower(): key for key in self} | {
            alias.lower(): key for alias, key in self.aliases.items()
        }
        return known.get(name.lower(), name)

    def proper(self, name: str) -> str:
        """The registered spelling of a name or alias. UserError with near names for an unknown one."""
        proper = self.resolve(str(name))
        if proper not in self:
            near = did_you_mean(str(name), [*self, *self.aliases]) or f"; there are {', '.join(self)}"
            raise UserError(f"unknown {self.kind} {name!r}{near}")
        return proper

    def name_of(self, item: Any) -> str:
        """The name under which an object is registered."""
        return next(name for name, registered in self.items() if registered is item)

    def find(self, name: str) -> Any:
        """The object of a name or alias. UserError with near names for an unknown one."""
        return self[self.proper(name)]
