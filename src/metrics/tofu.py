"""TOFU's metrics (Maini et al., arXiv:2401.06121): probability, ROUGE-L, truth ratio, utility and
forget quality. The truth ratio has the geometric mean of TOFU's official aggregation.

Row sets: forget, retain (rows of retain_eval where a source has them), real (real authors) and world (world
facts). Real and world rows have no paraphrased answer; their probability is normalised over the right and the
wrong answers.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from .aggregates import mean_of_values
from .forget_quality import SOURCE, quality_of_evaluations
from .inputs import MetricInputs
from .rouge import rougeL
from .spec import METRICS, About, Generations, Good, Likelihood, PerRow, Value, metric

SETS = ("forget", "retain", "real", "world")
PARAPHRASED = ("forget", "retain")
UTILITY_PARTS = tuple(f"{rows}/{name}" for rows in SETS[1:] for name in ("prob", "rougeL", "truth_ratio"))


def _good(rows: str, forget: Good = "down") -> Good:
    return forget if rows == "forget" else "up"


def _register_prob(rows: str) -> None:
    answers = Likelihood(rows, "answer")
    if rows in PARAPHRASED:

        @metric(
            f"{rows}/prob",
            rows=rows,
            needs=[answers],
            good=_good(rows),
            about=About(
                formula="exp(-mean NLL per token of the answer, terminator included), mean over rows",
                range="0 to 1",
                blind_spot="knowledge in other wordings; a wrecked model scores low too",
                source=SOURCE,
                other_toolkits=(
                    "OpenUnlearning leaves out the first answer token where the prompt ends in a blank that"
                    " merges with it (evaluate.convention). A row without an answer token makes its mean"
                    " NaN; here the row is unscored."
                ),
            ),
        )
        def prob(inputs: MetricInputs):
            return [scores[0].prob for scores in inputs.likelihood(rows, "answer")]

    else:

        @metric(
            f"{rows}/prob",
            rows=rows,
            needs=[answers, Likelihood(rows, "perturbed_answer")],
            good="up",
            about=About(
                formula="p / (p + sum of the wrong answers' p), p = exp(-mean NLL per token), mean over rows",
                range="0 to 1; chance is 1 / number of answers",
                blind_spot=(
                    "it is relative: an unlikely answer scores high where the wrong ones are less likely"
                    " still"
                ),
                source=SOURCE,
                other_toolkits=(
                    "OpenUnlearning adds 1e-10 to the denominator, which pulls the share of tiny"
                    " probabilities to 0."
                ),
            ),
        )
        def normalised_prob(inputs: MetricInputs):
            right = [scores[0].prob for scores in inputs.likelihood(rows, "answer")]
            wrong = [
                sum(score.prob for score in scores) for scores in inputs.likelihood(rows, "perturbed_answer")
            ]
            # All zero where every probability underflows.
            return [0.0 if r + w == 0 else r / (r + w) for r, w in zip(right, wrong)]


def _register_rouge(rows: str) -> None:
    @metric(
        f"{rows}/rougeL",
        rows=rows,
        needs=[Generations(rows)],
        good=_good(rows),
        about=About(
            formula="ROUGE-L recall of the greedy answer against the reference, stemmed, mean over rows",
            range="0 to 1",
            blind_spot=(
                "the secret in other words scores low; shared filler words count, and long answers share more"
            ),
            source=SOURCE,
            other_toolkits=(
                "TOFU stops at 200 tokens of prompt and answer together, OpenUnlearning at 200 new ones, as"
                " here (evaluate.max_new_tokens). OpenUnlearning and WAGLE cut the reference out of the text"
                " by string replacement. MUSE takes F1, unstemmed."
            ),
        ),
    )
    def rouge(inputs: MetricInputs):
        written = [answers[0].text for answers in inputs.generations(rows)]
        truths = [row["answer"] for row in inputs.rows[rows]]
        return PerRow(
            [rougeL(truth, text).recall for truth, text in zip(truths, written)], {"generation": written}
        )


def true_field(rows: str) -> str:
    """The field of the right answer of a truth ratio."""
    return "paraphrased_answer" if rows in PARAPHRASED else "answer"


def truth_ratio_losses(inputs: MetricInputs, rows: str) -> list[tuple[float, float]]:
    """For each row, mean NLL per token of the right answer, and its mean over the wrong answers."""
    right = [scores[0].loss for scores in inputs.likelihood(rows, true_field(rows))]
    wrong = [
        fmean(s.loss for s in scores) if scores else math.nan
        for scores in inputs.likelihood(rows, "perturbed_answer")
    ]
    return list(zip(right, wrong))


RATIO = "R = geometric mean p of the wrong answers / p of the right one"
TRUTH_RATIO = About(
    formula=f"mean over rows of max(0, 1 - R), {RATIO} (on retain rows its paraphrase)",
    range="0 to 1; 0 where wrong answers are at least as likely as the right one",
    blind_spot="it compares a few given answers, and says nothing of what the model would write",
    source=SOURCE,
    other_toolkits=(
        "TOFU's older code and WAGLE take the arithmetic mean over wrong answers; WAGLE asks the paraphrased"
        " question. The field truth_ratio in TOFU's logs is wrong over right, its aggregation right over"
        " wrong. OpenUnlearning adds 1e-10 to p of the right answer."
    ),
)
FORGET_TRUTH_RATIO = replace(
    TRUTH_RATIO,
    formula=f"mean over rows of min(R, 1/R), {RATIO}'s paraphrase",
    range="0 to 1; 1 where right and wrong answers are equally likely",
    blind_spot="1 for a wrecked model that prefers no answer; low where it prefers the wrong ones, too",
)


def _register_truth_ratio(rows: str) -> None:
    @metric(
        f"{rows}/truth_ratio",
        rows=rows,
        needs=[Likelihood(rows, true_field(rows)), Likelihood(rows, "perturbed_answer")],
        good="up",
        about=FORGET_TRUTH_RATIO if rows == "forget" else TRUTH_RATIO,
    )
    def truth_ratio(inputs: MetricInputs):
        # In logarithms, where R neither underflows nor divides by zero; losses are mean NLL per token, so
        # log R = log(geometric mean of p_wrong) - log p_true = loss_true - mean of loss_wrong.
        log_ratios = [true - wrong for true, wrong in truth_ratio_losses(inputs, rows)]
        return PerRow([_from_log_ratio(ratio, rows) for ratio in log_ratios], {"log_truth_ratio": log_ratios})


def _from_log_ratio(log_ratio: float, rows: str) -> float:
    """A row's part in the mean of its set, from log R: min(R, 1/R) on forget rows, max(0, 1 - R)
    elsewhere."""
    if math.isnan(log_ratio):
        return log_ratio
    return math.exp(-abs(log_ratio)) if rows == "forget" else max(0.0, -math.expm1(min(log_ratio, 0.0)))


for _rows in SETS:
    _register_prob(_rows)
    _register_rouge(_rows)
    _register_truth_ratio(_rows)


@metric(
    "model_utility",
    after=UTILITY_PARTS,
    good="up",
    about=About(
        formula="harmonic mean of prob, rougeL and truth_ratio on retain, real and world rows",
        range="0 to 1; 0 where one of the nine is 0",
        blind_spot=(
            "abilities that no such row asks for, such as reasoning; the weakest of the nine figures weighs"
            " most"
        ),
        source=SOURCE,
        other_toolkits=(
            "TOFU measures the first 300 rows of each set (evaluate.rows 300), OpenUnlearning all."
        ),
    ),
)
def model_utility(inputs: MetricInputs) -> Value:
    parts = {key: inputs.values[key] for key in UTILITY_PARTS}
    absent = [key for key, value in parts.items() if value.value is None]
    if absent:
        return Value(None, f"needs {', '.join(absent)}; partial_utility is the mean of what there is")
    return mean_of_values(parts)


@metric(
    "partial_utility",
    after=UTILITY_PARTS,
    good="up",
    about=About(
        formula="harmonic mean of the parts of model_utility that can be measured, named in the reason",
        range="0 to 1; null where all nine exist",
        blind_spot=(
            "what the missing parts would show: comparable only with a figure of the same parts, never with"
            " model_utility"
        ),
        source="this project",
    ),
)
def partial_utility(inputs: MetricInputs) -> Value:
    parts = {key: inputs.values[key] for key in UTILITY_PARTS}
    there = {key: value for key, value in parts.items() if value.value is not None}
    absent = [key for key in parts if key not in there]
    if not there:
        return Value(None, f"no part of model_utility can be measured: needs {', '.join(absent)}")
    if not absent:
        return Value(None, "model_utility has all its parts")
    value = mean_of_values(there)
    return replace(value, reason=f"mean of {', '.join(there)}; without {', '.join(absent)}")


def summarize(
    columns: Mapping[str, Mapping[str, Mapping[str, Any]]], retain_columns=None
) -> dict[str, Value]:
    """TOFU's figures from per-row values, by the official aggregation, for evaluations of other toolkits.

    Args:
        columns: Row set -> row id -> prob, rougeL, log_truth_ratio.
        retain_columns: The same of a retain model, for forget quality; None without one.

    Returns:
        Metric key -> value. Rows without a value are left out of a mean and counted.
    """
    inputs = MetricInputs({name: [{"id": identity} for identity in rows] for name, rows in columns.items()})
    for name in SETS:
        rows = list(columns.get(name, {}).values())
        for column in ("prob", "rougeL", "log_truth_ratio"):
            key = f"{name}/{column.removeprefix('log_')}"
            cells = [row[column] for row in rows if row.get(column) is not None]
            values = [_from_log_ratio(cell, name) for cell in cells] if column == "log_truth_ratio" else cells
            value, reason = None, f"no {name} rows" if not rows else f"no {column} of any {name} row"
            if values:
                value, reason = sum(values) / len(values), ""
            inputs.values[key] = Value(value, reason, len(values), len(rows) - len(values))
    inputs.values["model_utility"] = METRICS["model_utility"].compute(inputs)
    return inputs.values | quality_of_evaluations(columns, retain_columns)
