"""Memorisation of answers: what a model reproduces token by token, word by word, and of the answer in other
words. Exact memorisation and extraction strength read the argmax of a teacher-forced pass: greedy decoding
reproduces a suffix exactly where all its tokens are hit.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np

from ..core.parity_templates import OPEN_UNLEARNING
from ..core.words import words
from .inputs import MetricInputs
from .rouge import rougeL
from .spec import OPEN_UNLEARNING_PAPER, About, AnswerScore, Generations, Good, Likelihood, PerRow, metric
from .tofu import truth_ratio_losses

SETS = ("forget", "retain")


def exact_memorization(score: AnswerScore) -> float | None:
    """Share of the answer's tokens that are the argmax, terminator left out (arXiv:2304.11158)."""
    hits = text_hits(score)
    return float(hits.mean()) if len(hits) else None


def text_hits(score: AnswerScore) -> np.ndarray:
    """Whether each token of the answer text was the argmax; none where the logits were no numbers."""
    return score.hit[: score.n_text] if np.isfinite(score.logp).all() else score.hit[:0]


def extraction_strength(score: AnswerScore, least: int = 0) -> float | None:
    """Length of the run of hits that ends the answer, at least `least`, over the answer's length, terminator
    left out."""
    hits = text_hits(score)
    if not len(hits):
        return None
    misses = np.flatnonzero(~hits)
    run = len(hits) - 1 - int(misses[-1]) if len(misses) else len(hits)
    return max(run, least) / len(hits)


def verbatim_share(truth: str, text: str) -> float | None:
    """Words of the longest run that a text has in common with the truth, over the words of the truth."""
    true, written = words(truth), words(text)
    return longest_common_run(true, written) / len(true) if true else None


def longest_common_run(one: Sequence, other: Sequence) -> int:
    """Length of the longest run of items that stands in both."""
    return SequenceMatcher(None, one, other, autojunk=False).find_longest_match().size


def _register_hits(rows: str, good: Good) -> None:
    """What greedy decoding reproduces token by token."""

    @metric(
        f"{rows}/exact_memorization",
        rows=rows,
        needs=[Likelihood(rows, "answer")],
        good=good,
        about=About(
            formula="share of answer tokens that are the argmax, terminator left out, mean over rows",
            range="0 to 1",
            blind_spot=(
                "grammar and words of the question give many hits; a secret is a few tokens among them"
            ),
            source="arXiv:2304.11158",
            other_toolkits="OpenUnlearning drops the last token of raw text too, as if it were a terminator.",
        ),
    )
    def exact(inputs: MetricInputs):
        return [exact_memorization(scores[0]) for scores in inputs.likelihood(rows, "answer")]

    @metric(
        f"{rows}/extraction_strength",
        rows=rows,
        needs=[Likelihood(rows, "answer")],
        good=good,
        about=About(
            formula=(
                "longest suffix of the answer that greedy decoding reproduces, over its length, mean over"
                " rows"
            ),
            range="0 to 1",
            blind_spot="a secret that is followed by a miss",
            source=OPEN_UNLEARNING_PAPER,
            other_toolkits=(
                "OpenUnlearning's is never 0 but at least 1 / length (evaluate.convention), and 0 for an"
                " empty answer, which is unscored here."
            ),
        ),
    )
    def strength(inputs: MetricInputs):
        least = int(inputs.convention == OPEN_UNLEARNING)
        return [extraction_strength(scores[0], least) for scores in inputs.likelihood(rows, "answer")]


def _register_paraphrase(rows: str, good: Good) -> None:
    """The answer in other words."""

    @metric(
        f"{rows}/para_prob",
        rows=rows,
        needs=[Likelihood(rows, "paraphrased_answer")],
        good=good,
        about=About(
            formula="exp(-mean NLL per token) of the paraphrased answer, mean over rows",
            range="0 to 1",
            blind_spot="it is one other wording; a wrecked model scores low too",
            source=OPEN_UNLEARNING_PAPER,
        ),
    )
    def para_prob(inputs: MetricInputs):
        return [scores[0].prob for scores in inputs.likelihood(rows, "paraphrased_answer")]

    @metric(
        f"{rows}/para_rougeL",
        rows=rows,
        needs=[Generations(rows)],
        fields=["paraphrased_answer"],
        good=good,
        about=About(
            formula=(
                "ROUGE-L recall of the greedy answer against the paraphrased answer, stemmed, mean over rows"
            ),
            range="0 to 1",
            blind_spot="shared filler words count; it is one other wording",
            source=OPEN_UNLEARNING_PAPER,
        ),
    )
    def para_rouge(inputs: MetricInputs):
        written = [answers[0].text for answers in inputs.generations(rows)]
        truths = [row["paraphrased_answer"] for row in inputs.rows[rows]]
        return [rougeL(truth, text).recall for truth, text in zip(truths, written)]


def _register_verbatim(rows: str, good: Good) -> None:
    """The answer word by word."""

    @metric(
        f"{rows}/verbatim_share",
        rows=rows,
        needs=[Generations(rows)],
        good=good,
        about=About(
            formula=(
                "longest run of words that the greedy answer shares with the true one, over the words of the"
                " true one, mean over rows"
            ),
            range="0 to 1",
            blind_spot="other wordings; names and filler words count alike",
            source="this project",
        ),
    )
    def verbatim(inputs: MetricInputs):
        written = [answers[0].text for answers in inputs.generations(rows)]
        truths = [row["answer"] for row in inputs.rows[rows]]
        return [verbatim_share(truth, text) for truth, text in zip(truths, written)]


def _register_preference(rows: str, good: Good) -> None:
    """The paraphrased answer beside wrong ones."""

    @metric(
        f"{rows}/truth_ratio_prob_mean",
        rows=rows,
        needs=[Likelihood(rows, "paraphrased_answer"), Likelihood(rows, "perturbed_answer")],
        good=good,
        about=About(
            formula=(
                "p / (p + w), p of the paraphrased answer, w the geometric mean of the wrong answers' p,"
                " mean over rows"
            ),
            range="0 to 1; .5 where it cannot tell them apart",
            blind_spot="it is relative: .5 for a wrecked model too, and moved by the choice of wrong answers",
            source="OpenUnlearning's aggregator prob_mean (since December 2025)",
        ),
    )
    def prob_mean(inputs: MetricInputs):
        losses = truth_ratio_losses(inputs, rows)
        # p / (p + w) = 1 / (1 + w / p), in logarithms.
        return PerRow([float(1 / (1 + np.exp(min(true - wrong, 700)))) for true, wrong in losses])


for _rows in SETS:
    _good: Good = "down" if _rows == "forget" else "up"
    _register_hits(_rows, _good)
    _register_paraphrase(_rows, _good)
    _register_verbatim(_rows, _good)
    _register_preference(_rows, _good)
