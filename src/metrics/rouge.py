"""ROUGE by the rouge_score package, imported on first use (it is slow to load)."""

from functools import cache


@cache
def _scorer(stem: bool):
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=stem)


def rougeL(truth: str, text: str, stem: bool = True):
    """ROUGE-L of `text` against `truth`, a tuple with precision, recall and fmeasure (0 to 1)."""
    return _scorer(stem).score(truth, text)["rougeL"]
