"""Line, point and bar charts as SVG that takes its colours from the page, so that one picture serves light
and dark. Series differ in marker and dash as well as in colour."""

import io
import itertools
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from xml.sax.saxutils import escape, quoteattr

from ...core.screen import visible

INK, GRID = "#010101", "#020202"
SERIES = tuple(f"#0303{number:02x}" for number in range(1, 9))
"""Colours as matplotlib draws them; each stands for a CSS variable."""
VARIABLES = {INK: "--ink", GRID: "--grid", **{code: f"--s{n}" for n, code in enumerate(SERIES)}}
LIGHT = {
    **{"--ink": "#1b1f24", "--paper": "#ffffff", "--grid": "#c9d1d9"},
    **dict(
        zip(
            (f"--s{n}" for n in range(8)),
            ("#0b62a3", "#b84a00", "#00724f", "#9b3f7d", "#5b5fc7", "#7a6200", "#a3262f", "#4b5563"),
        )
    ),
}
DARK = {
    **{"--ink": "#e6edf3", "--paper": "#0d1117", "--grid": "#3d444d"},
    **dict(
        zip(
            (f"--s{n}" for n in range(8)),
            ("#6cb6ff", "#ffa657", "#56d3a4", "#f0a1d4", "#b9bcff", "#e3c85a", "#ff9ea5", "#b1bac4"),
        )
    ),
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MOST_POINTS = 250
"""Points of a line; a longer one is thinned, which no eye sees at the size of a chart."""
LONGEST_TICKS = 14
"""Letters of all names below an axis; more are slanted."""
SMALL, LARGE = 1e-3, 1e6
"""Axes that end outside of these have ticks such as 2e-5."""
LEAST_TICKS, MOST_TICKS = 3, 9
"""Ticks of a logarithmic axis."""
SIZE = (4.4, 3.1)
"""Inches; a chart fills a phone's width without shrinking its letters below nine pixels."""


@dataclass(frozen=True)
class Series:
    """One line or set of points.

    Args:
        label: Name in the legend; empty for none.
        x: Places on the horizontal axis.
        y: Values.
        low: Lower ends of the intervals of `y`; None without one.
        high: Upper ends.
        x_low: The same along the horizontal axis.
        x_high: The same along the horizontal axis.
        style: `line`, `points`, `steps` or `goal` (a star, and a line across at its height).
        names: A short name beside each point.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    x_low: Sequence[float | None] = ()
    x_high: Sequence[float | None] = ()
    style: str = "line"
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """A chart before it is drawn.

    Args:
        title: What is shown; also the text for those who cannot see it.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        series: What is drawn, in the order of the legend.
        ticks: Place -> name on the horizontal axis, where it is not a number.
        log_y: Whether the vertical axis is logarithmic; its label then says so.
        level: Height of a line across; None without one.
        note: What a reader should know beside the picture; empty for nothing.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    ticks: Mapping[float, str] = field(default_factory=dict)
    log_y: bool = False
    level: float | None = None
    note: str = ""


def draw(chart: Chart, name: str) -> str:
    """The chart as an inline SVG element; `name` makes its ids unique in the page."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context(cast(Any, _style(name))):
        warnings.simplefilter("ignore")  # signs that the measuring font lacks; the browser's font has them
        # Without pyplot, whose figures are global and whose import is slow.
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE)
        axis = figure.add_subplot()
        shown = [one for one in chart.series if len(one.x)]
        for number, one in enumerate(shown):
            _draw_series(axis, one, number)
        _finish(axis, chart, len([one for one in shown if one.label]))
        written = io.StringIO()
        figure.savefig(written, format="svg", bbox_inches="tight", pad_inches=0.05, metadata=NO_METADATA)
    return _themed(written.getvalue(), chart.title, name)


NO_METADATA: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def _style(name: str) -> dict[str, Any]:
    """Texts stay texts, so that they can be read out, searched and coloured."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,  # a dollar sign in a name is a dollar sign
        "font.size": 9,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": GRID,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "axes.unicode_minus": False,
    }


def _draw_series(axis, one: Series, number: int) -> None:
    colour, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
    x, y = _thinned(one.x), _thinned(one.y)
    label = visible(one.label).replace("\n", " ")[:60] or "_nolegend_"
    if label.startswith("_") and one.label:
        label = f" {label}"  # matplotlib leaves out labels that begin so
    if one.style == "goal":
        axis.axhline(y[0], color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axis.plot(x, y, "*", color=INK, markersize=13, label=label, linestyle="none")
        return
    if one.style == "steps":
        dash = DASHES[number % len(DASHES)]
        axis.step(x, y, where="post", color=colour, linestyle=dash, linewidth=1.6, label=label)
        return
    if one.style == "points":
        axis.plot(x, y, marker, color=colour, markersize=6, linestyle="none", label=label)
        _bars(axis, one, colour)
        for place, height, text in zip(x, y, one.names):
            axis.annotate(
                visible(text)[:12], (place, height), xytext=(5, 3), textcoords="offset points", fontsize=7.5
            )
        return
    marks = {"marker": marker, "markersize": 4, "markevery": max(1, len(x) // 8)}
    axis.plot(x, y, color=colour, linewidth=1.5, linestyle=DASHES[number % len(DASHES)], label=label, **marks)
    _bars(axis, one, colour)


def _bars(axis, one: Series, colour: str) -> None:
    style = {"color": colour, "linewidth": 1.1, "alpha": 0.75}
    for x, low, high in itertools.zip_longest(one.x, one.low, one.high):
        if low is not None and high is not None:
            axis.vlines(x, low, high, **style)
    for y, low, high in itertools.zip_longest(one.y, one.x_low, one.x_high):
        if low is not None and high is not None:
            axis.hlines(y, low, high, **style)


def _finish(axis, chart: Chart, labels: int) -> None:
    if chart.log_y:
        _log_ticks(axis)
    else:
        _plain_numbers(axis.yaxis)
    if chart.level is not None:
        axis.axhline(chart.level, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
    if chart.ticks:
        names = [visible(name)[:18] for name in chart.ticks.values()]
        slanted = len("".join(names)) > LONGEST_TICKS
        axis.set_xticks(
            list(chart.ticks), names, rotation=30 if slanted else 0, ha="right" if slanted else "center"
        )
    else:
        _plain_numbers(axis.xaxis)
        if all(float(x).is_integer() for one in chart.series for x in one.x):
            axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel(chart.x_label)
    axis.set_ylabel(f"{chart.y_label}, log scale" if chart.log_y else chart.y_label)
    axis.grid(True, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if labels:
        slanted = chart.ticks and len("".join(chart.ticks.values())) > LONGEST_TICKS
        below = -0.2 - (0.014 * max(map(len, chart.ticks.values())) if slanted else 0)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, below), ncol=1 if labels > 8 else 2)


def _plain_numbers(axis) -> None:
    """Ticks that are whole numbers by themselves: no offset or power of ten apart from them, which is easily
    overlooked."""
    from matplotlib.ticker import FuncFormatter, ScalarFormatter

    low, high = axis.get_view_interval()
    if SMALL <= max(abs(low), abs(high)) < LARGE:
        axis.set_major_formatter(ScalarFormatter(useOffset=False))
    else:
        axis.set_major_formatter(FuncFormatter(_number))


def _log_ticks(axis) -> None:
    """A logarithmic vertical axis with at least three ticks, whatever it spans."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.yaxis.set_major_formatter(FuncFormatter(_number))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylim(low, high)


def log_ticks(low: float, high: float) -> list[float]:
    """Three to `MOST_TICKS` places to read off between two positive numbers: powers of ten, else with 2 and 5
    times them, else at equal distances."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = [10.0**power for power in range(first, last + 1)]
    inside = lambda places: [place for place in places if low <= place <= high]
    step = next(step for step in (1, 2, 3, 5, 10, 20, 50, 100) if last - first < step * MOST_TICKS)
    # Counted from 1, which is the end of a share's or a p-value's range.
    tens = inside([10.0**power for power in range(first, last + 1) if power % step == 0])
    if len(tens) >= LEAST_TICKS:
        return tens
    halves = inside([place * factor for place in powers for factor in (1, 2, 5)])
    if len(halves) >= LEAST_TICKS:
        return halves
    from matplotlib.ticker import MaxNLocator

    return inside(MaxNLocator(MOST_TICKS - 2, steps=[1, 2, 5, 10]).tick_values(low, high))


def _number(value: float, _: object = None) -> str:
    """A number without padding: 0.05, 1e-6."""
    written = f"{value:.6g}" if value == 0 or abs(value) >= SMALL else f"{value:.5e}"
    return re.sub(r"\.?0*e([+-])0*", lambda found: "e" + found[1].strip("+"), written)


def _thinned(values: Sequence[float]) -> list[float]:
    """At most `MOST_POINTS` of the values, evenly spread, the last among them."""
    if len(values) <= MOST_POINTS:
        return list(values)
    return [values[round(n * (len(values) - 1) / (MOST_POINTS - 1))] for n in range(MOST_POINTS)]


def _themed(svg: str, title: str, name: str) -> str:
    """The element alone, with the page's colours and font and with ids of its own."""
    element = svg[svg.index("<svg") :]
    for code, variable in VARIABLES.items():
        element = element.replace(code, f"var({variable})")
    element = re.sub(r"font(-family)?: ((?:[\d.]+px )?)[^;\"]*", _plain_font, element)
    referred = set(re.findall(r"(?:url\(#|href=\"#)([\w-]+)", element))
    element = re.sub(
        r' id="([\w.-]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in referred else "", element
    )
    element = re.sub(r"(url\(#|href=\"#)([\w-]+)", rf"\g<1>{name}-\g<2>", element)
    view = re.search(r'viewBox="[^"]*"', element)
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f"<svg {spaces} {view[0] if view else ''}"
    body = re.sub(
        r"<defs>\s*<style.*?</defs>|<metadata>.*?</metadata>",
        "",
        element[element.index(">") + 1 :],
        flags=re.DOTALL,
    )
    body = re.sub(r"\n\s*", "\n", body)
    spoken = visible(title).replace("\n", " ")
    return f'{head} role="img" aria-label={quoteattr(spoken)}><title>{escape(spoken)}</title>{body.strip()}'


def _plain_font(found: re.Match) -> str:
    return f"font{found[1] or ''}: {found[2]}sans-serif"


def standalone(element: str) -> str:
    """An inline chart as a file of its own, light or dark as its reader's screen is."""
    rules = lambda colours: "".join(f"{name}:{value};" for name, value in colours.items())
    style = (
        f"<style>svg{{{rules(LIGHT)}background:var(--paper)}}"
        f"@media(prefers-color-scheme:dark){{svg{{{rules(DARK)}}}}}</style>"
    )
    head, _, rest = element.partition("</title>")
    return f"{head}</title>{style}{rest}\n"
