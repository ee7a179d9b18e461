"""The panels of a report as HTML. Every text that a model, a row or a setting holds goes through `text`."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...metrics.glossary import words_in
from ...metrics.spec import METRICS
from . import report_charts as charts
from .answer_panels import forgotten_answers, kept_answers
from .comparison import reason_lines
from .finished_run import FinishedRun
from .grid_table import short
from .panel import Panel, table, text
from .plain_reading import figure
from .report_charts import Material, named
from .svg_charts import Chart, draw

SETTINGS_LEFT_OUT = ("logger.", "overall.quiet", "overall.cache_dir", "overall.seed", "dataset.dataset_seed")
DEAD = ("generation.", "traces.", "paraphrases.", "mask.", "judge.", "benchmarks.")
"""Sections that are shown for a single run only where a run is compared with others."""


def panels(material: Material) -> list[Panel]:
    """Every panel, in the order of the report."""
    return [build(material) for build in PANELS]


def _figures(material: Material) -> Panel:
    keys = [*material.keys]
    head = ["", "run", "method", *map(named, keys), "training", "memory"]
    rows = []
    for number, run in enumerate(material.runs, 1):
        seconds, memory = run.environment.get("train_seconds"), run.environment.get("peak_memory_mb")
        cells = [text(figure(run, key)) for key in keys]
        rows.append(
            [
                str(number),
                text(run.title),
                text(run.method or "–"),
                *cells,
                f"{seconds:.0f} s" if seconds else "–",
                f"{memory} MB" if memory else "–",
            ]
        )
    before = next(
        (run for run in material.runs if any(run.before.get(key) is not None for key in keys)), None
    )
    if before:
        cells = [_short(before.before.get(key)) for key in keys]
        rows.append(["", "before unlearning", "", *cells, "", ""])
    if material.retain:
        rows.append(
            ["", "retain model (the goal)", "", *[_short(material.retain.get(k)) for k in keys], "", ""]
        )
    more = (
        '<p class="caption"><a href="#words">Words</a> such as greedy or ROUGE-L are explained below.</p>'
        if words_in(map(_definition, keys))
        else ""
    )
    compare = (
        "Compare each run with the retain model, which never saw the rows, and not with 0; an arrow is the"
        " direction that is good as far as the retain model's value."
        if material.retain
        else "Compare each run with the model before unlearning: there is no retain model here."
    )
    return Panel(
        "The figures that decide",
        f"{compare} Brackets are 95 % intervals over rows, by bootstrap (exact binomial where all rows"
        " agree). The number before a run names it in the charts.",
        table(head, rows) + _definitions(keys) + more,
    )


def _definitions(keys: Sequence[str], places: Mapping[str, str] = {}) -> str:
    """What the figures are, in which range, and what they cannot see; figures with one declaration together.

    Args:
        keys: the figures.
        places: figure -> id of its definition, for links to it.
    """
    shared: dict[str, list[str]] = {}
    for key in keys:
        shared.setdefault(_definition(key), []).append(key)
    entries = []
    for definition, members in shared.items():
        place = f' id="{places[members[0]]}"' if members[0] in places else ""
        entries.append((f"<dt{place}>{text(', '.join(map(named, members)))}</dt>", definition))
    return _meanings(entries)


def _meanings(entries: Sequence[tuple[str, str]]) -> str:
    """A list of names, HTML already, and what they mean."""
    listed = "".join(f"<div>{name}<dd>{text(meaning)}</dd></div>" for name, meaning in entries)
    return f'<dl class="meanings">{listed}</dl>' if listed else ""


def _words(keys: Sequence[str]) -> str:
    """The words of the definitions that not every reader knows."""
    found = words_in(map(_definition, keys)).items()
    listed = _meanings([(f"<dt>{text(word)}</dt>", f"{meaning}.") for word, meaning in found])
    return f'<h3 id="words">Words</h3>{listed}' if listed else ""


def _definition(key: str) -> str:
    if key in METRICS:
        about = METRICS[key].about
        return f"{about.formula}. Range: {about.range}. Blind spot: {about.blind_spot}."
    if key.startswith("lm_eval/"):
        return "As lm-evaluation-harness computes the figure of that name on the task of that name."
    return "Not declared by this version, which did not measure it."


def _places(keys: Sequence[str]) -> dict[str, str]:
    """Figure -> id of its definition."""
    numbers: dict[str, int] = {}
    return {key: f"figure{numbers.setdefault(_definition(key), len(numbers))}" for key in keys}


def _frontier(material: Material) -> Panel:
    goal = (
        "The star is the retain model. A good run is beside it: as high or low on the vertical axis, as far"
        " right."
        if material.retain
        else "A good run has moved far along the vertical axis and not to the left."
    )
    return _of_charts(
        "Forgetting against utility",
        f"{goal} Lines are 95 % intervals over rows.",
        [charts.frontier(material, False), charts.frontier(material, True)]
        + ([charts.published_frontier(material.published)] if material.published else []),
    )


def _training(material: Material) -> Panel:
    return _of_charts(
        "Loss terms and gradients",
        "Terms that still fall at the end would go on with more steps; a jump is often a step too large."
        " The cosine is that of the two sides' gradients: below 0 they pull in opposite directions, near 0"
        " they hardly touch.",
        [*(charts.terms(run) for run in material.firsts.values()), charts.cosines(material)],
    )


def _while_training(material: Material) -> Panel:
    return _of_charts(
        "Evaluations while training",
        "Where forgetting stops and utility still falls, the rest of the training only costs.",
        [one for run in material.firsts.values() for one in charts.while_training(run)],
    )


def _ratios(material: Material) -> Panel:
    return _of_charts(
        "Truth ratios against the retain model",
        "Forget quality tests the largest vertical distance (D) between a run's curve and the retain model's:"
        " the nearer the curves, the more the model behaves like one that never saw the rows.",
        [charts.ratios(material)],
    )


def _weights(material: Material) -> Panel:
    found = charts.weights(material)
    return _of_charts(
        "Change of the weights per layer",
        "Where the method changed the model. A stable rank near 1 is a change along one direction, a high one"
        " is spread over many. Vectors, such as norms, have none.",
        [found] if isinstance(found, str) else [*found],
    )


def _decoding(material: Material) -> Panel:
    return _of_charts(
        "Leak by decoding mode",
        "One mode may hide what another gives away; the highest value counts.",
        [charts.decoding(material)],
    )


def _robustness(material: Material) -> Panel:
    return _of_charts(
        "Robustness",
        "A curve that rises shows facts that are hidden, not gone.",
        [charts.sampled(material), charts.wordings(material), charts.lengths(material)],
    )


def _of_charts(title: str, caption: str, found: Sequence[Chart | str]) -> Panel:
    """A panel of charts; those that are not there are reasons."""
    drawn = [one for one in found if isinstance(one, Chart)]
    reasons = "; ".join(dict.fromkeys(one for one in found if isinstance(one, str)))
    if not drawn:
        return Panel(title, caption, reason=reasons)
    place = "".join(word[0] for word in title.lower().split())
    figures = [
        f"<figure><figcaption>{text(one.title)}</figcaption>{draw(one, f'{place}{number}')}{_note(one)}"
        "</figure>"
        for number, one in enumerate(drawn)
    ]
    return Panel(title, caption, f'<div class="charts">{"".join(figures)}</div>', reasons)


def _note(chart: Chart) -> str:
    return f"<p><small>{text(chart.note)}</small></p>" if chart.note else ""


def _costs(material: Material) -> Panel:
    head = ["run", "training", "whole run", "memory", "GPU memory", "steps", "tokens a second"]
    rows = []
    for run in material.runs:
        facts = run.environment
        if not facts:
            continue
        speeds = [s["tokens_per_second"] for s in run.steps if s.get("tokens_per_second")]
        training = facts.get("training") or {}
        rows.append(
            [
                text(run.title),
                _unit(facts.get("train_seconds"), "s"),
                _unit(facts.get("seconds"), "s"),
                _unit(facts.get("peak_memory_mb"), "MB"),
                _unit(facts.get("peak_gpu_memory_mb"), "MB"),
                _unit(training.get("optimizer_steps_done"), ""),
                _unit(statistics.median(speeds) if speeds else None, ""),
            ]
        )
    keep = [n for n in range(len(head)) if not rows or any(row[n] != "–" for row in rows)]
    hardware = {
        (str(facts.get("platform")), str(facts.get("gpus") or "no GPU"), str(facts.get("threads")))
        for run in material.runs
        if (facts := run.environment)
    }
    lines = "".join(f"<p>{text(p)}; {text(g)}; {text(t)} threads</p>" for p, g, t in sorted(hardware)[:4])
    return Panel(
        "Time and memory",
        "Comparable only between runs on the same machine with nothing else running.",
        table([head[n] for n in keep], [[row[n] for n in keep] for row in rows]) + lines if rows else "",
        "" if rows else "no run has environment.json",
    )


def _unit(value: Any, unit: str) -> str:
    return f"{value:.0f} {unit}".strip() if isinstance(value, int | float) else "–"


def _settings(material: Material) -> Panel:
    if len(material.runs) == 1:
        return _own_settings(material.runs[0])
    title, caption = (
        "Differences between the configurations",
        "What was varied; all other settings are equal.",
    )
    flat = {name: _flat(run.config) for name, run in material.firsts.items() if run.config}
    if len(flat) < 2:
        return Panel(title, caption, reason="only one configuration is known")
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    rows = []
    for key in keys:
        values = [values.get(key, "–") for values in flat.values()]
        if len({repr(value) for value in values}) > 1 and not key.startswith(SETTINGS_LEFT_OUT):
            rows.append([f"<code>{text(key)}</code>", *(text(_plain(value)) for value in values)])
    seeds = sorted({str(run.setting("overall.seed")) for run in material.runs})
    note = f"<p>overall.seed: {text(', '.join(seeds))}</p>"
    body = table(["setting", *map(text, flat)], rows) if rows else "<p>No setting differs but the seed.</p>"
    return Panel(title, caption, body + note)


def _own_settings(run: FinishedRun) -> Panel:
    title, caption = "Settings", "All of config.json that the run used: --config_file takes this file again."
    if not run.config:
        return Panel(title, caption, reason="the settings of this evaluation are not known")
    rows = [
        [f"<code>{text(key)}</code>", text(_plain(value))]
        for key, value in _flat(run.config).items()
        if not key.startswith((*SETTINGS_LEFT_OUT[:3], *DEAD)) and value is not None
    ]
    return Panel(
        title,
        caption,
        f"<details><summary>{len(rows)} settings</summary>{table(['setting', 'value'], rows)}</details>",
    )


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return found


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _all_figures(material: Material) -> Panel:
    runs = material.runs
    keys = [key for key in _in_order(runs) if any(run.figures.get(key) is not None for run in runs)]
    columns: dict[str, Callable[[str], str]] = {
        run.title: lambda key, run=run: text(figure(run, key)) for run in runs
    }
    before = next((run for run in runs if run.before), None)
    if before:
        columns["before"] = lambda key: _short(before.before.get(key))
    if material.retain:
        columns["retain model"] = lambda key: _short(material.retain.get(key))
    later = (key for run in runs for record in run.history for key in record.get("metrics", {}))
    shown = list(dict.fromkeys([*keys, *later]))
    places = _places(shown)
    name = lambda key: f'<a href="#{places[key]}">{text(named(key))}</a>'
    rows = [[name(key), *(cell(key) for cell in columns.values())] for key in keys]
    reasons = reason_lines({run.title: run.evaluation for run in runs}, list(_in_order(runs)))
    listed = "".join(f"<li>{text(line)}</li>" for line in reasons)
    why = f"<h3>Why a figure is missing, or what it leaves out</h3><ul>{listed}</ul>" if listed else ""
    body = table(["metric (arrow = good)", *map(text, columns)], rows)
    return Panel(
        "All figures",
        "Everything that was measured, with 95 % intervals over rows. What each figure is stands below.",
        f"<details><summary>{len(keys)} figures</summary>{body}{why}</details>"
        f"<h3>What each figure is</h3>{_definitions(shown, places)}{_words(shown)}",
    )


def _in_order(runs: Sequence[FinishedRun]) -> list[str]:
    order = {key: place for place, key in enumerate(METRICS)}
    found = {key for run in runs for key in run.figures}
    return sorted(found, key=lambda key: (order.get(key, len(order)), key))


def _short(value: float | None) -> str:
    return "–" if value is None else short(value)


PANELS: tuple[Callable[[Material], Panel], ...] = (
    *(_figures, _frontier, forgotten_answers, kept_answers, _ratios, _decoding, _robustness, _training),
    *(_while_training, _weights, _costs, _settings, _all_figures),
)
