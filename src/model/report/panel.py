"""A panel of a report, and what its HTML is made of."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...core.screen import visible


@dataclass(frozen=True)
class Panel:
    """A part of the report.

    Args:
        title: Heading.
        caption: What to read from it, one sentence.
        body: HTML; empty where there is nothing to show.
        reason: Why there is nothing to show.
    """

    title: str
    caption: str
    body: str = ""
    reason: str = ""


def text(value: Any) -> str:
    """A text for HTML: markup escaped, control codes visible."""
    return html.escape(visible(value), quote=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls within the page where it is wide. Cells are HTML already."""
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )
