"""Finished evaluations side by side: run folders of ours, TOFU's and OpenUnlearning's logs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from ...core.files import read_json
from ...core.screen import Screen
from ...metrics.external_results import match_rows, read_results, read_summary
from ...metrics.spec import ARROWS, METRICS
from ...metrics.tofu import summarize

Figures = dict[str, float | None]


def read_figures(path: str | Path, retain: str | Path | None = None) -> Figures:
    """Metric -> number of one evaluation. With `retain` forget quality is computed anew from the rows of
    both; everything else of a run folder is taken from its metrics.json, and of a peer's log by TOFU's
    official aggregation of its rows.
    """
    columns = {} if _has_benchmarks_alone(Path(path).expanduser()) else read_results(path)
    ids = {name: list(rows) for name, rows in columns.items()}
    computed = {
        key: value.value
        for key, value in summarize(
            columns, match_rows(read_results(retain), ids) if retain else None
        ).items()
    }
    said = read_summary(path)
    if retain:
        said = {key: value for key, value in said.items() if not key.startswith("forget_quality")}
    return {key: value for key, value in computed.items() if value is not None} | said


def _has_benchmarks_alone(folder: Path) -> bool:
    """Is it a folder of run_benchmarks.py, which has no rows of ours?"""
    return (folder / "lm_eval").is_dir() and not (folder / "samples").is_dir()


MEASURING = {
    "evaluate": ("max_new_tokens", "rows", "decoding", "rounds", "temperature", "top_p", "convention"),
    "dataset": ("forget_dataset_name", "template", "forget_ratio"),
}
"""Settings under which one model has different figures."""


def differing_settings(evaluations: Mapping[str, str | Path | dict]) -> list[str]:
    """What was set in different ways for evaluations that stand side by side, one line each, by their titles.
    An evaluation is a run folder, or its settings; a peer's log has none that are known."""
    known = {title: _measuring(evaluation) for title, evaluation in evaluations.items()}
    known = {title: settings for title, settings in known.items() if settings}
    keys = list(dict.fromkeys(key for settings in known.values() for key in settings))
    lines = []
    for key in keys:
        values = {title: settings[key] for title, settings in known.items() if key in settings}
        if len({str(value) for value in values.values()}) > 1:
            lines.append(f"{key}: " + ", ".join(f"{value} in {title}" for title, value in values.items()))
    return lines


def _measuring(evaluation: str | Path | dict) -> dict[str, object]:
    if isinstance(evaluation, dict):
        config = evaluation
    else:
        path = Path(evaluation).expanduser() / "config.json"
        config = read_json(path) if path.is_file() else {}
    sections = {name: config.get(name) for name in MEASURING} if isinstance(config, dict) else {}
    return {
        f"{name}.{key}": section[key]
        for name, section in sections.items()
        if isinstance(section, dict)
        for key in MEASURING[name]
        if key in section
    }


def show(figures: Mapping[str, Figures], metrics: Sequence[str] = ()) -> None:
    """Print one column per evaluation and one line per metric (`metrics`, or every one that some evaluation
    has)."""
    keys = metrics or sorted(
        {key for column in figures.values() for key, value in column.items() if value is not None},
        key=lambda key: (key not in METRICS, list(METRICS).index(key) if key in METRICS else 0, key),
    )
    table = Table()
    table.add_column("metric (arrow = good)", overflow="fold")
    for title in figures:
        table.add_column(title, justify="right", overflow="fold")
    for key in keys:
        arrow = f" {ARROWS[METRICS[key].good]}" if key in METRICS else ""
        table.add_row(key + arrow, *(number(column.get(key)) for column in figures.values()))
    Screen(least_width=30 + 24 * len(figures)).print(table)


def number(value: float | None) -> str:
    """Six digits, so that a figure can be checked against a published one; a dash for what is not there."""
    if value is None:
        return "–"
    return f"{value:.5e}" if 0 < abs(value) < 1e-3 else f"{value:.6f}"
