"""Help on metrics: `--help METRIC`, `--help FAMILY` and `--help metrics`."""

import shutil
import textwrap
from collections.abc import Iterable
from dataclasses import fields

from ..metrics import METRICS, families
from ..metrics.metrics_page import by_declaration, summary

EVERY = "metrics"
"""Topic that lists all families."""
MARGIN = 18


def metric_help(topic: str) -> str | None:
    """Help on a metric, on a family or on all families, in any case; None when the topic is none of them."""
    name = topic.lower()
    if name == EVERY:
        lines = _lines((family, summary(family)) for family in families())
        return (
            "families of metrics (--help FAMILY lists the metrics of one, --help METRIC is about one):\n"
            f"{lines}"
        )
    if family := next((known for known in families() if known.lower() == name), None):
        return _family(family)
    key = METRICS.resolve(topic)
    return _metric(key) if key in METRICS else None


def metric_topics() -> list[str]:
    """Everything that `metric_help` knows."""
    return [EVERY, *families(), *METRICS, *METRICS.aliases]


def _metric(key: str) -> str:
    """All of a metric's declaration."""
    found = METRICS[key]
    parts = [("better", found.good), ("family", found.family)]
    for item in fields(found.about):
        if text := getattr(found.about, item.name):
            parts.append((item.name.replace("_", " "), text))
    return f"{key}\n{_lines(parts)}"


def _family(family: str) -> str:
    """The formula of each metric of a family, once for those that share it."""
    listed = []
    for about, keys in by_declaration(family).items():
        names = [f"{key} ({METRICS[key].good})" for key in keys]
        listed += [textwrap.fill(", ".join(names), _width()), _indented(about.formula, 4)]
    head = textwrap.fill(f"{summary(family)} Up or down is better; --help METRIC has the rest.", _width())
    return "\n".join([head, *listed]) + "\n"


def _lines(parts: Iterable[tuple[str, str]]) -> str:
    """Names and texts in two columns."""
    return "".join(_indented(f"{name:<{MARGIN - 4}}  {text}", MARGIN, "  ") + "\n" for name, text in parts)


def _indented(text: str, margin: int, first: str | None = None) -> str:
    """A text wrapped to the screen, its first line behind `first`, or else behind the margin too."""
    start = " " * margin if first is None else first
    return textwrap.fill(text, _width(), initial_indent=start, subsequent_indent=" " * margin)


def _width() -> int:
    return max(60, shutil.get_terminal_size().columns - 2)
