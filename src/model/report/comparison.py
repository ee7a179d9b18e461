"""Comparison of finished evaluations: run folders, TOFU's and OpenUnlearning's logs."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from rich.table import Table

from ...core.files import read_json
from ...core.screen import Screen
from ...metrics.external_results import match_rows, read_results, read_summary
from ...metrics.spec import ARROWS, METRICS, Value
from ...metrics.tofu import summarize

Figures = dict[str, float | None]


def read_figures(path: str | Path, retain: str | Path | None = None) -> Figures:
    """Read the figures of one evaluation.

    Args:
        path: a run folder, or a log with rows of TOFU or OpenUnlearning.
        retain: evaluation of the retain model; forget quality is then computed from the rows of both.

    Returns:
        Metric -> value. Of a run folder the values of metrics.json, of a log TOFU's official aggregation of
        its rows.

    Raises:
        UserError: an evaluation cannot be read.
    """
    computed = {key: value.value for key, value in _summary(path, retain).items()}
    recorded = read_summary(path)
    if retain:
        # The recorded forget quality may be against another retain model.
        recorded = {key: value for key, value in recorded.items() if not key.startswith("forget_quality")}
    return {key: value for key, value in computed.items() if value is not None} | recorded


def quality_note(path: str | Path, retain: str | Path) -> str:
    """Why an evaluation has no forget quality against that of the retain model, or what it leaves out; empty
    for a plain one."""
    return _summary(path, retain)["forget_quality"].reason


@cache
def _summary(path: str | Path, retain: str | Path | None) -> dict[str, Value]:
    """TOFU's figures from the rows of an evaluation."""
    folder = Path(path).expanduser()
    only_benchmarks = (folder / "lm_eval").is_dir() and not (folder / "samples").is_dir()
    columns = {} if only_benchmarks else read_results(path)
    ids = {name: list(rows) for name, rows in columns.items()}
    return summarize(columns, match_rows(read_results(retain), ids) if retain else None)


COMPARED_SETTINGS = {
    "evaluate": (
        *("max_new_tokens", "rows", "decoding", "rounds", "temperature", "top_p", "convention"),
        *("samples", "sample_temperature", "sample_top_p"),
    ),
    "dataset": ("forget_dataset_name", "template", "forget_ratio"),
}
"""Settings that change the figures of one and the same model."""


def differing_settings(evaluations: Mapping[str, str | Path | dict]) -> list[str]:
    """Settings that differ between evaluations, one line each.

    Args:
        evaluations: title -> run folder, or resolved settings; logs of other projects, whose settings are
            unknown, are left out.
    """
    known = {title: _compared_settings(evaluation) for title, evaluation in evaluations.items()}
    known = {title: settings for title, settings in known.items() if settings}
    keys = list(dict.fromkeys(key for settings in known.values() for key in settings))
    lines = []
    for key in keys:
        values = {title: settings[key] for title, settings in known.items() if key in settings}
        if len({str(value) for value in values.values()}) > 1:
            lines.append(f"{key}: " + ", ".join(f"{value} in {title}" for title, value in values.items()))
    return lines


def _compared_settings(evaluation: str | Path | dict) -> dict[str, object]:
    if isinstance(evaluation, dict):
        config = evaluation
    else:
        path = Path(evaluation).expanduser() / "config.json"
        config = read_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        return {}
    found = {}
    for name, keys in COMPARED_SETTINGS.items():
        section = config.get(name)
        if isinstance(section, dict):
            found |= {f"{name}.{key}": section[key] for key in keys if key in section}
    return found


def show(figures: Mapping[str, Figures], metrics: Sequence[str] = ()) -> None:
    """Print one column per evaluation and one line per metric of `metrics`, by default of all found."""
    order = {key: place for place, key in enumerate(METRICS)}
    found = {key for column in figures.values() for key, value in column.items() if value is not None}
    keys = metrics or sorted(found, key=lambda key: (order.get(key, len(order)), key))
    table = Table()
    table.add_column("metric (arrow = good)", overflow="fold")
    for title in figures:
        table.add_column(title, justify="right", overflow="fold")
    for key in keys:
        arrow = f" {ARROWS[METRICS[key].good]}" if key in METRICS else ""
        table.add_row(key + arrow, *(number(column.get(key)) for column in figures.values()))
    Screen(least_width=30 + 24 * len(figures)).print(table)


def number(value: float | None) -> str:
    """Six digits, enough to check a figure against a published one; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.5e}" if 0 < abs(value) < 1e-3 else f"{value:.6f}"
