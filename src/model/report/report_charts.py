"""The charts of a report: from finished runs to what is drawn. A chart whose data is not there is a text that
has the reason."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...core.thinking import MODES
from ...loggers.logger import NO_TERMS
from ...metrics.external_results import read_results
from ...metrics.spec import ARROWS, METRICS
from ...metrics.tofu_leaderboard import PublishedRow
from .deciding_figures import deciding, measured
from .finished_run import FinishedRun, Rows, retain_figures
from .svg_charts import Chart, Series

RETAIN = "retain model"
BEFORE = "before"
LEAST_P = 1e-40
"""Where smaller p-values are drawn: a logarithmic axis has no place for 0."""
LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
PARTS = {"attention": re.compile(r"attn|attention"), "MLP": re.compile(r"mlp|feed_forward|ffn|experts")}
MOST_SERIES = 8
P_VALUES = ("forget_quality", "forget_quality_yardstick", "forget/relative_test_p")
WIDE = 100
"""From this ratio of its largest to its least value a chart of loss terms is logarithmic: on another axis the
small terms would all seem 0."""
MISSING_RUNS = "no run has what it is drawn from"


@dataclass(frozen=True)
class Material:
    """What a report is about.

    Args:
        runs: The runs, in the order of the report.
        retain: The retain model's figures; empty without one.
        retain_samples: Its rows, with their values and texts.
        published: Rows of a published leaderboard that are drawn too.
    """

    runs: Sequence[FinishedRun]
    retain: Mapping[str, float | None] = field(default_factory=dict)
    retain_samples: Rows = field(default_factory=dict)
    published: Sequence[PublishedRow] = ()

    @property
    def retain_ratios(self) -> list[float]:
        """The retain model's log truth ratios of the forget rows."""
        return truth_ratios(self.retain_samples.get("forget", ()))

    @property
    def keys(self) -> tuple[str, ...]:
        """The deciding figures, of metrics that at least half of the runs have."""
        counts: dict[str, int] = {}
        for key in (key for run in self.runs for key in measured(run.figures)):
            counts[key] = counts.get(key, 0) + 1
        common = [key for key, count in counts.items() if 2 * count >= len(self.runs)]
        tasks = {str(run.setting("unlearn.task_name") or "") for run in self.runs}
        return deciding(common, tasks.pop() if len(tasks) == 1 else "")

    @property
    def groups(self) -> dict[str, list[FinishedRun]]:
        """Runs by their title without its seed: the seeds of one configuration belong together."""
        found: dict[str, list[FinishedRun]] = {}
        for run in self.runs:
            found.setdefault(group_title(run.title), []).append(run)
        return found

    @property
    def firsts(self) -> dict[str, FinishedRun]:
        """One run of each configuration, of the first eight, for charts with a line per run."""
        return {title: runs[0] for title, runs in list(self.groups.items())[:MOST_SERIES]}


def gather(
    runs: Sequence[FinishedRun], retain: str | None = None, published: Sequence[PublishedRow] = ()
) -> Material:
    """The runs with the retain model that they were compared with."""
    places = [str(path) for run in runs if (path := run.retain_path)]
    place = retain or (places[0] if places else None)
    if place is None:
        return Material(runs, published=published)
    samples = {
        name: [{"id": key} | row for key, row in rows.items()] for name, rows in read_results(place).items()
    }
    return Material(runs, retain_figures(place), samples, published)


def group_title(title: str) -> str:
    return re.sub(r"[,_ -]?seed[=_ -]?\d+", "", title) or title


def truth_ratios(rows: Sequence[Mapping]) -> list[float]:
    """Log truth ratios of the rows that have one."""
    found = [row.get("log_truth_ratio") for row in rows]
    return [value for value in found if isinstance(value, int | float) and math.isfinite(value)]


def named(key: str) -> str:
    """A metric with the arrow of its good direction."""
    return f"{key} {ARROWS[METRICS[key].good]}" if key in METRICS else key


def frontier(material: Material, test: bool) -> Chart | str:
    """What is left of the forget rows against what was kept, or with `test` the forget quality against it."""
    keys = material.keys
    kept = next((key for key in keys[::-1] if key != "forget_quality" and _is_kept(key)), None)
    left = "forget_quality" if test else next((k for k in keys if k not in ("forget_quality", kept)), None)
    if kept is None or left not in keys:
        lacking = "forget quality" if test else "a figure of the forget rows and one of what was kept"
        return f"the runs do not have {lacking}"
    series, number = [], 0
    for title, runs in material.groups.items():
        points = []
        for run in runs:
            number += 1
            place, height = run.figures.get(kept), _height(run, left)
            if place is not None and height is not None:
                points.append((str(number), place, height, run.interval(kept), run.interval(left)))
        series.append(_points(title, points))
    series += _models(material, kept, left)
    return Chart(
        f"{named(left)} against {named(kept)}",
        named(kept),
        named(left),
        series,
        log_y=left == "forget_quality",
    )


def _is_kept(key: str) -> bool:
    return key.startswith(("retain", "model_utility", "partial_utility", "muse/knowmem_retain")) or (
        "retain" in key or "neighbor" in key
    )


def _height(run: FinishedRun, key: str) -> float | None:
    value = run.figures.get(key)
    return max(value, LEAST_P) if value is not None and key == "forget_quality" else value


def _points(title: str, points: Sequence[tuple]) -> Series:
    ends = lambda place, side: [point[place][side] if point[place] else None for point in points]
    return Series(
        title,
        [point[1] for point in points],
        [point[2] for point in points],
        ends(4, 0),
        ends(4, 1),
        ends(3, 0),
        ends(3, 1),
        "points",
        [point[0] for point in points],
    )


def _models(material: Material, kept: str, left: str) -> list[Series]:
    """The initial model and the retain model, where they were measured."""
    found = []
    before = next((run for run in material.runs if run.before.get(kept) is not None), None)
    if before is not None and (height := before.before.get(left)) is not None:
        height = max(height, LEAST_P) if left == "forget_quality" else height
        place = before.before[kept]
        assert place is not None
        found.append(Series(f"{BEFORE} unlearning", [place], [height], style="points", names=[BEFORE]))
    place, height = material.retain.get(kept), material.retain.get(left)
    if place is not None and height is not None:
        found.append(Series(f"{RETAIN} (the goal)", [place], [height], style="goal"))
    return found


def published_frontier(rows: Sequence[PublishedRow]) -> Chart | str:
    """Forget quality against model utility of rows of TOFU's leaderboard; a line joins a method's epochs."""
    whole = [row for row in rows if row.figures["forget_quality"] is not None]
    places: dict[str, list[tuple[float, float]]] = {}
    goal: list[Series] = []
    for row in sorted(whole, key=lambda row: row.epoch):
        utility, quality = row.figures["model_utility"], row.figures["forget_quality"]
        if utility is None or quality is None:
            continue
        if row.method.startswith("Retain"):
            goal = [Series(f"{RETAIN} (the goal)", [utility], [quality], style="goal")]
        else:
            places.setdefault(row.method, []).append((utility, max(quality, LEAST_P)))
    if not places:
        return "no leaderboard was given (--leaderboard)"
    series = [Series(name, [p[0] for p in points], [p[1] for p in points]) for name, points in places.items()]
    names = " and ".join(dict.fromkeys(f"{row.model}, {row.split}" for row in whole))
    return Chart(
        f"TOFU's leaderboard: {names}",
        named("model_utility"),
        named("forget_quality"),
        [*series, *goal],
        log_y=True,
    )


def terms(run: FinishedRun) -> Chart | str:
    """The loss terms of a run over its steps."""
    names = list(dict.fromkeys(key for step in run.steps for key in step if key not in NO_TERMS))
    series = [_over_steps(name, run, name) for name in names[:MOST_SERIES]]
    if not any(one.x for one in series):
        return "the run took no step" if not run.steps else "its log has no loss terms"
    values = [value for one in series for value in one.y]
    log_y = min(values) > 0 and max(values) > WIDE * min(values)
    return Chart(f"Loss terms: {run.title}", "optimizer step", "value of the term", series, log_y=log_y)


def _over_steps(label: str, run: FinishedRun, key: str) -> Series:
    found = [(step["step"], step[key]) for step in run.steps if "step" in step and _is_number(step.get(key))]
    return Series(label, [step for step, _ in found], [value for _, value in found])


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def cosines(material: Material) -> Chart | str:
    """The cosine of the gradients of both sides over the steps."""
    series = [_over_steps(title, run, "cosine") for title, run in material.firsts.items()]
    if not any(one.x for one in series):
        return "the gradients' cosine is logged where a combiner takes both apart (unlearn.combiner not sum)"
    return Chart(
        "Cosine of the gradients of forget and retain side",
        "optimizer step",
        "cosine, -1 to 1",
        [one for one in series if one.x],
        level=0.0,
    )


def ratios(material: Material) -> Chart | str:
    """Cumulative distributions of the truth ratios: forget quality tests their largest distance."""
    series = []
    for title, run in material.firsts.items():
        series.append(_cumulative(title, truth_ratios(run.samples.get("forget", ()))))
    if not any(one.x for one in series):
        return (
            "no forget row has a truth ratio: that needs wrong answers to the questions (make_perturbed.py)"
        )
    first = next((run for run in material.runs if run.before_samples), None)
    if first:
        series.append(_cumulative(BEFORE, truth_ratios(first.before_samples.get("forget", ()))))
    series.append(_cumulative(RETAIN, material.retain_ratios))
    return Chart(
        "Distribution of the truth ratios of the forget rows",
        "log truth ratio (right: wrong answers are likelier)",
        "share of rows up to here",
        [one for one in series if one.x],
    )


def _cumulative(label: str, values: Sequence[float]) -> Series:
    ordered = sorted(values)
    return Series(label, ordered, [(n + 1) / len(ordered) for n in range(len(ordered))], style="steps")


def weights(material: Material) -> tuple[Chart, Chart] | str:
    """Relative change and stable rank of the change, per layer."""
    found = {title: run.weight_change.get("tensors") for title, run in material.firsts.items()}
    known = {title: tensors for title, tensors in found.items() if tensors}
    if not known:
        reasons = [str(run.weight_change["reason"]) for run in material.runs if "reason" in run.weight_change]
        return reasons[0] if reasons else "no run has weight_change.json, which a run that trains writes"
    if len(known) == 1:
        ((title, tensors),) = known.items()
        split = {part: _of_part(tensors, part) for part in (*PARTS, "other")}
        known = {part: chosen for part, chosen in split.items() if chosen}
    names = list(dict.fromkeys(place for tensors in known.values() for place in by_layer(tensors)))
    order = sorted(names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
    ticks = {float(n): name for n, name in enumerate(order)}
    if len(ticks) > 14:
        ticks = {n: name for n, name in ticks.items() if not name.isdigit() or int(name) % 5 == 0}
    charts = []
    for place, (title, label) in enumerate(
        (
            ("Relative change of the weights per layer", "norm of change / norm of weights"),
            ("Stable rank of the change per layer", "stable rank, median of tensors"),
        )
    ):
        series = []
        for name, tensors in known.items():
            layers = {layer: pair[place] for layer, pair in by_layer(tensors).items()}
            there = [(float(order.index(k)), v) for k, v in layers.items() if v is not None]
            there.sort()
            series.append(Series(name, [x for x, _ in there], [y for _, y in there]))
        charts.append(
            Chart(title, "layer, or tensor outside them", label, [one for one in series if one.x], ticks)
        )
    return charts[0], charts[1]


def _of_part(tensors: Mapping[str, Mapping], part: str) -> dict[str, Mapping]:
    kind = lambda name: next((part for part, words in PARTS.items() if words.search(name)), "other")
    return {name: change for name, change in tensors.items() if kind(name) == part}


def by_layer(tensors: Mapping[str, Mapping]) -> dict[str, tuple[float | None, float | None]]:
    """Layer -> relative change and median stable rank; tensors outside layers under their own names."""
    grouped: dict[str, list[Mapping]] = {}
    for name, change in tensors.items():
        found = LAYER.search(name)
        short = name.removesuffix(".weight").rpartition(".")[2]
        grouped.setdefault(found[1] if found else short, []).append(change)
    return {
        layer: (_relative(changes), _median([c["stable_rank"] for c in changes if c["stable_rank"]]))
        for layer, changes in grouped.items()
    }


def _relative(changes: Sequence[Mapping]) -> float | None:
    base = math.sqrt(sum(change["norm"] ** 2 for change in changes))
    return math.sqrt(sum(change["change"] ** 2 for change in changes)) / base if base else None


def _median(values: Sequence[float]) -> float | None:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else None


def decoding(material: Material) -> Chart | str:
    """The share of forget questions that leak, by decoding mode and by number of samples."""
    keys = [f"decoding/{mode}_leak" for mode in MODES] + ["decoding/worst_leak"]
    return _by_key(
        material,
        keys,
        ("Leak by decoding mode", "decoding mode", "share of questions that leak ↓"),
        "no run has the family decoding (evaluate.metrics)",
    )


def sampled(material: Material) -> Chart | str:
    """The chance that at least one of k sampled answers leaks, against k."""
    keys = [f"leak_at/{k}" for k in (1, 8, 32, 128)]
    return _by_key(
        material,
        keys,
        ("Leak among k sampled answers", "k, number of sampled answers", "chance of a leak among them ↓"),
        "no run has sampled answers (evaluate.metrics sampling, evaluate.samples)",
    )


def lengths(material: Material) -> Chart | str:
    """Verbatim text against the length of the prompt."""
    keys = [f"copyright/forget_rougeL_{length}" for length in (50, 100, 200)]
    return _by_key(
        material,
        keys,
        ("Text that is continued, by length of the prompt", "tokens of the prompt", "ROUGE-L recall ↓"),
        "no run has the family copyright_lengths",
    )


def wordings(material: Material) -> Chart | str:
    """Accuracy on the forget questions as they were trained and in other wordings."""
    keys = ["semantic/forget_accuracy", "semantic/forget_accuracy_rephrased", "semantic/worst_of_k"]
    return _by_key(
        material,
        keys,
        ("Leak by wording of the question", "wording of the question", "share of right answers ↓"),
        "no run has the family semantic (evaluate.metrics)",
    )


def _by_key(
    material: Material, keys: Sequence[str], labels: tuple[str, str, str], reason: str
) -> Chart | str:
    """One line per run over several figures, with those of the initial and the retain model.

    Args:
        material: the runs.
        keys: the figures.
        labels: title, name of the horizontal axis, name of the vertical one.
        reason: why there is no chart where no run has one of the figures.
    """
    there = [key for key in keys if any(run.figures.get(key) is not None for run in material.runs)]
    if not there:
        return reason
    series = [
        _line(name, there, run.figures, [run.interval(key) for key in there])
        for name, run in material.firsts.items()
    ]
    before = next(
        (run for run in material.runs if any(run.before.get(key) is not None for key in there)), None
    )
    if before:
        series.append(_line(BEFORE, there, before.before, [before.before_interval(key) for key in there]))
    series.append(_line(RETAIN, there, material.retain, [None] * len(there)))
    shorten = lambda key: key.partition("/")[2].removesuffix("_leak").removeprefix("forget_") or key
    ticks = {float(n): shorten(key) for n, key in enumerate(there)}
    note = _retain_gap(material, there)
    return Chart(*labels, [one for one in series if one.x], ticks, note=note)


def _retain_gap(material: Material, keys: Sequence[str]) -> str:
    """What is missing to know how much a model leaks by chance; empty where the retain model has it all."""
    absent = [key for key in keys if material.retain.get(key) is None]
    if not absent:
        return ""
    if not material.retain:
        return (
            "How high a model is that never saw the rows is not known: there is no retain model"
            " (evaluate.retain_results)."
        )
    families = dict.fromkeys(METRICS[key].family for key in absent if key in METRICS)
    return (
        f"Not measured of the retain model, which may have more than 0 by chance: {', '.join(absent)}."
        f" Measure it with evaluate.metrics {','.join(families)}, and name the result in"
        " evaluate.retain_results."
    )


def _line(label: str, keys: Sequence[str], figures: Mapping, intervals: Sequence) -> Series:
    there = [n for n, key in enumerate(keys) if figures.get(key) is not None]
    ends = lambda side: [intervals[n][side] if intervals[n] else None for n in there]
    # Only numbers of samples and lengths lie on a scale; other names are not joined.
    style = "line" if keys[0].startswith(("leak_at/", "copyright/")) else "points"
    values = [figures[keys[n]] for n in there]
    return Series(label, [float(n) for n in there], values, ends(0), ends(1), style=style)


def while_training(run: FinishedRun) -> list[Chart | str]:
    """The figures of the evaluations while a run trained: those from 0 to 1, p-values, which differ by powers
    of ten, and others, each on axes of their own."""
    keys = list(dict.fromkeys(key for record in run.history for key in record.get("metrics", {})))
    kinds: dict[str, list[str]] = {}
    for key in keys:
        is_share = key in METRICS and METRICS[key].is_share
        kind = "p-value" if key in P_VALUES else "value, 0 to 1" if is_share else "value of the figure"
        kinds.setdefault(kind, []).append(key)
    charts: list[Chart | str] = []
    for kind, some in kinds.items():
        is_p = kind == "p-value"
        series = [_over_evaluations(run, key, is_p) for key in some[:MOST_SERIES]]
        if any(one.x for one in series):
            what = "p-values while training" if is_p else "Figures while training"
            charts.append(Chart(f"{what}: {run.title}", "optimizer step", kind, series, log_y=is_p))
    return charts or ["the run was not evaluated while it trained (evaluate.every)"]


def _over_evaluations(run: FinishedRun, key: str, log_y: bool) -> Series:
    found = [(record["step"], record["metrics"].get(key)) for record in run.history if "step" in record]
    there = [(step, max(value, LEAST_P) if log_y else value) for step, value in found if _is_number(value)]
    return Series(named(key), [step for step, _ in there], [value for _, value in there])
