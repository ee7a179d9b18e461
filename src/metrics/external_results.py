"""Per-row values of evaluations, of this project and of other toolkits, for `evaluate.retain_results` and
`compare_runs.py`:

    run folder of this project            samples/<set>.jsonl
    TOFU's eval_log_aggregated.json       per-row losses and ROUGE of four sets, rows numbered from 0
    OpenUnlearning's TOFU_EVAL.json       per-row values of each metric, rows numbered from 0

In TOFU's file the field `truth_ratio` is wrong over right, while its own aggregation takes right over wrong;
so the ratio is computed from the losses.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.files import UserError, read_json, read_records
from ..core.json_fields import (
    LOSS,
    OBJECT,
    PROBABILITY,
    TEXT,
    Kind,
    check_fields,
    check_value,
    list_of,
    number,
    or_null,
    shown,
)

Columns = dict[str, dict[str, dict[str, float]]]
"""Row set -> row id -> column -> value. Rows of other toolkits have their number as id."""

CELLS = {"prob": or_null(PROBABILITY), "rougeL": or_null(PROBABILITY), "log_truth_ratio": or_null(number())}
MEMBERSHIP = re.compile(r"mia_\w+")
"""Columns of membership scores, any finite number."""
TOFU_COLUMNS = {
    "avg_gt_loss": LOSS,
    "avg_paraphrased_loss": LOSS,
    "average_perturb_loss": list_of(LOSS),
    "rougeL_recall": PROBABILITY,
}
TOFU_SETS = {
    "retain": "eval_log.json",
    "real": "eval_real_author_wo_options.json",
    "world": "eval_real_world_wo_options.json",
    "forget": "eval_log_forget.json",
}
OPEN_UNLEARNING_COLUMNS = {"prob": PROBABILITY, "rougeL": PROBABILITY, "ratio": number(0)}
OPEN_UNLEARNING = {
    "forget": {
        "prob": ("forget_Q_A_Prob", "prob"),
        "rougeL": ("forget_Q_A_ROUGE", "rougeL_recall"),
        "ratio": ("forget_truth_ratio", "score"),
    },
    "retain": {
        "prob": ("retain_Q_A_Prob", "prob"),
        "rougeL": ("retain_Q_A_ROUGE", "rougeL_recall"),
        "ratio": ("retain_Truth_Ratio", "score"),
    },
    "real": {
        "prob": ("ra_Q_A_Prob_normalised", "prob"),
        "rougeL": ("ra_Q_A_ROUGE", "rougeL_recall"),
        "ratio": ("ra_Truth_Ratio", "score"),
    },
    "world": {
        "prob": ("wf_Q_A_Prob_normalised", "prob"),
        "rougeL": ("wf_Q_A_ROUGE", "rougeL_recall"),
        "ratio": ("wf_Truth_Ratio", "score"),
    },
}


def read_results(path: str | Path) -> Columns:
    """Read the per-row values of an evaluation in any of the three formats. UserError for another format, or
    naming a value that is invalid in its format."""
    path = Path(path).expanduser()
    if path.is_dir():
        return _run_folder(path)
    log = read_json(path)
    if isinstance(log, dict) and set(TOFU_SETS.values()) <= set(log):
        return {name: _tofu_set(f"{path}: {stem}", log[stem], name) for name, stem in TOFU_SETS.items()}
    forget = log.get("forget_truth_ratio") if isinstance(log, dict) else None
    if isinstance(forget, dict) and "value_by_index" in forget:
        return _open_unlearning(path, log)
    raise UserError(
        f"{path}: neither a run folder, nor TOFU's eval_log_aggregated.json, nor OpenUnlearning's"
        f" TOFU_EVAL.json with forget_truth_ratio rows (its summary file holds no rows){_suggestion(path)}"
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
        numbered = list(rows) == [str(n) for n in range(len(rows))]
        same_length = len(rows) == len(ids.get(name, ()))
        matched[name] = dict(zip(ids[name], rows.values())) if numbered and same_length else rows
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


def _tofu_set(place: str, table: Any, name: str) -> dict[str, dict[str, float]]:
    check_value(place, table, OBJECT)
    check_fields(place, table, dict.fromkeys(TOFU_COLUMNS, OBJECT))
    columns = {key: _numbered(f"{place}, {key}", table[key], kind) for key, kind in TOFU_COLUMNS.items()}
    losses = columns["avg_gt_loss"]
    for key, column in columns.items():
        if column.keys() != losses.keys():
            odd = sorted(column.keys() ^ losses.keys(), key=int)[0]
            raise UserError(f"{place}: row {odd} is in only one of avg_gt_loss and {key}")
    return {
        index: _tofu_row({key: column[index] for key, column in columns.items()}, name) for index in losses
    }


def _tofu_row(cells: dict[str, Any], name: str) -> dict[str, float]:
    wrong = cells["average_perturb_loss"]
    # The losses are means over tokens, so the exponentials are geometric means of token probabilities.
    prob = math.exp(-cells["avg_gt_loss"])
    if name in ("real", "world"):
        total = prob + sum(math.exp(-loss) for loss in wrong)
        prob = prob / total if total else 0.0
    log_ratio = cells["avg_paraphrased_loss"] - sum(wrong) / len(wrong)
    return {"prob": prob, "rougeL": cells["rougeL_recall"], "log_truth_ratio": log_ratio}


def _open_unlearning(path: Path, log: dict) -> Columns:
    found: Columns = {}
    for name, metrics in OPEN_UNLEARNING.items():
        for column, (key, field) in metrics.items():
            for index, value in _open_unlearning_column(path, log, key, field, column).items():
                cell = {column: value}
                if column == "ratio":
                    cell = {"log_truth_ratio": math.log(value) if value > 0 else -math.inf}
                found.setdefault(name, {}).setdefault(index, {}).update(cell)
    return found


def _open_unlearning_column(path: Path, log: dict, key: str, field: str, column: str) -> dict[str, float]:
    """Row number -> value of one metric, without rows that have no value."""
    if log.get(key) is None:
        return {}
    place = f"{path}: {key}"
    check_value(place, log[key], OBJECT)
    check_fields(place, log[key], {}, {"value_by_index": or_null(OBJECT)})
    rows = _numbered(f"{place}, value_by_index", log[key].get("value_by_index") or {}, or_null(OBJECT))
    kind = or_null(OPEN_UNLEARNING_COLUMNS[column])
    for index, row in rows.items():
        check_fields(f"{place}, row {index}", row or {}, {}, {field: kind})
    return {index: row[field] for index, row in rows.items() if row and row.get(field) is not None}


def _numbered(place: str, column: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """The column in numeric order of its rows (JSON keys are texts, and 10 sorts before 2). UserError for a
    key that is not a number, or a value of another kind."""
    for index, value in column.items():
        if not (index.isascii() and index.isdigit()):
            raise UserError(f"{place}: {shown(index)} is not a row number")
        check_value(f"{place}, row {index}", value, kind)
    return dict(sorted(column.items(), key=lambda item: int(item[0])))
