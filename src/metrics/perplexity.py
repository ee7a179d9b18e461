"""Perplexity of whole documents: of forget and retain documents, and of neutral text that the user names.

A document longer than `dataset.max_length` is scored in pieces. The intervals resample documents; where there
is one document, its pieces.
"""

import math
from collections.abc import Sequence

import numpy as np

from .inputs import MetricInputs
from .spec import About, AnswerScore, Documents, Good, OfSamples, Value, metric

LARGEST_LOSS = 700.0
"""Mean NLL above which a perplexity exceeds a float."""


def loss_and_tokens(pieces: list[AnswerScore]) -> tuple[float, int]:
    """Sum of the NLL of all tokens of some pieces, terminator left out, and their number."""
    texts = [score.logp[: score.n_text] for score in pieces]
    return -sum(float(text.sum()) for text in texts), sum(map(len, texts))


def perplexity_of(sums: np.ndarray) -> float:
    """exp of the mean NLL per token, from (sum of NLL, tokens) of each document, [D, 2]."""
    loss, tokens = sums.sum(axis=0)
    return math.exp(min(loss / tokens, LARGEST_LOSS))


def perplexity_of_rows(losses: Sequence[float]) -> OfSamples:
    """exp of the mean over rows of their mean NLL per token; a row whose loss is no number is unscored."""
    known = np.array([loss for loss in losses if math.isfinite(loss)])
    return OfSamples(lambda scored: float(np.exp(scored.mean())), [known], len(losses) - len(known))


def _register(rows: str, good: Good) -> None:
    @metric(
        f"perplexity/{rows}",
        rows=rows,
        needs=[Documents(rows)],
        good=good,
        about=About(
            formula=(
                "exp of the mean NLL per token over all tokens of all documents, in pieces of"
                " dataset.max_length tokens; neither the first token of a piece without BOS nor EOS counts"
            ),
            range="at least 1; a uniform guess gives the size of the vocabulary",
            blind_spot=(
                "models with other tokenizers or another dataset.max_length do not compare; long documents"
                " weigh more"
            ),
            source="MUSE (arXiv:2407.06460) for documents, this project for the pieces",
            other_toolkits=(
                "lm-eval's wikitext reports perplexity per word, byte and token of rolling windows. A mean of"
                " documents' perplexities, as some code takes, is led by the worst document."
            ),
        ),
    )
    def perplexity(inputs: MetricInputs):
        documents = inputs.documents[rows]
        units = documents if len(documents) > 1 else [[piece] for piece in documents[0]]
        sums = [loss_and_tokens(pieces) for pieces in units]
        known = np.array([pair for pair in sums if pair[1] and math.isfinite(pair[0])])
        if not len(known):
            return Value(None, "no document could be scored", unscored=len(units))
        return OfSamples(perplexity_of, [known], len(units) - len(known))


for _rows in ("forget_documents", "forget_texts"):
    _register(_rows, "up")
for _rows in ("retain_documents", "holdout_texts", "neutral_texts"):
    _register(_rows, "down")
