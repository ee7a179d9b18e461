"""OpenUnlearning's TOFU_EVAL.json and MUSE_EVAL.json (locuslab/open-unlearning, src/evals/metrics), whole.

An entry is {agg_value, value_by_index: {row number: {field: value}}}; that of a membership attack has one for
each side, {forget, holdout, auc, agg_value}; forget_quality, privleak and model_utility have agg_value alone.
A row of several answers has a list in each field. A row without tokens to score is null, or has a null field.

Every figure is recomputed from the rows with the constants of that toolkit (`GUARD`). Its name here is ours
where the definition is the same up to that constant, else `open_unlearning/<name>`.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ..core.files import UserError
from ..core.json_fields import (
    LOSS,
    OBJECT,
    PROBABILITY,
    STRING,
    Kind,
    check_fields,
    check_value,
    is_number,
    list_of,
    number,
    or_null,
)
from .aggregates import harmonic_mean
from .ks_test import ks_test
from .privacy import auc
from .published_log import TOLERANCE, Figure, PublishedLog, counted, mean, numbered
from .spec import METRICS
from .tofu import PARAPHRASED

PREFIX = "open_unlearning"
GUARD = 1e-10
"""Added to denominators by OpenUnlearning."""
LEAST = math.log(5e-324)
"""In place of log 0, for truth ratios that underflow: ties stay ties."""
ROW_TOLERANCE = 1e-6
"""Relative difference of two readings of a row that is rounding: probabilities are stored in float32."""
CAUTION = (
    "OpenUnlearning's unlearned models depend on launcher and number of GPUs: one config of NPO took up to"
    " three times fewer optimizer steps than it says, along gradients up to eight times as large, and reached"
    " a forget quality of .2 or of 6e-14 (AlpacaQueen4180/open-unlearning, docs/reproduction/npo, 2026-10)"
)
SETS = {"forget": "forget", "retain": "retain", "ra": "real", "wf": "world", "holdout": "holdout"}
"""Beginning of an entry's name -> row set."""
UTILITY_PARTS = tuple(
    f"{prefix}_{part}"
    for prefix, prob in (("retain", "Q_A_Prob"), ("ra", "Q_A_Prob_normalised"), ("wf", "Q_A_Prob_normalised"))
    for part in (prob, "Q_A_ROUGE", "Truth_Ratio")
)
SAME_ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
"""Attacks that are defined as ours are, on question and answer. Not gradnorm (a mean over tensors) and
reference (the log does not say of which model)."""
ROUGES = ("rouge1_recall", "rougeL_f1", "rougeL_recall")
TEXTS = {"input": "prompt", "ground_truth": "answer", "generation": "generation"}
DOCUMENT_TEXTS = {"input": "prompt", "ground_truth": "gt", "generation": "continuation"}

Rows = dict[str, Any]
"""Row number -> value, None where the row has none."""


@dataclass(frozen=True)
class RowMetric:
    """An entry with a value per row.

    Args:
        rows: Row set.
        averaged: Field of a row whose mean is the figure.
        kind: Kind of its values.
        same: Name of this project's metric of the same definition; empty without one.
        texts: Field of a row -> column, of texts.
    """

    rows: str
    averaged: str
    kind: Kind
    same: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)


def one_or_several(kind: Kind) -> Kind:
    """Kind of a value, or of the list of those of several answers, in which null stands for none."""
    several = list_of(or_null(kind))
    return Kind(kind.about, lambda value: kind.holds(value) or several.holds(value))


def is_open_unlearning(log: Any) -> bool:
    """Whether a JSON value is a log with rows."""
    return isinstance(log, dict) and any(map(_has_rows, log.values()))


def is_summary(log: Any) -> bool:
    """Whether a JSON value is a summary: figures without rows."""
    return (
        isinstance(log, dict)
        and any(row_metric(name, True) or name.startswith("mia_") for name in log)
        and all(value is None or is_number(value) for value in log.values())
    )


def _has_rows(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    sides = [entry, entry.get("forget"), entry.get("holdout")]
    return any(isinstance(side, dict) and bool(side.get("value_by_index")) for side in sides)


def row_metric(name: str, muse: bool) -> RowMetric | None:
    """The reading of an entry with a value per row; None for any other entry. MUSE's rows are documents, of
    which this toolkit leaves out the last token: not our definition."""
    share = one_or_several(PROBABILITY)
    if found := re.fullmatch(r"(?:([a-z]+)_)?(exact_memorization|extraction_strength)", name):
        rows = SETS.get(found[1] or "forget")
        # Its extraction strength is never 0, but at least 1 / length.
        same = found[2] if found[2] == "exact_memorization" and not muse else ""
        return RowMetric(f"{rows}_documents" if muse else rows, "score", share, same) if rows else None
    prefix, _, rest = name.partition("_")
    rows = SETS.get(prefix)
    if rows is None:
        return None
    if found := re.fullmatch(r"Q_A_(PARA_|PERT_|)Prob", rest):
        same = {"": "prob" if rows in PARAPHRASED else "", "PARA_": "para_prob"}
        return RowMetric(rows, "prob", share, same.get(found[1], ""))
    if rest == "Q_A_Prob_normalised":
        return RowMetric(rows, "prob", PROBABILITY, "" if rows in PARAPHRASED else "prob")
    if rest == "Q_A_ROUGE":
        return RowMetric(rows, "rougeL_recall", share, "rougeL", TEXTS)
    if rest in ("Q_A_PARA_ROUGE", "Q_A_PERT_ROUGE"):
        return RowMetric(rows, "rougeL_recall", share, "", {"generation": f"{PREFIX}_{rest}.generation"})
    if rest.lower() == "truth_ratio":
        return RowMetric(rows, "score", number(0), "truth_ratio")
    if rest == "knowmem_ROUGE":
        return RowMetric(rows, "rougeL_f1", share, "", TEXTS)
    if rest == "verbmem_ROUGE":
        return RowMetric(f"{rows}_documents", "rougeL_f1", share, "", DOCUMENT_TEXTS)
    return RowMetric(rows, "score", share) if rest == "Q_A_gibberish" else None


def read_open_unlearning(path: Path, log: dict, retain: PublishedLog | None = None) -> PublishedLog:
    """Read a log whole.

    Args:
        path: Its file.
        log: Its content.
        retain: The retain model's log, by which forget_quality and privleak are recomputed.

    Raises:
        UserError: A value is of another kind than its format has, named with metric and row, or the retain
            model's log is of another benchmark.
    """
    muse = path.name.upper().startswith("MUSE") or any("knowmem" in name or "verbmem" in name for name in log)
    benchmark = "MUSE" if muse else "TOFU"
    if retain and retain.benchmark != benchmark:
        raise UserError(
            f"--retain {retain.path} is a log of {retain.benchmark}, and {path} is one of {benchmark}: name"
            " the log of a retain model on the same rows"
        )
    reading = _Reading(PublishedLog(path, "OpenUnlearning", CAUTION, benchmark=benchmark), log, muse)
    reading.read_rows()
    for name, entry in log.items():
        reading.add(name, entry)
    reading.add_derived(retain)
    return reading.log


class _Reading:
    """One log while it is read.

    Args:
        log: What is known so far.
        content: Name -> entry.
        muse: Whether its rows are MUSE's documents.
    """

    def __init__(self, log: PublishedLog, content: dict, muse: bool):
        self.log, self.content, self.muse = log, content, muse
        self.tables: dict[str, Rows] = {}

    def read_rows(self) -> None:
        """Check all entries and read the rows of those that have a value per row."""
        for name, entry in self.content.items():
            metric = row_metric(name, self.muse)
            if metric is None or entry is None:
                continue
            place = self._place(name)
            check_value(place, entry, OBJECT)
            check_fields(place, entry, {}, {"agg_value": or_null(number())})
            fields = {metric.averaged: metric.kind}
            self.tables[name] = self._rows(place, entry, fields)

    def add(self, name: str, entry: Any) -> None:
        """Add the figure of an entry and its columns, unless it is made of other entries."""
        metric = row_metric(name, self.muse)
        if name in ("forget_quality", "privleak", "model_utility"):
            if entry is not None:
                check_value(self._place(name), entry, OBJECT)
                check_fields(self._place(name), entry, {"agg_value": or_null(number())})
        elif entry is None:
            self.log.add(Figure(name, f"{PREFIX}/{name}", reason="null in the log"))
        elif metric:
            self._add_row_metric(name, metric)
        elif name.startswith("mia_"):
            self._add_attack(name, entry)
        else:
            self._add_unknown(name, entry)

    def add_derived(self, retain: PublishedLog | None) -> None:
        """Add the figures that are made of other figures."""
        if not self.muse:
            parts = {name: self.log.value(name) for name in UTILITY_PARTS}
            utility = harmonic_mean(parts)
            self._add_derived("model_utility", utility.value, utility.n, utility.reason)
            self._add_forget_quality(retain)
        if "privleak" in self.content:
            self._add_privleak(retain)

    def _place(self, name: str) -> str:
        return f"{self.log.path}: {name}"

    def _stored(self, name: str) -> float | None:
        return (self.content.get(name) or {}).get("agg_value")

    def _rows(self, place: str, entry: dict, fields: Mapping[str, Kind]) -> Rows:
        """Row number -> row, with `fields` checked and required; None for a row without values."""
        check_fields(place, entry, {}, {"value_by_index": or_null(OBJECT)})
        rows = numbered(f"{place}, value_by_index", entry.get("value_by_index") or {}, OBJECT)
        optional = {"avg_loss": or_null(one_or_several(LOSS)), **dict.fromkeys(TEXTS, STRING)}
        optional |= dict.fromkeys(ROUGES, or_null(one_or_several(PROBABILITY)))
        for index, row in rows.items():
            if row is not None:
                required = {field: kind for field, kind in fields.items() if row.get(field, 0) is not None}
                check_fields(f"{place}, row {index}", row, required, optional)
        return rows

    def _cells(self, name: str, field: str) -> Rows | None:
        """Row number -> value of a field, several answers averaged; None without that entry or field."""
        table = self.tables.get(name)
        if not table:
            return None
        cells = {index: None if row is None else row.get(field) for index, row in table.items()}
        return {index: _over_answers(fmean, cell) for index, cell in cells.items()}

    def _key(self, metric: RowMetric, name: str) -> str:
        key = f"{metric.rows}/{metric.same}"
        return key if metric.same and key in METRICS else f"{PREFIX}/{name}"

    def _add_row_metric(self, name: str, metric: RowMetric) -> None:
        cells = self._cells(name, metric.averaged)
        if cells is None:
            reason = "the log has no rows of it: as stored, not recomputed"
            self.log.add(Figure(name, self._key(metric, name), stored=self._stored(name), reason=reason))
        elif metric.same == "truth_ratio":
            self._add_truth_ratio(name, metric, cells)
        else:
            if name.endswith("_normalised"):
                share = lambda right, wrong: right / (right + wrong + GUARD)
                cells = self._renumbered(name, cells, _made_of(self._parts(name, "prob"), share))
            self._add_mean(name, self._key(metric, name), cells)
            self._put(name, metric, cells)

    def _add_mean(self, name: str, key: str, cells: Rows) -> None:
        value, n, unscored = mean(cells.values())
        stored = self._stored(name)
        reason = _left_out(unscored)
        if not n:
            reason = f"no row has a value in the log{'' if stored is None else ': as stored'}"
        self.log.add(Figure(name, key, value, stored, n, unscored, reason))

    def _put(self, name: str, metric: RowMetric, cells: Rows) -> None:
        """Add the columns of an entry: its value, the other numbers of its rows, its texts."""
        ending = name if name.startswith(("exact", "extraction")) else name.partition("_")[2]
        column = f"{PREFIX}_{ending}"
        differs = self._key(metric, name).startswith(PREFIX)
        self.log.put(metric.rows, column if differs else metric.same, cells)
        table = {index: row for index, row in self.tables[name].items() if row is not None}
        for part in dict.fromkeys(part for row in table.values() for part in row):
            values = {index: row[part] for index, row in table.items() if part in row}
            several = part == metric.averaged and any(isinstance(value, list) for value in values.values())
            if part in metric.texts:
                self.log.put(metric.rows, metric.texts[part], values)
            elif several or (part in ("avg_loss", *ROUGES) and part != metric.averaged):
                self.log.put(metric.rows, f"{column}.{part}", values)

    def _parts(self, name: str, field: str) -> tuple[Rows, Rows] | None:
        """The fields of the right answer and of the wrong answers that an entry is made of, by row."""
        prefix = name.partition("_")[0]
        paraphrased = field == "avg_loss" and SETS[prefix] in PARAPHRASED
        right = self._cells(f"{prefix}_Q_A_{'PARA_' if paraphrased else ''}Prob", field)
        wrong = self.tables.get(f"{prefix}_Q_A_PERT_Prob")
        if right is None or not wrong:
            return None
        combine = fmean if field == "avg_loss" else math.fsum
        answers = {index: None if row is None else row.get(field) for index, row in wrong.items()}
        return right, {index: _over_answers(combine, cell) for index, cell in answers.items()}

    def _renumbered(self, name: str, cells: Rows, made: Rows) -> Rows:
        """Cells under the row numbers of their parts: where a part has null rows, this toolkit numbers the
        others anew, from 0. A warning where cells are not what their parts give."""
        if not made:
            return cells
        stored = [value for value in cells.values() if value is not None]
        odd = [i for (i, one), value in zip(made.items(), stored) if not _near(one, value)]
        if len(stored) == len(made) and not odd:
            every = self.tables[f"{name.partition('_')[0]}_Q_A_PERT_Prob"]
            numbered_again = dict(zip(made, stored))
            return {index: numbered_again.get(index) for index in every}
        what = f"rows {counted(odd)} are not" if odd else f"{len(stored)} rows, but {len(made)} are"
        self.log.warnings.append(f"{name}: {what} what its probabilities give; its own rows are used")
        return cells

    def _add_truth_ratio(self, name: str, metric: RowMetric, cells: Rows) -> None:
        """The truth ratio R = w / p, w the geometric mean of the wrong answers' probabilities, or since
        December 2025 (aggregator prob_mean) the share p / (p + w)."""
        parts, stored = self._parts(name, "avg_loss"), self._stored(name)
        ratios = _made_of(parts, lambda p, w: math.exp(-w) / (math.exp(-p) + GUARD))
        shares = _made_of(parts, lambda p, w: math.exp(-p) / (math.exp(-p) + math.exp(-w) + GUARD))
        values = [value for value in cells.values() if value is not None]
        per_row = _forget_ratio if metric.rows == "forget" else _kept_ratio
        if shares:
            is_share = _all_near(shares, values) and not _all_near(ratios, values)
        else:  # without the losses: what the stored figure is the mean of
            is_share = not _is_mean(stored, map(per_row, values)) and _is_mean(stored, values)
        cells = self._renumbered(name, cells, shares if is_share else ratios)
        to_log = _log_of_share if is_share else _log_of_ratio
        self.log.put(
            metric.rows, "log_truth_ratio", {i: None if v is None else to_log(v) for i, v in cells.items()}
        )
        key = self._key(metric, name)
        if is_share:
            self.log.put(metric.rows, "truth_ratio_prob_mean", cells)
            key = f"{key}_prob_mean" if f"{key}_prob_mean" in METRICS else f"{PREFIX}/{name}_prob_mean"
            per_row = float
        self._add_mean(name, key, {i: None if cell is None else per_row(cell) for i, cell in cells.items()})

    def _add_attack(self, name: str, entry: Any) -> None:
        """A membership attack: mean score of each side, and the AUC by which holdout rows score higher."""
        place = self._place(name)
        check_value(place, entry, OBJECT)
        area = or_null(number(0, 1))
        sides = dict.fromkeys(("forget", "holdout"), or_null(OBJECT))
        check_fields(place, entry, {}, {"auc": area, "agg_value": area, **sides})
        attack = name.removeprefix("mia_")
        same = attack in SAME_ATTACKS and not self.muse
        scores: dict[str, list[float]] = {}
        unscored = 0
        for side in sides:
            part = entry.get(side) or {}
            check_fields(f"{place}, {side}", part, {}, {"agg_value": or_null(number())})
            rows = self._rows(f"{place}, {side}", part, {"score": number()})
            cells = {index: None if row is None else row.get("score") for index, row in rows.items()}
            value, n, left_out = mean(cells.values())
            value = _in_float32(cells.values(), value, part.get("agg_value"))
            key = f"{side}/mia_{attack}" if same else f"{PREFIX}/{name}/{side}"
            reason = _left_out(left_out) if rows else f"the log has no {side} rows of it: as stored"
            self.log.add(Figure(f"{name}.{side}", key, value, part.get("agg_value"), n, left_out, reason))
            column = f"mia_{attack}" if same else f"{PREFIX}_{name}"
            self.log.put(f"privleak_{side}" if self.muse else side, column, cells)
            scores[side] = [cell for cell in cells.values() if cell is not None]
            unscored += left_out
        area_key = f"mia/{attack}/auc" if same else f"{PREFIX}/{name}/auc"
        found = auc(*map(np.array, scores.values())) if all(scores.values()) else None
        n = sum(map(len, scores.values()))
        reason = _left_out(unscored) if found is not None else "needs forget and holdout rows: as stored"
        self.log.add(Figure(name, area_key, found, entry.get("agg_value"), n, unscored, reason))
        if "auc" in entry:
            self.log.add(Figure(f"{name}.auc", area_key, found, entry["auc"], n, unscored, reason))

    def _add_unknown(self, name: str, entry: Any) -> None:
        stored = entry.get("agg_value") if isinstance(entry, dict) else None
        if (
            not isinstance(entry, dict)
            or "agg_value" not in entry
            or not (stored is None or is_number(stored))
        ):
            self.log.warnings.append(f"{name}: not a metric of this format; left out")
            return
        reason = "unknown metric: as stored, not recomputed"
        self.log.warnings.append(f"{name}: {reason}")
        self.log.add(Figure(name, f"{PREFIX}/{name}", stored=stored, reason=reason))

    def _add_derived(self, name: str, value: float | None, n: int, reason: str = "", key: str = "") -> None:
        stored = self._stored(name)
        if value is None and stored is not None:
            reason = f"as stored, not recomputed: {reason}"
        self.log.add(Figure(name, key or name, value, stored, n, reason=reason))

    def _add_forget_quality(self, retain: PublishedLog | None) -> None:
        own = _scored(self.log, "log_truth_ratio")
        if not own:
            return self._add_derived("forget_quality", None, 0, "needs rows of forget_truth_ratio")
        theirs = _scored(retain, "log_truth_ratio") if retain else []
        if retain is None or not theirs:
            null = "forget_quality" in self.content and self._stored("forget_quality") is None
            where = "null in the log, whose evaluation had none: " if null else ""
            return self._add_derived(
                "forget_quality", None, 0, f"{where}needs the retain model's log (--retain)"
            )
        test = ks_test(own, theirs)
        # A null there is no other value: that evaluation had no retain model.
        self._add_derived("forget_quality", test.p, len(own), f"against {len(theirs)} rows of {retain.path}")
        for key, value in (("forget_quality_ks", test.statistic), ("forget_quality_log10", test.log10_p)):
            self.log.add(Figure(key, key, value, n=len(own)))

    @staticmethod
    def _membership_rows(log: PublishedLog) -> list[int]:
        return [len(log.columns.get(rows, ())) for rows in ("forget", "holdout")]

    def _add_privleak(self, retain: PublishedLog | None) -> None:
        """100 ((1 - auc) - (1 - auc_retain)) / (1 - auc_retain + GUARD) of Min-K. An evaluation without the
        retain model's log takes .5 for auc_retain."""
        own, stored = self.log.value("mia_min_k"), self._stored("privleak")
        theirs = retain.value("mia_min_k") if retain else None
        where = f"{PREFIX}/" if self.muse else ""
        value, reason = None, "needs mia_min_k"
        if own is not None:
            leak = lambda area: 100 * ((1 - own) - (1 - area)) / ((1 - area) + GUARD)
            reason = "needs the retain model's log (--retain)"
            if retain is not None and self._membership_rows(retain) != self._membership_rows(self.log):
                reason = f"{retain.path} has other numbers of forget and holdout rows"
            elif retain is not None and theirs is not None:
                value, reason = leak(theirs), f"against {retain.path}"
            vs_half = stored is not None and _near(leak(0.5), stored, TOLERANCE)
            if vs_half and (value is None or not _near(value, stored or 0.0, TOLERANCE)):
                reason = "the evaluation took .5 for the retain model's AUC"
                return self._add_derived("privleak", leak(0.5), 0, reason, f"{where}privleak_vs_half")
        self._add_derived("privleak", value, 0, reason, f"{where}privleak")


def _made_of(parts: tuple[Rows, Rows] | None, formula: Callable[[float, float], float]) -> Rows:
    """Row number -> formula(right, wrong), of the rows that have both parts."""
    right, wrong = parts or ({}, {})
    both = [i for i in right if right[i] is not None and wrong.get(i) is not None]
    return {index: formula(right[index], wrong[index]) for index in both}


def _over_answers(combine: Callable, cell: Any) -> float | None:
    """A figure of a row: of several answers, their sum or mean; None where one has none."""
    if not isinstance(cell, list):
        return cell
    return None if None in cell else combine(cell)


def _near(one: float, other: float, tolerance: float = ROW_TOLERANCE) -> bool:
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=1e-12)


def _all_near(rows: Rows, values: list[float]) -> bool:
    return len(rows) == len(values) and all(map(_near, rows.values(), values))


def _is_mean(stored: float | None, values: Iterable[float]) -> bool:
    """Whether a stored figure is the mean of values."""
    found, _, _ = mean(values)
    return stored is not None and found is not None and _near(stored, found, 1e-12)


def _forget_ratio(ratio: float) -> float:
    """1 where true and false are equally likely."""
    return min(ratio, 1 / (ratio + GUARD))


def _kept_ratio(ratio: float) -> float:
    """1 where only the true answer is likely."""
    return max(0.0, 1 - ratio)


def _log_of_ratio(ratio: float) -> float:
    return math.log(ratio) if ratio > 0 else LEAST


def _log_of_share(share: float) -> float:
    """log (w / p) of a share p / (p + w)."""
    if share <= 0:
        return -LEAST
    return math.log((1 - share) / share) if share < 1 else LEAST


def _in_float32(cells: Iterable[float | None], value: float | None, stored: float | None) -> float | None:
    """The mean of scores, in float32 where the log's was: some attacks keep their scores so."""
    scores = np.array([cell for cell in cells if cell is not None])
    single = scores.astype(np.float32)
    if not len(scores) or (single != scores).any():
        return value
    rounded = float(single.mean())
    return rounded if rounded == stored else value


def _scored(log: PublishedLog, column: str) -> list[float]:
    cells = [row.get(column) for row in log.columns.get("forget", {}).values()]
    return [cell for cell in cells if cell is not None]


def _left_out(unscored: int) -> str:
    return f"{unscored} rows have no value in the log" if unscored else ""
