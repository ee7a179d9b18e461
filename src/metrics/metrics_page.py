"""The tables of docs/metrics.md, one line per registered metric."""

from ..core.markdown import table
from .spec import ARROWS, METRICS, families

MARKS = ("<!-- metrics: written by src/exec/make_docs.py -->", "<!-- end of metrics -->")


def render() -> str:
    """A section per family of metrics."""
    parts = []
    for family in families():
        rows = [
            [f"`{name}`", ARROWS[found.good], found.about]
            for name, found in METRICS.items()
            if found.family == family
        ]
        head = ["metric", "good", "what it is, its range, what it does not see"]
        parts.append(f"\n## {family}\n\n{table(head, rows)}")
    return "".join(parts)
