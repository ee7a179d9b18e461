"""The tables of docs/configuration.md, from the keys themselves."""

from typing import Any

from ...core.markdown import first_sentence, table
from ...core.options import Knob
from ...model.settings.run_settings import SECTIONS
from .aliases import KEY_ALIASES, OTHER_NAMES
from .checks import checker_for
from .reader import component_families, knobs_of

MARKS = ("<!-- keys: written by src/exec/make_docs.py -->", "<!-- end of keys -->")

FAMILIES = {
    "unlearn.": "Forget objectives and terms that stack",
    "unlearn.retain.": "Retain objectives",
    "unlearn.optim.": "Optimizers",
    "unlearn.flat.": "Flatness wrappers",
    "unlearn.combine.": "Gradient combiners",
}
"""Beginning of a section's name -> the heading of its family."""


def render() -> str:
    """A section per section of a config file, then per component, then the other names of keys."""
    parts = [f"\n## {name}\n\n{_section(section)}" for name, section in SECTIONS.items()]
    for place, things in component_families().items():
        keyed = {name: thing for name, thing in things.items() if list(knobs_of(thing))}
        bare = [f"`{name}`" for name in things if name not in keyed]
        parts.append(f"\n## {FAMILIES[place]}: {place}NAME\n")
        parts += [f"\n### {place}{name}\n\n{_section(thing)}" for name, thing in keyed.items()]
        parts += [f"\nWithout keys: {', '.join(bare)}.\n"] if bare else []
    parts += [
        "\n## Aliases\n\nThese names are read as our keys.\n\n",
        table(["alias", "key"], [[f"`{name}`", f"`{key}`"] for name, key in KEY_ALIASES.items()]),
        "\n## Names in other toolkits\n\nThese names are refused, and the error names our key.\n\n",
        table(["our key", "names elsewhere"], [[f"`{key}`", names] for key, names in _elsewhere().items()]),
    ]
    return "".join(parts)


def _section(section: type) -> str:
    rows = [
        [f"`{name}`", _values(kind, knob), _default(default), _meaning(knob)]
        for name, kind, knob, default in knobs_of(section)
    ]
    head = ["key", "type and limits", "default", "meaning"]
    return f"{first_sentence(section.__doc__)}\n\n{table(head, rows)}"


def _values(kind: Any, knob: Knob) -> str:
    return checker_for(kind, knob).help()


def _default(value: Any) -> str:
    """A default as a config file spells it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(f"`{item}`" for item in value) if isinstance(value, tuple) else f"`{value}`"


def _meaning(knob: Knob) -> str:
    return f"{knob.help} (accepted but unused: {knob.obsolete})" if knob.obsolete else knob.help


def _elsewhere() -> dict[str, str]:
    """Our key -> its names in other toolkits."""
    names: dict[str, list[str]] = {}
    for theirs, ours in OTHER_NAMES.items():
        names.setdefault(ours.partition(",")[0], []).append(f"`{theirs}`")
    return {ours: ", ".join(theirs) for ours, theirs in sorted(names.items())}
