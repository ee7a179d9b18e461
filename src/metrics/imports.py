"""Evaluations of other toolkits as rows of ours: what `evaluate.retain_results` and `compare_runs.py` can
read.

    our run folder                        samples/<set>.jsonl
    TOFU's eval_log_aggregated.json       per-row losses and ROUGE of four sets, rows counted from 0
    OpenUnlearning's TOFU_EVAL.json       per-row values of each metric, rows counted from 0

TOFU's per-row `truth_ratio` field is wrong over right while its own aggregation takes right over wrong: the
losses are read.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.files import UserError, read_json, read_jsonl

Columns = dict[str, dict[str, dict[str, float]]]
"""Row set -> row id -> column -> value. Rows of peers have their number for an id."""

TOFU_SETS = {
    "retain": "eval_log.json",
    "real": "eval_real_author_wo_options.json",
    "world": "eval_real_world_wo_options.json",
    "forget": "eval_log_forget.json",
}
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
    """The per-row values of an evaluation in any of the three forms. UserError when it is none of them."""
    path = Path(path).expanduser()
    try:
        return _read(path)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(
            f"{path}: its rows are not as an evaluation writes them ({type(error).__name__}: {error})"
        ) from None


def _read(path: Path) -> Columns:
    if path.is_dir():
        return _run_folder(path)
    log = read_json(path)
    if isinstance(log, dict) and set(TOFU_SETS.values()) <= set(log):
        return _tofu(log)
    if (
        isinstance(log, dict)
        and isinstance(log.get("forget_truth_ratio"), dict)
        and "value_by_index" in log["forget_truth_ratio"]
    ):
        return _open_unlearning(log)
    raise UserError(
        f"{path}: neither a run folder, nor TOFU's eval_log_aggregated.json, nor OpenUnlearning's"
        " TOFU_EVAL.json with forget_truth_ratio rows (its summary file holds no rows)"
    )


def match_rows(columns: Columns, ids: Mapping[str, Sequence[str]]) -> Columns:
    """Columns with the ids of our rows where a peer counted them: both are in the order of the split."""
    matched = {}
    for name, rows in columns.items():
        numbered = list(rows) == [str(n) for n in range(len(rows))]
        same_length = len(rows) == len(ids.get(name, ()))
        matched[name] = dict(zip(ids[name], rows.values())) if numbered and same_length else rows
    return matched


def _run_folder(folder: Path) -> Columns:
    samples = sorted((folder / "samples").glob("*.jsonl"))
    if not samples:
        raise UserError(f"{folder}: no samples/*.jsonl; expected the run folder of a finished evaluation")
    return {path.stem: {row["id"]: row for row in read_jsonl(path)} for path in samples}


def _tofu(log: dict) -> Columns:
    return {
        name: {
            index: _tofu_row(log[stem], index, name) for index in sorted(log[stem]["avg_gt_loss"], key=int)
        }
        for name, stem in TOFU_SETS.items()
    }


def _tofu_row(table: dict, index: str, name: str) -> dict[str, float]:
    wrong = table["average_perturb_loss"][index]
    prob = math.exp(-table["avg_gt_loss"][index])
    if name in ("real", "world"):
        prob /= prob + sum(math.exp(-loss) for loss in wrong)
    log_ratio = table["avg_paraphrased_loss"][index] - sum(wrong) / len(wrong)
    return {"prob": prob, "rougeL": table["rougeL_recall"][index], "log_truth_ratio": log_ratio}


def _open_unlearning(log: dict) -> Columns:
    found: Columns = {}
    for name, metrics in OPEN_UNLEARNING.items():
        for column, (key, field) in metrics.items():
            for index, row in sorted(
                ((log.get(key) or {}).get("value_by_index") or {}).items(), key=lambda item: int(item[0])
            ):
                if row and row.get(field) is not None:
                    cell = found.setdefault(name, {}).setdefault(index, {})
                    cell |= (
                        {"log_truth_ratio": _log(row[field])} if column == "ratio" else {column: row[field]}
                    )
    return found


def _log(ratio: float) -> float:
    return math.log(ratio) if ratio > 0 else -math.inf
