"""The declarations of all metrics as text: the tables of docs/metrics.md, and lines for the help."""

import sys

from ..core.markdown import first_sentence, table
from .spec import ARROWS, METRICS, About, families

MARKS = ("<!-- metrics: written by src/exec/make_docs.py -->", "<!-- end of metrics -->")
HEAD = ("metric", "formula", "range", "blind spot", "source")


def render() -> str:
    """A table of the families, then a section for each of them."""
    names = [[f"[{family}](#{family})", summary(family)] for family in families()]
    return f"\n## Families\n\n{table(['family', 'what it measures'], names)}" + "".join(
        map(_section, families())
    )


def _section(family: str) -> str:
    """A family's table, with a row per declaration, and how other toolkits differ."""
    shared = by_declaration(family)
    rows = [
        [_marked(keys), about.formula, about.range, about.blind_spot, about.source]
        for about, keys in shared.items()
    ]
    differing = [
        f"- {', '.join(f'`{key}`' for key in keys)}: {about.other_toolkits}\n"
        for about, keys in shared.items()
        if about.other_toolkits
    ]
    elsewhere = f"\nOther toolkits:\n\n{''.join(differing)}" if differing else ""
    return f"\n## {family}\n\n{summary(family)}\n\n{table(HEAD, rows)}{elsewhere}"


def _marked(keys: list[str]) -> str:
    """Names of metrics, each with the direction in which it gets better."""
    return ", ".join(f"`{key}` {ARROWS[METRICS[key].good]}" for key in keys)


def by_declaration(family: str) -> dict[About, list[str]]:
    """Declaration -> the metrics of a family that share it, in order of registration."""
    shared: dict[About, list[str]] = {}
    for key, found in METRICS.items():
        if found.family == family:
            shared.setdefault(found.about, []).append(key)
    return shared


def summary(family: str) -> str:
    """What a family measures: the first sentence of the module of that name, or else of the first module that
    registers one of its metrics."""
    modules = [found.compute.__module__ for found in METRICS.values() if found.family == family]
    home = next((name for name in modules if name.rpartition(".")[2] == family), modules[0])
    return first_sentence(sys.modules[home].__doc__)
