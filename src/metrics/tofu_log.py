"""TOFU's eval_log_aggregated.json (locuslab/tofu), by its official aggregation (aggregate_eval_stat.py).

Four row sets; per row the losses of the right, the paraphrased and the wrong answers, ROUGE, and the
generated text. No figure is stored: all are computed from the rows. The field `truth_ratio` is wrong over
right, while the aggregation takes right over wrong; so the ratio is computed from the losses.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..core.files import UserError
from ..core.json_fields import (
    LOSS,
    OBJECT,
    PROBABILITY,
    STRING,
    Kind,
    check_fields,
    check_value,
    list_of,
    number,
)
from .published_log import Cells, Figure, PublishedLog, counted, mean, numbered
from .tofu import PARAPHRASED, summarize

TOFU_SETS = {
    "retain": "eval_log.json",
    "real": "eval_real_author_wo_options.json",
    "world": "eval_real_world_wo_options.json",
    "forget": "eval_log_forget.json",
}
"""Row set -> its table in the file."""
COLUMNS = {
    "avg_gt_loss": LOSS,
    "avg_paraphrased_loss": LOSS,
    "average_perturb_loss": list_of(LOSS),
    "rougeL_recall": PROBABILITY,
}
"""Columns that the aggregation reads."""
NUMBER = Kind("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool))
OTHER_COLUMNS = {
    "gt_loss": LOSS,
    "paraphrased_loss": LOSS,
    "perturb_loss": list_of(LOSS),
    "num_token_gt": number(0),
    "num_token_paraphrased": number(0),
    "num_token_perturb": list_of(number(0)),
    "rouge1_recall": PROBABILITY,
    "truth_ratio": NUMBER,
    "normalized_gt_loss": NUMBER,
    "generated_text": list_of(STRING),
}
"""Columns that are checked where they are there."""
OTHER_FIGURES = {"para_prob": "{rows}/para_prob", "tofu_rouge1_recall": "tofu/{rows}/rouge1_recall"}
"""Column of a row -> name of its mean, beside those of the official aggregation."""
ROW_TOLERANCE = 1e-4
"""Relative difference of two readings of a row that is rounding: losses are float32, of bfloat16 forwards."""


def is_tofu(log: Any) -> bool:
    """Whether a JSON value has the four tables."""
    return isinstance(log, dict) and set(TOFU_SETS.values()) <= set(log)


def read_tofu(path: Path, log: dict, retain: PublishedLog | None = None) -> PublishedLog:
    """Read a log whole.

    Args:
        path: Its file.
        log: Its content.
        retain: The retain model's log, for forget quality.

    Raises:
        UserError: A value is of another kind than its format has, named with table, column and row.
    """
    found = PublishedLog(path, "TOFU")
    for rows, stem in TOFU_SETS.items():
        table = _table(f"{path}: {stem}", log[stem])
        found.columns[rows] = _rows(f"{path}: {stem}", table, rows)
        found.warnings += [f"{stem}: {fault}" for fault in _faults(table)]
        for column, key in OTHER_FIGURES.items():
            value, n, unscored = mean(row.get(column) for row in found.columns[rows].values())
            if value is not None:
                name = key.format(rows=rows)
                found.figures.append(Figure(name, name, value, n=n, unscored=unscored))
    found.warnings += [
        f"{name}: not a table of this format; left out" for name in log if name not in TOFU_SETS.values()
    ]
    for key, value in summarize(found.columns, retain and retain.columns).items():
        found.figures.append(
            Figure(key, key, value.value, n=value.n, unscored=value.unscored, reason=value.reason)
        )
    return found


def _table(place: str, content: Any) -> dict[str, dict[str, Any]]:
    """Column -> row number -> value, checked; every column has the same rows."""
    check_value(place, content, OBJECT)
    check_fields(place, content, dict.fromkeys(COLUMNS, OBJECT))
    kinds = {key: kind for key, kind in (COLUMNS | OTHER_COLUMNS).items() if key in content}
    check_fields(place, content, dict.fromkeys(kinds, OBJECT))
    columns = {key: numbered(f"{place}, {key}", content[key], kind) for key, kind in kinds.items()}
    losses = columns["avg_gt_loss"]
    for key, column in columns.items():
        if column.keys() != losses.keys():
            odd = sorted(column.keys() ^ losses.keys(), key=int)[0]
            raise UserError(f"{place}: row {odd} is in only one of avg_gt_loss and {key}")
    return columns


def _rows(place: str, table: Mapping[str, Mapping[str, Any]], rows: str) -> dict[str, Cells]:
    return {
        index: _row({key: column[index] for key, column in table.items()}, rows)
        for index in table["avg_gt_loss"]
    }


def _row(cells: Mapping[str, Any], rows: str) -> Cells:
    right, wrong, other = (
        cells[key] for key in ("avg_gt_loss", "average_perturb_loss", "avg_paraphrased_loss")
    )
    # The losses are means over tokens, so the exponentials are geometric means of token probabilities.
    prob = None if right is None else math.exp(-right)
    if rows in ("real", "world") and prob is not None:
        total = prob + sum(math.exp(-loss) for loss in wrong) if wrong else 0.0
        prob = (prob / total if total else 0.0) if wrong else None
    ratio = None if wrong is None or other is None else other - sum(wrong) / len(wrong)
    row: Cells = {"prob": prob, "rougeL": cells["rougeL_recall"], "log_truth_ratio": ratio}
    if rows in PARAPHRASED:
        row["para_prob"] = None if other is None else math.exp(-other)
    if cells.get("rouge1_recall") is not None:
        row["tofu_rouge1_recall"] = cells["rouge1_recall"]
    text = cells.get("generated_text")
    if text is not None and len(text) == 3:
        row |= dict(zip(("prompt", "generation", "answer"), text))
    return row


def _faults(table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Fields of rows that differ from the losses they are made of."""
    mean_of = lambda total, tokens: total / tokens if tokens else math.nan
    checks: dict[str, tuple[tuple[str, ...], Callable]] = {
        "avg_gt_loss": (("gt_loss", "num_token_gt"), mean_of),
        "avg_paraphrased_loss": (("paraphrased_loss", "num_token_paraphrased"), mean_of),
        "truth_ratio": (
            ("avg_paraphrased_loss", "average_perturb_loss"),
            lambda right, wrong: math.exp(min(right - sum(wrong) / len(wrong), 700)),
        ),
    }
    found = []
    for name, (parts, formula) in checks.items():
        stored, one, other = (table.get(key, {}) for key in (name, *parts))
        odd = [
            index
            for index, value in stored.items()
            if None not in (value, one.get(index), other.get(index))
            and not math.isclose(
                value, formula(one[index], other[index]), rel_tol=ROW_TOLERANCE, abs_tol=1e-6
            )
        ]
        if odd:
            found.append(f"{name} of rows {counted(odd)} is not what {' and '.join(parts)} give")
    return found
