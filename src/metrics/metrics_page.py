"""The declarations of all metrics as text: the tables of docs/metrics.md, and lines for the help."""

import sys

from ..core.markdown import first_sentence, table
from .glossary import GLOSSARY
from .spec import ARROWS, METRICS, About, families

MARKS = ("<!-- metrics: written by src/exec/make_docs.py -->", "<!-- end of metrics -->")
HEAD = ("metric", "formula", "range", "blind spot", "source")


def render() -> str:
    """A table of the families, one of words, then a section for each family."""
    names = [[f"[{family}](#{family})", summary(family)] for family in families()]
    words = table(["word", "what it is"], GLOSSARY.items())
    return f"\n## Families\n\n{table(['family', 'what it measures'], names)}\n## Words\n\n{words}" + "".join(
        map(_section, families())
    )


def _section(family: str) -> str:
    """A family's table, with a row per declaration, and how other toolkits differ."""
    shared = by_declaration(family)
    rows = [
        [_marked(keys), about.formula, about.range, about.blind_spot, about.source]
        for about, keys in shared.items()
    ]
    return f"\n## {family}\n\n{summary(family)}\n\n{table(HEAD, rows)}{_other_toolkits(shared)}"


def _other_toolkits(shared: dict[About, list[str]]) -> str:
    """A list of what differs elsewhere, once for all metrics of which it is said."""
    differing: dict[str, list[str]] = {}
    for about, keys in shared.items():
        if about.other_toolkits:
            differing.setdefault(about.other_toolkits, []).extend(f"`{key}`" for key in keys)
    lines = [f"- {', '.join(keys)}: {text}\n" for text, keys in differing.items()]
    return f"\nOther toolkits:\n\n{''.join(lines)}" if lines else ""


def _marked(keys: list[str]) -> str:
    """Names of metrics, each with the direction in which it gets better."""
    return ", ".join(f"`{key}` {ARROWS[METRICS[key].good]}" for key in keys)


def by_declaration(family: str) -> dict[About, list[str]]:
    """Declaration -> the metrics of a family that share it, in order of registration."""
    shared: dict[About, list[str]] = {}
    for key, found in METRICS.items():
        if found.family == family:
            # Moved to the end: what reads the figures of several metrics, as an AUC does, stands behind them.
            shared[found.about] = [*shared.pop(found.about, []), key]
    return shared


def summary(family: str) -> str:
    """What a family measures: the first sentence of the module of that name, or else of the first module that
    registers one of its metrics."""
    modules = [found.compute.__module__ for found in METRICS.values() if found.family == family]
    home = next((name for name in modules if name.rpartition(".")[2] == family), modules[0])
    return first_sentence(sys.modules[home].__doc__)
