"""Evaluations that were not made by this run, for `evaluate.retain_results` and `compare_runs.py`:

run folder of this project                  samples/<set>.jsonl, metrics.json
TOFU's eval_log_aggregated.json             tofu_log.py
OpenUnlearning's TOFU_EVAL, MUSE_EVAL.json  open_unlearning_log.py
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.files import UserError, read_json, read_records
from ..core.json_fields import PROBABILITY, TEXT, check_fields, number, or_null
from .open_unlearning_log import is_open_unlearning, is_summary, read_open_unlearning
from .published_log import Columns, PublishedLog
from .tofu_log import is_tofu, read_tofu

CELLS = {"prob": or_null(PROBABILITY), "rougeL": or_null(PROBABILITY), "log_truth_ratio": or_null(number())}
MEMBERSHIP = re.compile(r"mia_\w+")
"""Columns of membership scores, any finite number."""


def read_results(path: str | Path) -> Columns:
    """Read the per-row values of an evaluation in any of the formats. UserError for another format, or
    naming a value that is invalid in its format."""
    path = Path(path).expanduser()
    return _run_folder(path) if path.is_dir() else read_log(path).columns


def read_log(path: str | Path, retain: PublishedLog | None = None) -> PublishedLog:
    """Read a log of another toolkit whole.

    Args:
        path: The file.
        retain: The retain model's log, by which forget quality and privleak are computed.

    Raises:
        UserError: Another format, or a value that is invalid in its format, with its name.
    """
    path = Path(path).expanduser()
    log = read_json(path)
    if is_tofu(log):
        return read_tofu(path, log, retain)
    if is_open_unlearning(log):
        return read_open_unlearning(path, log, retain)
    found = ""
    if is_summary(log):
        found = (
            f": it is a summary, which holds no rows; give {path.name.replace('SUMMARY', 'EVAL')} of its run"
        )
    raise UserError(
        f"{path}: neither a run folder, nor TOFU's eval_log_aggregated.json, nor OpenUnlearning's"
        f" TOFU_EVAL.json or MUSE_EVAL.json with rows{found}{_suggestion(path)}"
    )


def read_metrics(path: Path) -> dict[str, float | None]:
    """Read the metrics.json of a run folder, metric -> number or null. UserError naming a metric that is
    neither."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected an object, metric -> number")
    check_fields(str(path), found, dict.fromkeys(found, or_null(number())))
    return found


def read_summary(path: str | Path) -> dict[str, float | None]:
    """Read the figures of a run folder; none for other formats. UserError for a broken file."""
    path = Path(path).expanduser() / "metrics.json"
    return read_metrics(path) if path.is_file() else {}


def read_reasons(path: str | Path) -> dict[str, str]:
    """Metric -> why it is null or what it leaves out, of a run folder; none for other formats. UserError for
    a broken file."""
    path = Path(path).expanduser() / "metrics_detail.json"
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected an object, metric -> details")
    reasons = {key: detail.get("reason") for key, detail in found.items() if isinstance(detail, dict)}
    return {key: reason for key, reason in reasons.items() if isinstance(reason, str) and reason}


def match_rows(columns: Columns, ids: Mapping[str, Sequence[str]]) -> Columns:
    """Replace row numbers by the ids of this project's rows: both are in the order of the split.

    Args:
        columns: Values of an evaluation.
        ids: Row set -> ids in order.

    Returns:
        The columns; a set whose rows are not numbered, or of another length, is unchanged.
    """
    matched = {}
    for name, rows in columns.items():
        in_order = list(rows) == [str(n) for n in range(len(rows))]
        same_length = len(rows) == len(ids.get(name, ()))
        matched[name] = dict(zip(ids[name], rows.values())) if in_order and same_length else rows
    return matched


def _run_folder(folder: Path) -> Columns:
    samples = sorted((folder / "samples").glob("*.jsonl"))
    if not samples:
        raise UserError(
            f"{folder}: no samples/*.jsonl; expected the run folder of a finished evaluation"
            f"{_suggestion(folder)}"
        )
    return {path.stem: _samples(path) for path in samples}


def _samples(path: Path) -> dict[str, dict[str, Any]]:
    rows = {}
    for place, row in read_records(path):
        membership = dict.fromkeys(filter(MEMBERSHIP.fullmatch, row), or_null(number()))
        check_fields(place, row, {"id": TEXT}, CELLS | membership)
        if row["id"] in rows:
            raise UserError(f"{place}: id {row['id']!r} stands twice")
        rows[row["id"]] = row
    return rows


def _suggestion(path: Path) -> str:
    """End of a message about a file or folder without rows: where the rows may be."""
    near = [place for place in (path.parent, path / "results") if any((place / "samples").glob("*.jsonl"))]
    if near:
        return f"; did you mean {near[0]}?"
    is_model = any(path.glob("*.safetensors"))
    return f"; {path} is a model, which evaluate_model.py --overall.model_name measures" if is_model else ""
