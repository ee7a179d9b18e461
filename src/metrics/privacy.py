"""Membership inference: whether forget rows look seen, beside holdout rows that no model was trained on.

Every score is higher for a row that looks less like a member. AUC = P(score of a holdout row > score of a
forget row), ties counting half: 1 is fully memorised, .5 none, below .5 the forget rows look less seen than
rows that were never seen, which gives them away too. Sources: LOSS (arXiv:1709.01604), zlib and reference
(arXiv:2012.07805), Min-K (arXiv:2310.16789), Min-K++ (arXiv:2404.02936), ReCaLL (arXiv:2406.15968).
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .inputs import MetricInputs
from .resampling import derived
from .spec import (
    OPEN_UNLEARNING_PAPER,
    PREFIX_ROWS,
    About,
    AnswerScore,
    GradientNorm,
    Likelihood,
    Need,
    OfSamples,
    Value,
    metric,
)

LOWEST = 0.4
"""Share of the tokens that Min-K and Min-K++ read."""
FALSE_POSITIVES = 0.01
HIGHER = "higher looks less like a member"
RETAIN = "needs a retain model's results: set evaluate.retain_results to its run folder"


@dataclass(frozen=True)
class Sides:
    """The texts that membership tells apart.

    Args:
        forget: Row set of the texts that may be members.
        holdout: Row set of texts that no model was trained on.
        field: Field of the texts.
        key: First part of the keys of figures on both sets.
    """

    forget: str
    holdout: str
    field: str
    key: str

    @property
    def sets(self) -> tuple[str, str]:
        return self.forget, self.holdout


ANSWERS = Sides("forget", "holdout", "answer", "mia")
DOCUMENTS = Sides("forget_texts", "holdout_texts", "text", "mia_texts")


def auc(forget: np.ndarray, holdout: np.ndarray) -> float:
    """P(score of a holdout row > score of a forget row) + half of P(they are equal), of [N] and [M]."""
    ordered = np.sort(forget)
    below = np.searchsorted(ordered, holdout, "left") + np.searchsorted(ordered, holdout, "right")
    return float(below.mean() / (2 * len(forget)))


def tpr_at_fpr(forget: np.ndarray, holdout: np.ndarray, rate: float = FALSE_POSITIVES) -> float:
    """Share of forget rows that score below all but floor(rate M) of the M holdout rows."""
    threshold = np.sort(holdout)[math.floor(rate * len(holdout))]
    return float((forget < threshold).mean())


def lowest_mean(values: np.ndarray, share: float = LOWEST) -> float | None:
    """Minus the mean of the lowest share of the values, at least one; None without values."""
    count = max(1, int(share * len(values)))
    return float(-np.sort(values)[:count].mean()) if len(values) else None


def min_k(score: AnswerScore) -> float | None:
    return lowest_mean(score.logp[: score.n_text])


def min_k_plus_plus(score: AnswerScore, share: float = LOWEST) -> float | None:
    """As Min-K, of log p standardised by its moments under the model's own distribution."""
    text = slice(score.n_text)
    spread = np.sqrt(np.maximum(score.variance[text], 1e-6))
    return lowest_mean((score.logp[text] - score.mean[text]) / spread, share)


def compressed_size(text: str) -> int:
    """Bytes of a text after zlib."""
    return len(zlib.compress(text.encode()))


def _of_texts(score: Callable[[AnswerScore], float | None]) -> Callable:
    def scores(inputs: MetricInputs, rows: str, field: str) -> list[float | None]:
        if field == DOCUMENTS.field:
            return list(map(score, inputs.raw_texts(rows, field)))
        return [score(found[0]) for found in inputs.likelihood(rows, field)]

    return scores


def _loss(inputs: MetricInputs, rows: str, field: str) -> list[float]:
    of_document = field == DOCUMENTS.field
    scores = [found[0] for found in inputs.likelihood(rows, field)]
    return [-score.answer_logp if of_document else score.loss for score in scores]


def _zlib(inputs: MetricInputs, rows: str, field: str) -> list[float]:
    sizes = [compressed_size(row[field]) for row in inputs.rows[rows]]
    return [loss / size for loss, size in zip(_loss(inputs, rows, field), sizes)]


def _recall(inputs: MetricInputs, rows: str, field: str) -> list[float | None]:
    alone, behind = (inputs.likelihood(rows, field, prefix) for prefix in ("", "holdout"))
    found = [-b[0].loss / a[0].loss if a[0].loss > 0 else None for a, b in zip(alone, behind)]
    # The rows of the prefix are no test of themselves.
    return [None] * PREFIX_ROWS + found[PREFIX_ROWS:] if rows == "holdout" else found


def _reference(inputs: MetricInputs, rows: str, field: str) -> list[float | None]:
    losses = retain_scores(inputs, "loss").get(rows, {})
    own = [
        (row["id"], scores[0].loss) for row, scores in zip(inputs.rows[rows], inputs.likelihood(rows, field))
    ]
    return [loss - losses[identity] if identity in losses else None for identity, loss in own]


@dataclass(frozen=True)
class Attack:
    """A membership score: the value of each row of a set, what it measures, and what it needs."""

    scores: Callable[[MetricInputs, str, str], Sequence[float | None]]
    about: About
    needs: Callable[[str, str], Sequence[Need]] = lambda rows, field: [Likelihood(rows, field)]
    retain: bool = False
    """Does it read the retain model's losses?"""
    of_documents: bool = False
    """Is it computed on documents too?"""


ATTACKS: Mapping[str, Attack] = {
    "loss": Attack(
        _loss,
        About(
            formula="mean NLL per token of the answer, terminator included, or of the document",
            range=f"at least 0; {HIGHER}",
            blind_spot="texts that are easy or hard for any model, seen or not",
            source="LOSS (arXiv:1709.01604)",
            other_toolkits="MUSE calls it PPL, though it is the mean loss.",
        ),
        of_documents=True,
    ),
    "zlib": Attack(
        _zlib,
        About(
            formula="mean NLL per token of the answer or document / its bytes after zlib",
            range=f"at least 0; {HIGHER}",
            blind_spot="how common the words are: zlib knows only repetition within the answer",
            source="arXiv:2012.07805",
        ),
        of_documents=True,
    ),
    "min_k": Attack(
        _of_texts(min_k),
        About(
            formula=f"minus the mean of the lowest {100 * LOWEST:g} % of token log p, terminator left out",
            range=f"at least 0; {HIGHER}",
            blind_spot="the likelier tokens; of a short answer it reads one or two tokens",
            source="Min-K (arXiv:2310.16789)",
            other_toolkits=(
                "MUSE and WAGLE give NaN where the share is less than one token; here it is one token at"
                " least. OpenUnlearning gives an answer without tokens 0, most like a member; here it is"
                " unscored. OpenUnlearning drops the last token of raw text too."
            ),
        ),
        of_documents=True,
    ),
    "min_k_plus_plus": Attack(
        _of_texts(min_k_plus_plus),
        About(
            formula=(
                f"minus the mean of the lowest {100 * LOWEST:g} % of (log p - mean) / deviation, moments"
                " under the model's own distribution, terminator left out"
            ),
            range=f"any number; {HIGHER}",
            blind_spot=(
                "the likelier tokens; where the model is all but certain the deviation is near 0, and small"
                " differences count much"
            ),
            source="Min-K++ (arXiv:2404.02936)",
            other_toolkits="OpenUnlearning has the same value from two passes, of which one is enough.",
        ),
        lambda rows, field: [Likelihood(rows, field, moments=True)],
        of_documents=True,
    ),
    "reference": Attack(
        _reference,
        About(
            formula="mean NLL per token of the answer minus the retain model's",
            range=f"any number; {HIGHER}",
            blind_spot="how far two retain models differ on a row: another seed gives other differences",
            source="arXiv:2012.07805",
        ),
        retain=True,
    ),
    "gradnorm": Attack(
        lambda inputs, rows, field: [norms[0] for norms in inputs.gradient_norms[GradientNorm(rows, field)]],
        About(
            formula=(
                "L2 norm of the gradient of the answer's mean NLL, terminator left out, with respect to all"
                " weights"
            ),
            range=f"at least 0; {HIGHER}",
            blind_spot=(
                "texts that are easy for any model; it grows with the number and scale of the weights, so"
                " compare rows of one model alone"
            ),
            source=f"GradNorm of {OPEN_UNLEARNING_PAPER}",
            other_toolkits=(
                "OpenUnlearning averages the norms of the tensors, which depends on how weights are split"
                " into tensors (evaluate.convention), in train mode and for one row at a time."
            ),
        ),
        lambda rows, field: [GradientNorm(rows, field)],
    ),
    "recall": Attack(
        _recall,
        About(
            formula=f"minus NLL behind {PREFIX_ROWS} holdout rows / NLL alone",
            range=f"at most 0; {HIGHER}",
            blind_spot=(
                f"it depends on the first {PREFIX_ROWS} holdout rows, which stand in front and are unscored"
                " themselves"
            ),
            source="ReCaLL (arXiv:2406.15968)",
            other_toolkits="In OpenUnlearning it is a name without code.",
        ),
        lambda rows, field: [Likelihood(rows, field), Likelihood(rows, field, prefix="holdout")],
    ),
}


def retain_scores(inputs: MetricInputs, attack: str, sides: Sides = ANSWERS) -> dict[str, dict[str, float]]:
    """Row set -> row id -> the retain model's score; only sets whose rows all have one."""
    found = {}
    for rows in sides.sets:
        table = (inputs.retain_columns or {}).get(rows, {})
        cells = {identity: row.get(f"mia_{attack}") for identity, row in table.items()}
        if cells and all(value is not None for value in cells.values()):
            found[rows] = {identity: value for identity, value in cells.items() if value is not None}
    return found


def retain_auc(inputs: MetricInputs, attack: str, sides: Sides = ANSWERS) -> float | str:
    """The retain model's AUC, or why there is none."""
    if inputs.retain_columns is None:
        return RETAIN
    scores = retain_scores(inputs, attack, sides)
    if set(scores) != set(sides.sets):
        return (
            f"evaluate.retain_results has no mia_{attack} for every row of {sides.forget} and"
            f" {sides.holdout}: measure it again"
        )
    ids = {rows: {row["id"] for row in inputs.rows[rows]} for rows in sides.sets}
    if any(ids[rows] != scores[rows].keys() for rows in sides.sets):
        return f"evaluate.retain_results is of other {sides.forget} or {sides.holdout} rows"
    return auc(*(np.array(list(scores[rows].values())) for rows in sides.sets))


def overlap(inputs: MetricInputs, sides: Sides = ANSWERS) -> str:
    """Why forget and holdout rows cannot be told apart by membership; empty where they can."""
    forget, holdout = (
        {(row.get("question"), row[sides.field]) for row in inputs.rows.get(rows, ())} for rows in sides.sets
    )
    both = len(forget & holdout)
    return f"{both} rows are forget and holdout rows at once" if both else ""


def _register_scores(name: str, attack: Attack, sides: Sides) -> None:
    """The score of each row of both sets."""
    for rows in sides.sets:

        @metric(
            f"{rows}/mia_{name}",
            rows=rows,
            needs=attack.needs(rows, sides.field),
            good="up" if rows == sides.forget else "down",
            about=attack.about,
        )
        def scores(inputs: MetricInputs, rows=rows):
            if attack.retain and not retain_scores(inputs, "loss").get(rows):
                return Value(None, RETAIN)
            return list(attack.scores(inputs, rows, sides.field))


def _of_both_sets(inputs: MetricInputs, name: str, sides: Sides, figure: Callable) -> Value | OfSamples:
    """A figure of the scores of forget and holdout rows, or the reason why there is none."""
    values = {key: inputs.values[key] for key in _score_keys(name, sides)}
    reasons = [value.reason for value in values.values() if value.value is None]
    if reason := next(iter(reasons), "") or overlap(inputs, sides):
        return Value(None, reason)
    cells = [value.columns[key.partition("/")[2]] for key, value in values.items()]
    samples = [np.array([value for value in column if value is not None]) for column in cells]
    return OfSamples(figure, samples, sum(map(len, cells)) - sum(map(len, samples)))


def _score_keys(name: str, sides: Sides) -> list[str]:
    return [f"{rows}/mia_{name}" for rows in sides.sets]


def _register_figures(name: str, sides: Sides) -> None:
    """AUC and true positives of a score."""

    @metric(
        f"{sides.key}/{name}/auc",
        after=_score_keys(name, sides),
        good="down",
        about=About(
            formula=(
                "P(score of a holdout row > score of a forget row), ties counting half, of the membership"
                " score of that name"
            ),
            range="0 to 1; 1 memorised, .5 unseen; below .5 gives the rows away too",
            blind_spot=(
                "whether the two sets differ anyway (topic, date, style), which reads as membership; a few"
                " memorised rows among many"
            ),
            source=f"area under the ROC curve, as in {OPEN_UNLEARNING_PAPER}",
            other_toolkits=(
                "MUSE and WAGLE report it the other way round, 1 - AUC; WAGLE compares forget with retain"
                " rows. LUME scores 1 - 2 abs(AUC - .5)."
            ),
        ),
    )
    def attack_auc(inputs: MetricInputs):
        return _of_both_sets(inputs, name, sides, auc)

    @metric(
        f"{sides.key}/{name}/tpr_at_1fpr",
        after=_score_keys(name, sides),
        good="down",
        about=About(
            formula="share of forget rows that are called members where 1 % of the holdout rows are",
            range="0 to 1",
            blind_spot="it is coarse with few holdout rows: below 100 of them, none may be called a member",
            source="arXiv:2112.03570",
        ),
    )
    def attack_tpr(inputs: MetricInputs):
        return _of_both_sets(inputs, name, sides, tpr_at_fpr)


for _sides in (ANSWERS, DOCUMENTS):
    for _name, _attack in ATTACKS.items():
        if _sides is ANSWERS or _attack.of_documents:
            _register_scores(_name, _attack, _sides)
            _register_figures(_name, _sides)


def beside_retain(own: Value, retain: float | str, figure: Callable[[float, float], float]) -> Value:
    """A figure of the model's AUC and the retain model's, or the reason why that is missing; None where its
    denominator is 0."""
    if own.value is None:
        return Value(None, own.reason)
    if isinstance(retain, str):
        return Value(None, retain)
    try:
        return derived(lambda area: figure(area, retain), [own])
    except ZeroDivisionError:
        return Value(None, f"the retain model's AUC is {retain:g}, with which this figure has no value")


def leak(own: float, retain: float) -> float:
    return 100 * (retain - own) / (1 - retain)


@metric(
    "privleak",
    after=["mia/min_k/auc"],
    good="up",
    about=About(
        formula="100 (A - A_retain) / A_retain, A = 1 - AUC of Min-K",
        range="from -100; -100 fully memorised, 0 like the retain model, above 0 over-unlearned: best is 0",
        blind_spot=(
            "attacks other than Min-K; another retain model gives another A_retain, which the interval takes"
            " as exact"
        ),
        source="MUSE (arXiv:2407.06460)",
        other_toolkits=(
            "OpenUnlearning takes .5 for the retain model's AUC where it has none (privleak_vs_half); here"
            " it is null. MUSE takes constants for its two corpora, which its published code fails to read,"
            " and gives NaN for rows of one or two tokens."
        ),
    ),
)
def privleak(inputs: MetricInputs) -> Value:
    return beside_retain(inputs.values["mia/min_k/auc"], retain_auc(inputs, "min_k"), leak)


@metric(
    "privleak_vs_half",
    after=["mia/min_k/auc"],
    good="up",
    about=About(
        formula="privleak with .5 in place of the retain model's AUC",
        range="-100 to 100; best is 0",
        blind_spot="what a retain model would score, which can be far from .5: no substitute for privleak",
        source=f"fallback of {OPEN_UNLEARNING_PAPER}",
    ),
)
def privleak_vs_half(inputs: MetricInputs) -> Value:
    return beside_retain(inputs.values["mia/min_k/auc"], 0.5, leak)


@metric(
    "mia/min_k/rel_diff",
    after=["mia/min_k/auc"],
    good="down",
    about=About(
        formula="100 (A - A_retain) / A_retain, A the AUC of Min-K",
        range="from -100; 0 like the retain model, above 0 memorised, below 0 over-unlearned: best is 0",
        blind_spot=(
            "attacks other than Min-K; another retain model gives another A_retain, which the interval takes"
            " as exact"
        ),
        source=f"rel_diff of {OPEN_UNLEARNING_PAPER}",
        other_toolkits="It is published beside privleak, whose A is 1 - AUC, so the two have opposite signs.",
    ),
)
def relative_difference(inputs: MetricInputs) -> Value:
    difference = lambda own, retain: 100 * (own - retain) / retain
    return beside_retain(inputs.values["mia/min_k/auc"], retain_auc(inputs, "min_k"), difference)
