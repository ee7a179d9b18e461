"""Report of one or many runs: one HTML file that needs no network and no script."""

from collections.abc import Sequence
from pathlib import Path

from ...core.files import write_text
from .finished_run import FinishedRun
from .panel import Panel, text
from .plain_reading import Reading, read
from .report_charts import Material
from .report_panels import panels
from .run_subject import what_was_run
from .svg_charts import DARK, LIGHT

HEADINGS = {
    "forgotten": "What was forgotten",
    "cost": "At what cost",
    "believe": "What to believe",
}
STYLE = """
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;line-height:1.25;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.2rem 0 .3rem;border-top:1px solid var(--grid);padding-top:1rem}
h3{font-size:1rem;margin:.2rem 0;overflow-wrap:anywhere}
p{margin:.4rem 0}
.caption{max-width:48rem}
.short{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18rem),1fr));gap:0 1.5rem}
.short ul{padding-left:1.1rem;margin:.2rem 0}
.short li{overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1rem}
figure{margin:0;min-width:0}
figcaption{font-weight:600;overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto;max-width:34rem}
figure p{max-width:34rem}
svg *{stroke-linejoin:round;stroke-linecap:butt}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{border-bottom:1px solid var(--grid);padding:.25rem .6rem;text-align:left;vertical-align:top}
th{font-weight:600}
td{white-space:nowrap}
article{border:1px solid var(--grid);border-radius:.4rem;padding:.6rem .8rem;margin:.6rem 0}
.answers{display:grid;grid-template-columns:minmax(4.5rem,max-content) 1fr;gap:.2rem .8rem;margin:0}
.answers dt{font-weight:600;overflow-wrap:anywhere;max-width:11rem}
.answers dd{margin:0;min-width:0}
.answers p{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
.meanings{columns:24rem;column-gap:2rem}
.meanings div{break-inside:avoid}
.meanings dt{font-weight:600;overflow-wrap:anywhere}
.meanings dd{margin:0 0 .5rem 1rem;overflow-wrap:anywhere}
a{color:inherit}
mark{background:none;color:inherit;font-weight:700;text-decoration:underline 2px}
.leak{border:2px solid currentColor;border-radius:.3rem;padding:0 .3rem;font-size:.85em}
code{overflow-wrap:anywhere}
summary{cursor:pointer}
@media(max-width:30rem){.answers{grid-template-columns:1fr}.answers dt{max-width:none;margin-top:.3rem}}
@media(max-width:40rem){th,td{padding:.2rem .35rem;font-size:.85rem}td{white-space:normal}}
@media print{details{display:block}}
"""


def report(material: Material, title: str) -> str:
    """The page on these runs."""
    rules = lambda colours: "".join(f"{name}:{value};" for name, value in colours.items())
    found = panels(material)
    shown = [_section(panel) for panel in found if panel.body]
    style = (
        f":root{{color-scheme:light dark;{rules(LIGHT)}}}"
        f"@media(prefers-color-scheme:dark){{:root{{{rules(DARK)}}}}}{STYLE}"
    )
    reading = read(material)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # No script runs and nothing is fetched, whatever a text may hold.
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{text(title)}</title><style>{style}</style></head><body><main>"
        f"<h1>{text(title)}</h1>{_subject(material)}{_short_version(reading)}"
        f"{''.join(shown)}{_missing(found, reading)}"
        "</main></body></html>\n"
    )


def _subject(material: Material) -> str:
    """What was run, where all runs have the same: the initial model, the method, the rows."""
    lines = [*what_was_run(material)]
    if material.retain:
        lines.append("The retain model is one that was trained without the rows to forget: the goal.")
    return "".join(f'<p class="caption">{text(line)}</p>' for line in lines)


def _short_version(reading: Reading) -> str:
    parts = [
        f"<div><h2>{heading}</h2>{_list(getattr(reading, name))}</div>" for name, heading in HEADINGS.items()
    ]
    return f'<div class="short">{"".join(parts)}</div>'


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>"


def _section(panel: Panel) -> str:
    left_out = (
        f'<p class="caption"><small>Not here: {text(panel.reason)}.</small></p>' if panel.reason else ""
    )
    return (
        f'<section><h2>{text(panel.title)}</h2><p class="caption">{text(panel.caption)}</p>'
        f"{panel.body}{left_out}</section>"
    )


def _missing(found: Sequence[Panel], reading: Reading) -> str:
    absent = [f"{panel.title}: {panel.reason}." for panel in found if not panel.body]
    return f"<section><h2>What was not measured</h2>{_list([*reading.unmeasured, *absent])}</section>"


def report_title(runs: Sequence[FinishedRun]) -> str:
    """The title of a report on these runs."""
    if len(runs) > 1:
        return f"{len(runs)} runs"
    run = runs[0]
    rows = run.setting("dataset.forget_dataset_name")
    return f"{run.title}: {run.method or 'evaluation'}" + (f" on {rows}" if rows else "")


def write_report(path: Path, material: Material, title: str = "") -> Path:
    """Write the report of these runs to one HTML file."""
    write_text(path, report(material, title or report_title(material.runs)))
    return path
