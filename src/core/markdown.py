"""Pieces of the generated pages and of the help."""

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. Bars, line breaks and angle brackets within cells are escaped."""
    lines = [head, ["---"] * len(head), *([_cell(text) for text in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def first_sentence(doc: str | None) -> str:
    """What something is about: its docstring up to the first full stop that ends a sentence."""
    paragraph = " ".join((doc or "").strip().partition("\n\n")[0].split())
    return re.split(r"(?<=[.])(?<!al\.) (?=[A-Z])", paragraph)[0]


def _cell(text: str) -> str:
    pieces = text.split("`")
    # Outside code `<file>` would be taken for an HTML tag and not be shown.
    pieces[::2] = [piece.replace("<", "\\<") for piece in pieces[::2]]
    return "`".join(pieces).replace("|", "\\|").replace("\n", "\\n")
