"""Measurement: needs of all metrics gathered, met in the fewest passes, metrics computed with intervals."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..core.files import UserError
from .inputs import Columns, MetricInputs, texts_of
from .resampling import NONE, interval_of_mean, percentiles, resampled_figures, resampled_means
from .runner import EvalRunner
from .spec import (
    METRICS,
    PREFIX_ROWS,
    RUN,
    Decoding,
    Documents,
    Fluency,
    Generations,
    GradientNorm,
    Judges,
    Likelihood,
    Metric,
    Need,
    OfSamples,
    PerRow,
    Rows,
    Samples,
    Sampling,
    Value,
)


@dataclass(frozen=True)
class MeasureOptions:
    """What metrics are computed with, beside rows and model.

    Args:
        retain_columns: Per-row values of a retain model, None without one.
        judges: Judge of answers and traces, embedding similarity, entailment model.
        bootstrap: Resamples of an interval; 0 is no interval.
        seed: Seed of the resamples.
        second_retain_columns: Per-row values of a second retain model, None without one.
        original_columns: Per-row values of the model before unlearning, None without.
        row_files: Row set -> file of the data set that it comes from, for the reason of a null.
        on_metric: Called with the number of each metric, from 1, and its key before it is computed.
    """

    retain_columns: Columns | None = None
    judges: Judges = Judges()
    bootstrap: int = 1000
    seed: int = 0
    second_retain_columns: Columns | None = None
    original_columns: Columns | None = None
    row_files: Mapping[str, str] = field(default_factory=dict)
    on_metric: Callable[[int, str], None] = lambda number, key: None


def measure(
    keys: Sequence[str], rows: Rows, runner: EvalRunner, options: MeasureOptions = MeasureOptions()
) -> MetricInputs:
    """Meet the needs of all metrics and compute the metrics in order.

    Each row set gets one teacher-forced pass, whichever fields of it are scored, and each different
    `Generations` or `Samples` need one decoding pass.

    Args:
        keys: Metric keys, each after those whose values it reads (see `spec.select`).
        rows: Row sets by name.
        runner: Model passes.
        options: Retain model's values, judges, intervals.

    Returns:
        The inputs with a value for every key; a metric whose needs cannot be met has value None and a reason.
        Where several processes share the rows, only the first computes metrics.
    """
    inputs = MetricInputs(
        rows,
        options.retain_columns,
        runner.template.tags,
        runner.options.decoding,
        runner.options.convention,
        options.judges,
        runner.cut,
        runner.ids,
        runner.token_spans,
        second_retain_columns=options.second_retain_columns,
        original_columns=options.original_columns,
    )
    needs = _needs(keys, rows)
    _meet_likelihoods(needs, rows, runner, inputs)
    refused: dict[Need, str] = {}
    for need in needs:
        if isinstance(need, GradientNorm):
            with _noting(need, refused):
                inputs.gradient_norms[need] = runner.gradient_norms(rows[need.rows], need.field)
        if isinstance(need, Documents):
            inputs.documents[need.rows] = runner.documents(rows[need.rows])
    refused |= _meet_texts(needs, rows, runner, inputs)
    if not runner.options.share.is_main:
        return inputs
    for number, key in enumerate(keys, 1):
        options.on_metric(number, key)
        found = METRICS[key]
        reasons = [
            unmeasurable(found, rows, options.row_files),
            *(refused.get(need, "") for need in found.needs),
        ]
        reason = next(filter(None, reasons), "")
        inputs.values[key] = Value(None, reason) if reason else _compute(found, inputs, options)
    return inputs


@contextlib.contextmanager
def _noting(need: Need, refused: dict[Need, str]) -> Iterator[None]:
    """Note in `refused` why a need cannot be met."""
    try:
        yield
    except UserError as error:
        refused[need] = str(error)


def _meet_texts(
    needs: Sequence[Need], rows: Rows, runner: EvalRunner, inputs: MetricInputs
) -> dict[Need, str]:
    """Generate, sample and judge the fluency of the texts that metrics read.

    Returns:
        Need -> why it cannot be met.
    """
    refused: dict[Need, str] = {}
    for need in _generations(needs):
        with _noting(need, refused):
            inputs.texts[need] = runner.generations(rows[need.rows], need)
    for need in needs:
        if isinstance(need, Samples):
            with _noting(need, refused):
                inputs.samples[need] = runner.samples(rows[need.rows], need)
    for need in needs:
        if isinstance(need, Fluency) and need.of in refused:
            refused[need] = refused[need.of]
        elif isinstance(need, Fluency):
            with _noting(need, refused):
                texts = inputs.texts[need.of]
                inputs.fluencies[need.of] = runner.fluency(rows[need.rows], need.of, texts)
    return refused


def _meet_likelihoods(needs: Sequence[Need], rows: Rows, runner: EvalRunner, inputs: MetricInputs) -> None:
    """Score each answer once: one pass for each row set and prefix, with moments where some metric needs
    them."""
    asked = [need for need in needs if isinstance(need, Likelihood)]
    for name, prefix in dict.fromkeys((need.rows, need.prefix) for need in asked):
        together = [need for need in asked if (need.rows, need.prefix) == (name, prefix)]
        fields = list(dict.fromkeys(need.field for need in together))
        before = rows[prefix][:PREFIX_ROWS] if prefix else ()
        with_moments = {need.field for need in together if need.moments}
        for moments in (False, True):
            some = [field for field in fields if (field in with_moments) == moments]
            if some:
                for field, scores in runner.likelihoods(rows[name], some, moments, before).items():
                    inputs.scores[name, field, prefix] = scores


def count_texts(
    keys: Sequence[str], rows: Rows, decoding: Decoding = Decoding(), sampling: Sampling = Sampling()
) -> int:
    """Number of texts that `measure` processes, as `EvalRunner.on_rows` counts them: every scored answer,
    every sampled answer and every generated text, with MoreThink once for each turn."""

    def turns(need: Need) -> int:
        if isinstance(need, Samples):
            return sampling.count
        if not isinstance(need, Generations):
            return 1
        return decoding.rounds + 1 if need.mode == RUN and decoding.mode == "more" else 1

    needs = _needs(keys, rows)
    passes = [*(need for need in needs if not isinstance(need, Generations)), *_generations(needs)]
    return sum(turns(need) * len(texts_of(row, need.field)) for need in passes for row in rows[need.rows])


def _needs(keys: Sequence[str], rows: Rows) -> list[Need]:
    """Needs of the metrics that can be measured on these rows, each once."""
    usable = [METRICS[key] for key in keys if not unmeasurable(METRICS[key], rows)]
    return list(dict.fromkeys(need for found in usable for need in found.needs))


def _generations(needs: Sequence[Need]) -> list[Generations]:
    """Texts to be generated, for metrics or for their fluency."""
    generated = (need.of if isinstance(need, Fluency) else need for need in needs)
    return list(dict.fromkeys(need for need in generated if isinstance(need, Generations)))


def unmeasurable(found: Metric, rows: Rows, files: Mapping[str, str] = {}) -> str:
    """Why a metric cannot be measured on these row sets ("" when it can); `files` as in `MeasureOptions`."""
    for need in found.needs:
        prefix = need.prefix if isinstance(need, Likelihood) else ""
        if absent := next((name for name in (prefix, need.rows) if name and not rows.get(name)), ""):
            return f"this data set has no {absent} rows{f' ({files[absent]})' if absent in files else ''}"
        lacking = sum(need.field not in row for row in rows[need.rows])
        if lacking:
            count = "the" if lacking == len(rows[need.rows]) else f"{lacking} of {len(rows[need.rows])}"
            return f"{count} {need.rows} rows have no {need.field!r}"
    if found.rows is None:
        return ""
    absent = [name for name in found.fields if any(name not in row for row in rows[found.rows])]
    return f"the {found.rows} rows have no {absent[0]!r}" if absent else ""


def without_rows(keys: Sequence[str], rows: Rows) -> set[str]:
    """Those of the metrics whose row sets this data set lacks, and those that are made of them alone."""
    lacking: set[str] = set()
    for key in keys:  # what a metric is made of stands before it
        found = METRICS[key]
        sets = {need.rows for need in found.needs} | ({found.rows} if found.rows else set())
        if any(not rows.get(name) for name in sets) or (found.after and lacking.issuperset(found.after)):
            lacking.add(key)
    return lacking


def _compute(found: Metric, inputs: MetricInputs, options: MeasureOptions) -> Value:
    result = found.compute(inputs)
    if isinstance(result, Value):
        return result
    if isinstance(result, OfSamples):
        return _figure_of_samples(result, options)
    if not isinstance(result, PerRow):
        result = PerRow(result)
    if found.rows and len(result.values) != len(inputs.rows[found.rows]):
        # Values of other rows would stand beside these in samples/*.jsonl.
        raise ValueError(
            f"metric {found.name}: {len(result.values)} values for {len(inputs.rows[found.rows])} rows of"
            f" {found.rows!r}"
        )
    values = [_finite(value) for value in result.values]
    scored = np.array([value for value in values if value is not None], dtype=float)
    columns = {found.column: values} | {
        name: [_finite(v) for v in cells] for name, cells in result.columns.items()
    }
    unscored = len(values) - len(scored)
    if not len(scored):
        return Value(None, "no row could be scored", 0, unscored, None, columns, result.details)
    means = resampled_means(scored, options.bootstrap, options.seed)
    around, made = interval_of_mean(scored, means, found.is_share)
    details = {**result.details, **({"interval_by": made} if made else {})}
    return Value(float(scored.mean()), "", len(scored), unscored, around, columns, details, means)


def _figure_of_samples(result: OfSamples, options: MeasureOptions) -> Value:
    """A figure of several samples, with a percentile bootstrap interval."""
    n = sum(map(len, result.samples))
    if not all(map(len, result.samples)):
        return Value(None, "no row could be scored in one of its row sets", n, result.unscored)
    figures = resampled_figures(result, options.bootstrap, options.seed)
    value = float(result.figure(*result.samples))
    around = percentiles(figures) if n > len(result.samples) else None
    equal = around is None and n > len(result.samples) and len(figures)
    details = {**result.details, **({"interval_by": NONE} if equal else {})}
    return Value(value, "", n, result.unscored, around, details=details, resamples=figures)


def _finite(value):
    """None for NaN and infinities (no token to score, a wrecked model): an unscored cell."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
