"""Forget quality (TOFU, arXiv:2401.06121) with what a p-value alone hides: D, the number of rows, the nearest
other values of p, the p of an honest retrain, and whether the model is nearer to the retain model than to the
original.

All of it reads log truth ratios of the forget rows, one per row: of this model, of a retain model, of a
second retain model and of the original model. See docs/forget_quality.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .inputs import Columns, MetricInputs
from .ks_test import KsTest, ks_test
from .privacy import RETAIN
from .relative_test import RESAMPLES, RelativeTest, relative_test
from .spec import About, Value, metric

SOURCE = "TOFU (arXiv:2401.06121)"
FAMILY = "tofu"
"""The figures belong to TOFU's, with which `evaluate.metrics tofu` has always chosen them."""
COVERAGE = 0.95
"""Least share of all forget rows that each side must have a truth ratio for: with few rows p is high whatever
the models are."""
WRITTEN_BY = " (make_perturbed.py writes them for your own rows)"
THIS_RUN = "this run"
SECOND = "needs a second retain model's results: set evaluate.second_retain_results to its run folder"
ORIGINAL = (
    "needs the original model's results: set evaluate.original_results to its run folder (a run that trains"
    " takes its initial model's, with evaluate.before)"
)
LOWEST = math.log(5e-324)
"""In place of log 0: the log of the smallest float, for logs whose truth ratio is 0."""


@dataclass(frozen=True)
class Ratios:
    """Log truth ratios of one model.

    Args:
        source: "this run", or the evaluation that they are read from.
        rows: Row id -> value; None for a row without one.
    """

    source: str
    rows: Mapping[str, float | None]

    @property
    def scored(self) -> dict[str, float]:
        return {identity: value for identity, value in self.rows.items() if value is not None}


@dataclass(frozen=True)
class Comparison:
    """A test between two models, and what it leaves out."""

    test: KsTest
    note: str

    @property
    def details(self) -> dict[str, Any]:
        test, other = self.test, {"next_lower": self.test.next_lower, "next_higher": self.test.next_higher}
        return {
            "D": test.statistic,
            "log10_p": test.log10_p,
            "rows": test.n,
            "other_rows": test.m,
            **{name: {"D": near.statistic, "p": near.p} if near else None for name, near in other.items()},
        }


def _own_ratios(inputs: MetricInputs) -> Ratios | str:
    """This model's, or why there are none."""
    found = inputs.values["forget/truth_ratio"]
    ratios = found.columns.get("log_truth_ratio")
    if not ratios:
        return f"needs forget/truth_ratio: {found.reason}" + (
            WRITTEN_BY if "_answer'" in found.reason else ""
        )
    return Ratios(THIS_RUN, dict(zip((row["id"] for row in inputs.rows["forget"]), ratios, strict=True)))


def _ratios_of(columns: Columns | None, source: str, missing: str) -> Ratios | str:
    """Another model's; `missing` is the reason where its evaluation is not given."""
    return missing if columns is None else _ratios(columns, source)


def _ratios(columns: Columns, source: str) -> Ratios:
    rows = columns.get("forget", {})
    return Ratios(source, {identity: row.get("log_truth_ratio") for identity, row in rows.items()})


def _refusal(sides: list[Ratios]) -> str:
    """Why these models cannot be compared; empty where each has a truth ratio for nearly all forget rows that
    any of them has."""
    every = set().union(*(side.rows for side in sides))
    first = sides[0]
    for side in sides[1:]:
        if len(side.rows.keys() & first.rows.keys()) < COVERAGE * len(every):
            return _of_other_rows(first, side)
    for side in sides:
        if len(side.scored) < COVERAGE * len(every) or not every:
            where = "" if side.source == THIS_RUN else f" in {side.source}"
            return f"{len(every) - len(side.scored)} of {len(every)} forget rows have no truth ratio{where}"
    return ""


def _of_other_rows(first: Ratios, other: Ratios) -> str:
    unknown = [identity for identity in first.rows if identity not in other.rows]
    reason = (
        f"{other.source} are of other forget rows: they have {len(other.rows)}, {first.source}"
        f" {len(first.rows)}"
        + (f", {len(unknown)} of them unknown there (first {unknown[0]!r})" if unknown else "")
    )
    reason += "; measure both on the same rows (dataset.forget_dataset_name, evaluate.rows)"
    samples = [list(side.scored.values()) for side in (first, other)]
    if not all(samples):
        return reason
    test = ks_test(*samples)
    return (
        f"{reason}. Over all values, as the official code takes them, p = {test.p:.3g}"
        f" (D = {test.statistic:.3g})"
    )


def _compare(one: Ratios | str, other: Ratios | str) -> Comparison | str:
    """The test between two models, over all values that each has, or why there is none."""
    if isinstance(one, str):
        return one
    if isinstance(other, str):
        return other
    if reason := _refusal([one, other]):
        return reason
    test = ks_test(list(one.scored.values()), list(other.scored.values()))
    notes = []
    if one.scored.keys() != other.scored.keys():
        notes.append(
            f"over {test.n} rows of {one.source} and {test.m} of {other.source}: a row without a truth ratio"
            " on one side counts on the other, as in the official code"
        )
    if not test.p:
        notes.append("p is below 1e-308, see forget_quality_log10")
    return Comparison(test, "; ".join(notes))


def _against_retain(inputs: MetricInputs) -> Comparison | str:
    return _compare(_own_ratios(inputs), _retain(inputs))


def _retain(inputs: MetricInputs) -> Ratios | str:
    return _ratios_of(inputs.retain_columns, "the retain results", RETAIN)


def quality_of_evaluations(columns: Columns, retain_columns: Columns | None) -> dict[str, Value]:
    """forget_quality, its log10 and its statistic from the rows of two finished evaluations.

    Rows with ids must be the same rows, as in a run. Numbered rows are those of logs: the official code tests
    any two logs of any two sizes (ks_2samp in TOFU's aggregate_eval_stat.py and OpenUnlearning's privacy.py),
    and so it is done here.

    Args:
        columns: Row set -> row id -> column -> value.
        retain_columns: The same of the retain model; None without one.
    """
    found = _compare_evaluations(columns, retain_columns)
    if isinstance(found, str):
        return dict.fromkeys(
            ("forget_quality", "forget_quality_log10", "forget_quality_ks"), Value(None, found)
        )
    test = found.test
    return {
        "forget_quality": Value(test.p, found.note, test.n, details=found.details),
        "forget_quality_log10": Value(test.log10_p, found.note, test.n),
        "forget_quality_ks": Value(test.statistic, found.note, test.n),
    }


def _compare_evaluations(columns: Columns, retain_columns: Columns | None) -> Comparison | str:
    if retain_columns is None:
        return "needs a retain model's results"
    own, retain = _ratios(columns, "this evaluation"), _ratios(retain_columns, "the retain results")
    if empty := next((side for side in (own, retain) if not side.scored), None):
        return f"{empty.source}: no truth ratio of any forget row"
    if not all(identity.isdigit() for side in (own, retain) for identity in side.rows):
        return _compare(own, retain)
    samples = [list(side.scored.values()) for side in (own, retain)]
    test, shorter = ks_test(*samples), min(map(len, samples))
    if test.n == test.m:
        return Comparison(test, "")
    # Its 300 rows of the full model against 40 of retain99 give the published 1.2708e-3 only so.
    last = ks_test(*(values[-shorter:] for values in samples))
    return Comparison(
        test,
        f"{test.n} forget rows against the retain model's {test.m}, as the official code tests; TOFU's"
        f" leaderboard has the last {shorter} of both: p {last.p:.6g}, D {last.statistic:.6g}",
    )


@metric(
    "forget_quality",
    after=["forget/truth_ratio"],
    good="up",
    about=About(
        formula=(
            "p of the two-sided KS test between the forget truth ratios R of the model and of a retain model"
        ),
        range="0 to 1; few rows allow few values, the nearest are in metrics_detail.json",
        blind_spot=(
            "high where rows are few; near 0 for a wrecked model as for one that forgot nothing; blind to"
            " which row has which value"
        ),
        source=SOURCE,
        other_toolkits=(
            "WAGLE gives the name to a test between forget and retain rows of the same model. Where two logs"
            " differ in rows, TOFU's leaderboard tests the last ones of the longer log."
        ),
    ),
    family=FAMILY,
)
def forget_quality(inputs: MetricInputs) -> Value:
    found = _against_retain(inputs)
    if isinstance(found, str):
        return Value(None, found)
    return Value(found.test.p, found.note, found.test.n, details=found.details)


@metric(
    "forget_quality_log10",
    after=["forget/truth_ratio"],
    good="up",
    about=About(
        formula="log10 of forget_quality",
        range="at most 0; finite where p is too small for a float",
        blind_spot="what forget_quality cannot see; the same distance D has a smaller p with more rows",
        source=SOURCE,
        other_toolkits="TOFU and OpenUnlearning report p alone.",
    ),
    family=FAMILY,
)
def forget_quality_log10(inputs: MetricInputs) -> Value:
    found = _against_retain(inputs)
    if isinstance(found, str):
        return Value(None, found)
    return Value(found.test.log10_p, found.note, found.test.n)


@metric(
    "forget_quality_ks",
    after=["forget/truth_ratio"],
    good="down",
    about=About(
        formula="D of the test of forget_quality: largest distance between the two distribution functions",
        range="0 to 1; tells models apart where p is near 0 for all",
        blind_spot="two models can agree in distribution and differ on every row",
        source=SOURCE,
    ),
    family=FAMILY,
)
def forget_quality_ks(inputs: MetricInputs) -> Value:
    found = _against_retain(inputs)
    if isinstance(found, str):
        return Value(None, found)
    return Value(found.test.statistic, found.note, found.test.n)


@metric(
    "forget_quality_yardstick",
    good="up",
    about=About(
        formula="forget_quality of a second retain model against the first: what an honest retrain gets",
        range="0 to 1",
        blind_spot="it is one draw: a third retain model gives another value",
        source="this project, after arXiv:2601.19755",
    ),
    family=FAMILY,
)
def forget_quality_yardstick(inputs: MetricInputs) -> Value:
    second = _ratios_of(inputs.second_retain_columns, "the second retain results", SECOND)
    found = _compare(_retain(inputs), second)
    if isinstance(found, str):
        return Value(None, found)
    return Value(found.test.p, found.note, found.test.n, details=found.details)


def _relative(inputs: MetricInputs) -> tuple[RelativeTest, int, str] | str:
    """The test, its number of rows and what it leaves out, or why there is none."""
    original = _ratios_of(inputs.original_columns, "the original results", ORIGINAL)
    sides: list[Ratios] = []
    for side in (_own_ratios(inputs), _retain(inputs), original):
        if isinstance(side, str):
            return side
        sides.append(side)
    if reason := _refusal(sides):
        return reason
    scored = [side.scored for side in sides]
    common = [identity for identity in scored[0] if all(identity in values for values in scored)]
    unlearned, retain, initial = (
        np.maximum([values[identity] for identity in common], LOWEST) for values in scored
    )
    try:
        test = relative_test(unlearned, retain, initial)
    except ValueError as error:
        return str(error)
    left_out = len(set().union(*scored)) - len(common)
    return test, len(common), f"{left_out} rows lack a truth ratio of one of the models" if left_out else ""


@metric(
    "forget/nearer_to_retain",
    after=["forget/truth_ratio"],
    good="up",
    about=About(
        formula=(
            "share of row bootstraps in which MMD²(model, retain model) < MMD²(model, original model), of"
            " log R under a Gaussian kernel"
        ),
        range="0 to 1; above .95 nearer to the retain model, below .05 to the original",
        blind_spot="1 is no proof of forgetting: a wrecked model can be nearer to the retain model too",
        source=(
            "relative test of arXiv:1511.04581, proposed for unlearning in arXiv:2601.19755; row bootstrap"
            " of this project"
        ),
    ),
    family=FAMILY,
)
def nearer_to_retain(inputs: MetricInputs) -> Value:
    found = _relative(inputs)
    if isinstance(found, str):
        return Value(None, found)
    test, n, note = found
    details = {"mmd2_to_retain": test.to_retain, "mmd2_to_original": test.to_original, "resamples": RESAMPLES}
    return Value(test.share, note, n, details=details)


@metric(
    "forget/relative_test_p",
    after=["forget/truth_ratio"],
    good="up",
    about=About(
        formula=(
            "one-sided normal p of the relative test, null hypothesis MMD²(model, retain model) <="
            " MMD²(model, original model), of log R"
        ),
        range="0 to 1; low where the model is nearer to the original",
        blind_spot=(
            "it takes the three samples to be independent, which the same rows are not: p is nearer to .5"
            " than it should be, so read forget/nearer_to_retain first"
        ),
        source="arXiv:1511.04581",
    ),
    family=FAMILY,
)
def relative_test_p(inputs: MetricInputs) -> Value:
    found = _relative(inputs)
    if isinstance(found, str):
        return Value(None, found)
    return Value(found[0].p, found[2], found[1])
