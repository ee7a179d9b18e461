"""Comparison of finished evaluations: run folders, TOFU's and OpenUnlearning's logs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any

from rich.table import Table

from ...core.files import read_json
from ...core.screen import Screen
from ...metrics.external_results import match_rows, read_log, read_reasons, read_results, read_summary
from ...metrics.published_log import Columns, PublishedLog, counted
from ...metrics.spec import ARROWS, METRICS, Generations, Samples
from ...metrics.tofu import summarize

Figures = dict[str, float | None]


@dataclass
class Evaluation:
    """A finished evaluation, as it is compared.

    Args:
        figures: Metric -> value.
        reasons: Metric -> why it is null, or what it leaves out.
        warnings: Faults of the files it was read from.
        caution: What a reader of its figures should know; empty for none.
    """

    figures: Figures
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    caution: str = ""


def read_evaluation(path: str | Path, retain: str | Path | None = None) -> Evaluation:
    """Read the figures of one evaluation.

    Args:
        path: a run folder, or a log with rows of TOFU or OpenUnlearning.
        retain: evaluation of the retain model; forget quality is then computed from the rows of both.

    Returns:
        Of a run folder the values of metrics.json, of a log its own figures, recomputed from its rows.

    Raises:
        UserError: an evaluation cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        columns, found = _read_folder(path)
    else:
        log = read_log(path, _as_log(retain))
        columns = log.columns
        found = Evaluation(
            {figure.key: figure.value for figure in reversed(log.figures)},
            {figure.key: figure.reason for figure in reversed(log.figures) if figure.reason},
            log.warnings,
            log.caution,
        )
    if retain:
        _test_against(columns, retain, found)
    return found


def _read_folder(folder: Path) -> tuple[Columns, Evaluation]:
    only_benchmarks = (folder / "lm_eval").is_dir() and not (folder / "samples").is_dir()
    columns = {} if only_benchmarks else read_results(folder)
    computed = {} if only_benchmarks else summarize(columns)
    recorded, reasons = read_summary(folder), read_reasons(folder)
    figures = {key: value.value for key, value in computed.items() if value.value is not None} | recorded
    imported = _object(folder / "config.json").get("imported")
    caution = imported.get("caution") if isinstance(imported, dict) else ""
    reasons = {key: value.reason for key, value in computed.items() if key not in recorded} | reasons
    return columns, Evaluation(figures, reasons, caution=caution if isinstance(caution, str) else "")


def _as_log(retain: str | Path | None) -> PublishedLog | None:
    """The retain model's log; None for a run folder, by which no figure of a log is checked."""
    return read_log(retain) if retain and not Path(retain).expanduser().is_dir() else None


def _test_against(columns: Columns, retain: str | Path, found: Evaluation) -> None:
    """Replace the forget quality of an evaluation by that against the rows of `retain`: the recorded one may
    be against another retain model."""
    ids = {name: list(rows) for name, rows in columns.items()}
    for key in [key for key in found.figures if key.startswith("forget_quality")]:
        del found.figures[key]
    for key, value in summarize(columns, match_rows(read_results(retain), ids)).items():
        if key.startswith("forget_quality"):
            found.figures[key] = value.value
            found.reasons[key] = value.reason


COMPARED_SETTINGS = {
    "evaluate": (
        *("max_new_tokens", "rows", "decoding", "rounds", "temperature", "top_p", "convention"),
        *("samples", "sample_temperature", "sample_top_p"),
    ),
    "dataset": ("forget_dataset_name", "data_dir", "template", "forget_ratio"),
}
"""Settings that change the figures of one and the same model."""
BUDGET = "evaluate.max_new_tokens"
SAMPLING = "evaluate.sample"
"""Beginning of the keys of sampled answers."""


@dataclass(frozen=True)
class Conditions:
    """What an evaluation was made under.

    Args:
        config: Resolved settings; empty for logs of other projects, whose settings are unknown.
        detail: Content of metrics_detail.json.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    detail: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def conditions_of(path: str | Path) -> Conditions:
    """The conditions of a run folder; unknown for anything else."""
    folder = Path(path).expanduser()
    return Conditions(_object(folder / "config.json"), _object(folder / "metrics_detail.json"))


def differing_settings(evaluations: Mapping[str, Conditions]) -> list[str]:
    """Settings that differ between evaluations and may move their figures, one line each.

    Args:
        evaluations: title -> conditions.
    """
    settings = {title: _compared_settings(evaluation.config) for title, evaluation in evaluations.items()}
    known = {title: values for title, values in settings.items() if values}
    keys = list(dict.fromkeys(key for values in known.values() for key in values))
    lines = []
    for key in keys:
        values = {title: found[key] for title, found in known.items() if key in found}
        if len({str(value) for value in values.values()}) == 1:
            continue
        if key == BUDGET and not _budget_matters(values, evaluations):
            continue
        if key.startswith(SAMPLING) and not _share_sampled(evaluations):
            continue
        lines.append(f"{key}: " + ", ".join(f"{value} in {title}" for title, value in values.items()))
    return lines


def _budget_matters(budgets: Mapping[str, Any], evaluations: Mapping[str, Conditions]) -> bool:
    """Whether a figure that several evaluations have could be another under the smallest of their budgets.
    An evaluation whose texts all ended before that budget would have written the same ones."""
    least = min(budgets.values())
    for title in (title for title, budget in budgets.items() if budget > least):
        others = {key for name in budgets if name != title for key in evaluations[name].detail}
        for key in filter(_reads_texts, others & evaluations[title].detail.keys()):
            # Results of earlier versions do not have the length.
            if evaluations[title].detail[key].get("longest_text", math.inf) >= least:
                return True
    return False


def _share_sampled(evaluations: Mapping[str, Conditions]) -> bool:
    """Whether several evaluations have a figure of sampled answers."""
    keys = [key for found in evaluations.values() for key in found.detail if _reads_texts(key, Samples)]
    return len(keys) > len({*keys})


def _reads_texts(key: str, kind: type | UnionType = Generations | Samples) -> bool:
    return key in METRICS and any(isinstance(need, kind) for need in METRICS[key].needs)


def _compared_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, keys in COMPARED_SETTINGS.items():
        section = config.get(name)
        if isinstance(section, Mapping):
            found |= {f"{name}.{key}": section[key] for key in keys if key in section}
    return found


def _object(path: Path) -> dict:
    """The object in a JSON file; empty without the file."""
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def show(figures: Mapping[str, Figures], metrics: Sequence[str] = ()) -> None:
    """Print one column per evaluation and one line per metric of `metrics`, by default of all found."""
    keys = shown_metrics(figures, metrics)
    table = Table()
    table.add_column("metric (arrow = good)", overflow="fold")
    for title in figures:
        table.add_column(title, justify="right", overflow="fold")
    for key in keys:
        arrow = f" {ARROWS[METRICS[key].good]}" if key in METRICS else ""
        table.add_row(key + arrow, *(number(column.get(key)) for column in figures.values()))
    Screen(least_width=30 + 24 * len(figures)).print(table)


def shown_metrics(figures: Mapping[str, Figures], metrics: Sequence[str] = ()) -> Sequence[str]:
    """`metrics`, by default all that any evaluation has, in the order of their declaration."""
    order = {key: place for place, key in enumerate(METRICS)}
    found = {key for column in figures.values() for key, value in column.items() if value is not None}
    return metrics or sorted(found, key=lambda key: (order.get(key, len(order)), key))


NOT_THERE = "not a figure of this evaluation"


def reason_lines(evaluations: Mapping[str, Evaluation], metrics: Sequence[str]) -> list[str]:
    """Why there are dashes in the table of `show`, and what figures leave out: each reason once, with the
    metrics and the evaluations that it is about."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for title, evaluation in evaluations.items():
        for key in metrics:
            absent = evaluation.figures.get(key) is None
            reason = evaluation.reasons.get(key) or (NOT_THERE if absent else "")
            if reason:
                grouped.setdefault((title, reason), []).append(key)
    titles: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (title, reason), keys in grouped.items():
        titles.setdefault((reason, tuple(keys)), []).append(title)
    return [f"{counted(keys, 4)} ({', '.join(where)}): {reason}" for (reason, keys), where in titles.items()]


def number(value: float | None) -> str:
    """Six digits, enough to check a figure against a published one; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.5e}" if 0 < abs(value) < 1e-3 else f"{value:.6f}"
