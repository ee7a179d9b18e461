"""Words that the declarations of metrics use, for readers who do not know them."""

import re
from collections.abc import Iterable

GLOSSARY = {
    "NLL": "negative log-likelihood, minus the logarithm of a token's probability: 0 where it is certain",
    "ROUGE-L": "share of words in the same order in two texts: of the true text's (recall), or of both (F1)",
    "stemmed": "endings of words do not count",
    "greedy": "at every step the likeliest token, without sampling",
    "KS test": "Kolmogorov-Smirnov test of whether two samples have one distribution; D is the largest"
    " distance between their curves",
    "harmonic mean": "a mean near its smallest part: one part at 0 makes it 0",
    "geometric mean": "the mean on a logarithmic scale",
    "argmax": "the likeliest token",
    "AUC": "area under the ROC curve: .5 is guessing, 1 tells all rows apart",
    "Min-K": "the likelihood of the least likely tokens alone",
    "MMD²": "squared maximum mean discrepancy, a distance between two samples",
    "bootstrap": "rows are drawn anew with replacement, many times",
    "trace": "the reasoning that a model writes before its answer",
    "terminator": "the token that ends an answer",
}
"""Word -> what it is."""


def words_in(texts: Iterable[str]) -> dict[str, str]:
    """The entries whose word stands in one of the texts, also in the plural."""
    together = "\n".join(texts)
    return {
        word: meaning
        for word, meaning in GLOSSARY.items()
        if re.search(rf"(?<!\w){re.escape(word)}s?(?!\w)", together)
    }
