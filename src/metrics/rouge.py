"""ROUGE by the rouge_score package, imported on first use (it is slow to load)."""

from functools import cache


@cache
def _scorer(kind: str, stem: bool):
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], use_stemmer=stem)


def rougeL(truth: str, text: str, stem: bool = True):
    """ROUGE-L of `text` against `truth`, a tuple with precision, recall and fmeasure (0 to 1)."""
    return _scorer("rougeL", stem).score(truth, text)["rougeL"]


def rouge1(truth: str, text: str):
    """ROUGE-1 of `text` against `truth`, stemmed, a tuple with precision, recall and fmeasure (0 to 1)."""
    return _scorer("rouge1", True).score(truth, text)["rouge1"]
