"""Metrics measured: needs gathered, met by the fewest passes, computed, with intervals."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..core.files import UserError
from .inputs import MetricInputs, texts_of
from .runner import EvalRunner
from .spec import (
    METRICS,
    RUN,
    Decoding,
    Fluency,
    Generations,
    Judges,
    Likelihood,
    Metric,
    Need,
    PerRow,
    Rows,
    Value,
)


def measure(
    keys: Sequence[str],
    rows: Rows,
    runner: EvalRunner,
    retain_columns=None,
    bootstrap: int = 1000,
    seed: int = 0,
    judges: Judges = Judges(),
) -> MetricInputs:
    """Meet the needs of all metrics, one teacher-forced pass per row set, then compute them in order."""
    inputs = MetricInputs(rows, retain_columns, runner.template.tags, runner.decoding, judges, runner.cut)
    refused: dict[Need, str] = {}
    needs = _needs(keys, rows)
    for name in dict.fromkeys(need.rows for need in needs if isinstance(need, Likelihood)):
        fields = [need.field for need in needs if isinstance(need, Likelihood) and need.rows == name]
        for text_field, scores in runner.likelihoods(rows[name], fields).items():
            inputs.scores[Likelihood(name, text_field)] = scores
    for need in _generations(needs):
        _meet(need, inputs.texts, refused, lambda need=need: runner.generations(rows[need.rows], need))
    for need in needs:
        if isinstance(need, Fluency) and need.of in refused:
            refused[need] = refused[need.of]
        elif isinstance(need, Fluency):
            _meet(
                need,
                inputs.fluencies,
                refused,
                lambda need=need: runner.fluency(rows[need.rows], need.of, inputs.texts[need.of]),
                need.of,
            )
    for key in keys:
        reason = _missing(METRICS[key], rows) or next(
            (refused[need] for need in METRICS[key].needs if need in refused), ""
        )
        inputs.values[key] = (
            Value(None, reason) if reason else _compute(METRICS[key], inputs, bootstrap, seed)
        )
    return inputs


def count_texts(keys: Sequence[str], rows: Rows, decoding: Decoding = Decoding()) -> int:
    """How many texts `measure` puts to a model, as `EvalRunner.on_rows` counts them: every answer that is
    scored, every one that is generated, of MoreThink once for each of its turns."""
    needs, count = _needs(keys, rows), lambda need: sum(len(texts_of(r, need.field)) for r in rows[need.rows])
    turns = lambda need: decoding.rounds + 1 if (need.mode, decoding.mode) == (RUN, "more") else 1
    scored = sum(count(need) for need in needs if not isinstance(need, Generations))
    return scored + sum(count(need) * turns(need) for need in _generations(needs))


def _needs(keys: Sequence[str], rows: Rows) -> list[Need]:
    """What the metrics that can be measured on these rows ask for, each once."""
    usable = [METRICS[key] for key in keys if not _missing(METRICS[key], rows)]
    return list(dict.fromkeys(need for found in usable for need in found.needs))


def _generations(needs: Sequence[Need]) -> list[Generations]:
    """What is to be generated, for itself or to have its fluency judged."""
    generated = (need.of if isinstance(need, Fluency) else need for need in needs)
    return list(dict.fromkeys(need for need in generated if isinstance(need, Generations)))


def _meet(need: Need, kept: dict, refused: dict[Need, str], act: Callable, key: Need | None = None) -> None:
    """Keep what a need asks for, or the reason why it is not to be had."""
    try:
        kept[key or need] = act()
    except UserError as error:
        refused[need] = str(error)


def _missing(found: Metric, rows: Rows) -> str:
    """Why a metric cannot be measured on these row sets ("" when it can)."""
    for need in found.needs:
        if not rows.get(need.rows):
            return f"this data set has no {need.rows} rows"
        lacking = sum(need.field not in row for row in rows[need.rows])
        if lacking:
            count = "the" if lacking == len(rows[need.rows]) else f"{lacking} of {len(rows[need.rows])}"
            return f"{count} {need.rows} rows have no {need.field!r}"
    if found.rows is None:
        return ""
    absent = [name for name in found.fields if any(name not in row for row in rows[found.rows])]
    return f"the {found.rows} rows have no {absent[0]!r}" if absent else ""


def _compute(found: Metric, inputs: MetricInputs, bootstrap: int, seed: int) -> Value:
    result = found.compute(inputs)
    if isinstance(result, Value):
        return result
    if not isinstance(result, PerRow):
        result = PerRow(result)
    values = [_finite(value) for value in result.values]
    scored = np.array([value for value in values if value is not None], dtype=float)
    columns = {found.name.partition("/")[2]: values} | {
        name: [_finite(v) for v in cells] for name, cells in result.columns.items()
    }
    unscored = len(values) - len(scored)
    if not len(scored):
        return Value(None, "no row could be scored", 0, unscored, None, columns)
    return Value(float(scored.mean()), "", len(scored), unscored, interval(scored, bootstrap, seed), columns)


def _finite(value):
    """A number that is none (no token to score, a wrecked model) is an unscored cell."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of the mean over rows; None when `resamples` is 0."""
    if not resamples:
        return None
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
