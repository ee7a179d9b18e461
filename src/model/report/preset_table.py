"""Table of docs/published.md: the settings of each preset of published code."""

from ...core.markdown import table
from ...unlearn.published.presets import PRESETS

MARKS = ("<!-- presets: written by src/exec/make_docs.py -->", "<!-- end of presets -->")


def render() -> str:
    """One line per preset and section."""
    rows = [
        [f"`{name}`", f"`{section}`", ", ".join(f"`{key}` {value}" for key, value in values.items())]
        for name, preset in PRESETS.items()
        for section, values in preset.items()
    ]
    return table(["preset", "section", "what it sets"], rows)
