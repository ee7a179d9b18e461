"""Soundness of generated texts: closed traces, loops, repetition, fluency.

Measured on forget, retain and arithmetic rows: a model that generates degenerate text leaks nothing, but it
has not forgotten either, it is broken.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from ..core.generation import Generation
from ..core.words import words_and_marks, words_with_punctuation
from .inputs import MetricInputs
from .spec import RUN, About, Fluency, Generations, Value, metric

MAX_PERIOD, MIN_REPEATS = 64, 3
MAX_LOOP_SHARE = 0.3
"""A text loops when more than this share of it lies in a final run of repetitions."""
MIN_FLUENCY = -2.0
"""Mean log p per token under the original model below which a text is degenerate. Measured on the fictional
world: 88 % of the retain model's texts about people it was never trained on lie above, 13 % of the degenerate
texts of a steered model."""


def token_entropy(tokens: Sequence[Hashable]) -> float:
    """Entropy of the token frequencies over its largest value, -sum p log p / log N for N tokens; 0 to 1, and
    0 for fewer than two tokens."""
    if len(tokens) < 2:
        return 0.0
    shares = [count / len(tokens) for count in Counter(tokens).values()]
    return -sum(share * math.log2(share) for share in shares) / math.log2(len(tokens))


def distinct(tokens: Sequence[Hashable], n: int) -> float:
    """Number of different n-grams over the number of n-grams, 0 to 1; 1 without any."""
    grams = [tuple(tokens[k : k + n]) for k in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def loop_share(tokens: Sequence[Hashable]) -> float:
    """Share of a text that lies in a final run of one passage (at most 64 tokens), repeated at least three
    times; 0 to 1. The last repetition may be cut."""
    longest = 0
    for period in range(1, min(MAX_PERIOD, len(tokens) // MIN_REPEATS) + 1):
        # Extend the run to the left while each token equals the one a period later: O(64 N) for N tokens.
        run = period
        while run < len(tokens) and tokens[-run - 1] == tokens[-run - 1 + period]:
            run += 1
        if run >= MIN_REPEATS * period:
            longest = max(longest, run)
    return longest / len(tokens) if tokens else 0.0


def loops(text: str) -> bool:
    """Whether a text ends in one passage, of words or of letters, over and over."""
    return max(loop_share(text), loop_share(text.split())) > MAX_LOOP_SHARE


def loop_shares(inputs: MetricInputs, rows: str) -> list[float]:
    """For each row, `loop_share` of the words and punctuation of trace or answer, whichever is larger."""
    return [
        max(loop_share(words_and_marks(text or "")) for text in (traced.trace, traced.answer))
        for traced in inputs.traced_answers(rows)
    ]


def _texts(inputs: MetricInputs, rows: str) -> list[Generation]:
    """For each row, the text generated for its question."""
    return [answers[0] for answers in inputs.generations(rows, mode=RUN)]


# All metrics of a row set have the same need, so they cost one decoding pass.


def _register_endings(rows: str) -> None:
    need = Generations(rows, mode=RUN)

    @metric(
        f"{rows}/closed",
        rows=rows,
        needs=[need],
        good="up",
        about=About(
            formula="share of answers whose trace closes within the token budget",
            range="0 to 1",
            blind_spot="what the trace says; decodings that close the trace themselves",
            source="this project",
            other_toolkits=(
                "lm-eval grades an unclosed trace as the answer, R-TOFU a stock sentence in its place."
            ),
        ),
    )
    def closed(inputs: MetricInputs):
        return [float(traced.closed) for traced in inputs.traced_answers(rows)]

    @metric(
        f"{rows}/loop_share",
        rows=rows,
        needs=[need],
        good="down",
        about=About(
            formula=(
                f"share of trace or answer (the larger) in a final run of one passage of at most {MAX_PERIOD}"
                f" words, repeated {MIN_REPEATS} times or more, mean over rows"
            ),
            range="0 to 1",
            blind_spot="repetition with small changes, of longer passages, or that ends before the text does",
            source="this project",
        ),
    )
    def looping(inputs: MetricInputs):
        return loop_shares(inputs, rows)


def _register_variety(rows: str) -> None:
    need = Generations(rows, mode=RUN)

    @metric(
        f"{rows}/repetition_4",
        rows=rows,
        needs=[need],
        good="down",
        about=About(
            formula="1 - distinct 4-grams / 4-grams of tokens, mean over rows",
            range="0 to 1",
            blind_spot="nonsense without repetition; it grows with the length of the text",
            source="seq-rep-4 (arXiv:1908.04319)",
        ),
    )
    def repetition(inputs: MetricInputs):
        return [1 - distinct(text.ids, 4) for text in _texts(inputs, rows)]

    @metric(
        f"{rows}/distinct_2",
        rows=rows,
        needs=[need],
        good="up",
        about=About(
            formula="distinct word pairs / word pairs, mean over rows",
            range="0 to 1; 1 where there is no pair",
            blind_spot="nonsense without repetition; it falls with the length of the text",
            source="arXiv:1510.03055",
        ),
    )
    def distinct_pairs(inputs: MetricInputs):
        return [distinct(words_with_punctuation(text.text), 2) for text in _texts(inputs, rows)]

    @metric(
        f"{rows}/token_entropy",
        rows=rows,
        needs=[need],
        good="up",
        about=About(
            formula="entropy of the token frequencies / log of the number of tokens, mean over rows",
            range="0 to 1; 0 below two tokens",
            blind_spot="noise scores high, and short texts score higher than long ones",
            source="arXiv:2410.08109, R-TOFU (arXiv:2505.15214)",
        ),
    )
    def entropy(inputs: MetricInputs):
        return [token_entropy(text.ids) for text in _texts(inputs, rows)]


def _register_fluency(rows: str) -> None:
    need = Generations(rows, mode=RUN)

    @metric(
        f"{rows}/written_tokens",
        rows=rows,
        needs=[need],
        good="up",
        about=About(
            formula="tokens of trace and answer, mean over rows",
            range="at least 0; compare with the initial model's",
            blind_spot="what the tokens say: a loop fills the budget",
            source="this project",
        ),
    )
    def length(inputs: MetricInputs):
        return [float(text.n_tokens) for text in _texts(inputs, rows)]

    @metric(
        f"{rows}/fluency",
        rows=rows,
        needs=[need, Fluency(need)],
        good="up",
        about=About(
            formula="mean log p per token of trace and answer under the original model, mean over rows",
            range=f"at most 0; degenerate text lies below {MIN_FLUENCY:g}",
            blind_spot="loops, whose passages are likely once repeated; whether the text is true",
            source="this project",
            other_toolkits=(
                "OpenUnlearning's gibberish is P(clean) of a classifier, so high is good there; it reads 32"
                " tokens on TOFU, 512 on MUSE. RWKU takes the entropy of n-grams."
            ),
        ),
    )
    def fluency(inputs: MetricInputs):
        return inputs.fluency(rows)


@metric(
    "forget/fluent_share",
    rows="forget",
    after=["forget/fluency"],
    good="up",
    about=About(
        formula=f"share of answers whose forget/fluency is at least {MIN_FLUENCY:g}",
        range="0 to 1",
        blind_spot="sense: fluent answers may be wrong or off the question",
        source="this project",
    ),
)
def fluent_share(inputs: MetricInputs):
    fluency = inputs.values["forget/fluency"]
    if fluency.value is None:
        return Value(None, fluency.reason)
    cells = fluency.columns["fluency"]
    return [None if cell is None else float(cell >= MIN_FLUENCY) for cell in cells]


for _rows in ("forget", "retain", "arithmetic"):
    _register_endings(_rows)
    _register_variety(_rows)
    _register_fluency(_rows)
