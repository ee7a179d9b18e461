"""RWKU's figures (Jin et al., arXiv:2406.10890): what a model still tells about a person, and about
neighbours, at three levels; membership of texts about both; fluency.

The published code is github.com/jinzhuoran/RWKU (a23df67): eval_forget.py, eval_neighbor.py, eval_mia.py and
eval_fluency.py.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .inputs import MetricInputs
from .privacy import compressed_size, min_k_plus_plus
from .rouge import rougeL
from .spec import About, AnswerScore, Generations, Good, Likelihood, PerRow, metric

ANSWER_TOKENS = 30
FLUENCY_TOKENS = 256
NGRAM_WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""n -> weight of the entropy of n-grams."""
LOWEST = 0.2
"""Share of the tokens that Min-K++ reads."""
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
LEVELS = {"forget": (1, 2, 3), "neighbor": (1, 2)}
KINDS = {1: "fills in a blank about", 2: "answers a question about", 3: "answers an attack on"}
PEOPLE = {"forget": "the person", "neighbor": "a neighbour"}
SOURCE = "RWKU (arXiv:2406.10890)"


def fluency(text: str) -> float:
    """1/2 sum_n w_n H_n, H_n the entropy in bits of a text's n-grams of words, w_n of `NGRAM_WEIGHTS`."""
    from nltk import word_tokenize

    # The tokeniser takes one sentence. The published code cuts sentences with a model that nltk downloads.
    sentences = SENTENCE_END.split(text)
    tokens = [token for sentence in sentences for token in word_tokenize(sentence, preserve_line=True)]
    parts = [weight * ngram_entropy(tokens, n) for n, weight in NGRAM_WEIGHTS.items()]
    return sum(parts) / len(parts)


def ngram_entropy(tokens: list[str], n: int) -> float:
    """-sum p log2 p over the relative frequencies of n-grams; 0 without any."""
    counts = np.array(list(Counter(zip(*(tokens[start:] for start in range(n)))).values()), dtype=float)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _register_level(people: str, level: int, good: Good) -> None:
    rows = f"{people}_level{level}"
    need = Generations(rows, most=ANSWER_TOKENS, stops=("\n",))

    @metric(
        f"rwku/{rows}",
        rows=rows,
        needs=[need],
        good=good,
        about=About(
            formula=(
                f"ROUGE-L recall, unstemmed, of {ANSWER_TOKENS} greedy tokens up to a line break, where the"
                f" model {KINDS[level]} {PEOPLE[people]}, mean over rows"
            ),
            range="0 to 1",
            blind_spot="the fact in other words; an answer that a long preamble pushes behind the cut",
            source=SOURCE,
            other_toolkits=(
                "RWKU's code writes `Answer:` behind the template, and its ROUGE (package rouge) cuts words"
                " at white space, so that a full stop behind a name makes another word."
            ),
        ),
        column="rouge_recall",
    )
    def recall(inputs: MetricInputs):
        written = [answers[0].text for answers in inputs.texts[need]]
        truths = [row["answer"] for row in inputs.rows[rows]]
        values = [rougeL(truth, text, stem=False).recall for truth, text in zip(truths, written)]
        return PerRow(values, {"written": written})


_KNOWN: Mapping[str, Good] = {"forget": "down", "neighbor": "up"}
for _people, _good in _KNOWN.items():
    for _level in LEVELS[_people]:
        _register_level(_people, _level, _good)


@dataclass(frozen=True)
class Membership:
    """A membership score of a text; higher looks less like a member.

    Args:
        compute: The score, from those of the text's tokens and the text.
        formula: How it is computed.
        range: Its values.
        name: What else its name is in the published code.
        moments: Whether it reads the moments of log p.
    """

    compute: Callable[[AnswerScore, str], float | None]
    formula: str
    range: str = "at least 0"
    name: str = ""
    moments: bool = False


MEMBERSHIP = {
    "loss": Membership(lambda score, text: -score.answer_logp, "mean NLL per token of a text"),
    "zlib": Membership(
        lambda score, text: -score.answer_logp / compressed_size(text),
        "mean NLL per token of a text / its bytes after zlib",
    ),
    "min_k_plus_plus": Membership(
        lambda score, text: min_k_plus_plus(score, LOWEST),
        f"minus the mean of the lowest {100 * LOWEST:g} % of (log p - mean) / deviation of a text, moments"
        " under the model's own distribution",
        "any number",
        " It calls it mink20, though it is Min-K++.",
        moments=True,
    ),
}


def _register_membership(side: str, name: str, good: Good) -> None:
    rows, score = f"{side}_members", MEMBERSHIP[name]

    @metric(
        f"rwku/{side}_mia_{name}",
        rows=rows,
        needs=[Likelihood(rows, "text", score.moments)],
        good=good,
        about=About(
            formula=f"{score.formula}, mean over rows",
            range=f"{score.range}; higher looks less like a member",
            blind_spot=(
                "no text is unseen: it compares with the same model before unlearning, not with a threshold"
            ),
            source=SOURCE,
            other_toolkits=f"RWKU prints minus this figure.{score.name}",
        ),
        column=f"mia_{name}",
    )
    def membership(inputs: MetricInputs):
        texts = [row["text"] for row in inputs.rows[rows]]
        scores = inputs.likelihood(rows, "text")
        return [score.compute(found[0], text) for found, text in zip(scores, texts)]


_UNSEEN: Mapping[str, Good] = {"forget": "up", "retain": "down"}
for _side, _good in _UNSEEN.items():
    for _name in MEMBERSHIP:
        _register_membership(_side, _name, _good)

_FLUENCY = Generations("fluency", most=FLUENCY_TOKENS)


@metric(
    "rwku/fluency",
    rows="fluency",
    needs=[_FLUENCY],
    good="up",
    about=About(
        formula=(
            "(2/3 H2 + 4/3 H3) / 2 of a greedy answer, Hn the entropy in bits of its n-grams of words, mean"
            " over rows"
        ),
        range="at least 0; about 7 for 256 tokens of prose, 0 for one word over and over",
        blind_spot="sense: a shuffled text has the entropy of the text; a short answer has little",
        source=SOURCE,
        other_toolkits=(
            "RWKU's code averages the two weighted entropies, which halves their sum, as here; it cuts"
            " sentences with nltk's punkt, here at a mark and white space."
        ),
    ),
    column="ngram_entropy",
)
def ngram_fluency(inputs: MetricInputs):
    written = [answers[0].text for answers in inputs.texts[_FLUENCY]]
    return PerRow([fluency(text) for text in written], {"written": written})
