"""ROUGE by the rouge_score package, imported on first use (it is slow to load), over words of any script."""

from functools import cache

from ..core.words import words


@cache
def _scorer(kind: str, stem: bool):
    from nltk.stem.porter import PorterStemmer
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import Tokenizer

    stemmer = PorterStemmer()

    class Words(Tokenizer):
        """Words of any script: the package's own tokeniser drops every letter beyond a to z, so that no
        Chinese text matches itself. As there, words longer than three letters are stemmed, if they are
        ASCII."""

        def tokenize(self, text: str) -> list[str]:
            if not stem:
                return words(text)
            return [stemmer.stem(word) if len(word) > 3 and word.isascii() else word for word in words(text)]

    return RougeScorer([kind], tokenizer=Words())


def rougeL(truth: str, text: str, stem: bool = True):
    """ROUGE-L of `text` against `truth`: a tuple of precision, recall and fmeasure, 0 to 1."""
    return _scorer("rougeL", stem).score(truth, text)["rougeL"]


def rouge1(truth: str, text: str):
    """ROUGE-1 of `text` against `truth`, stemmed: a tuple of precision, recall and fmeasure, 0 to 1."""
    return _scorer("rouge1", True).score(truth, text)["rouge1"]
