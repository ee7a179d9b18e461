"""Is what the model writes still sound? Measured on what it says when it thinks, about what it forgot, what
it keeps, and arithmetic: a model that writes degenerate text gives nothing away and has forgotten nothing.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from ..core.words import pieces, words_and_marks
from .inputs import MetricInputs
from .spec import RUN, Fluency, Generations, metric

LONGEST_PERIOD, FEWEST_ROUNDS = 64, 3
LOOPING = 0.3
"""A text loops when more than this share of it lies in a final run of repetitions."""
FLUENT = -2.0
"""A text is degenerate when the original model gives it less than this log p per token. Measured on the
fictional world: of what the retain model says about people it never met 88 % lies above, of the degenerate
text of a steered model 13 %."""


def token_entropy(tokens: Sequence[Hashable]) -> float:
    """Entropy of the tokens' frequencies over its largest value, 0 to 1; 0 for fewer than two tokens."""
    if len(tokens) < 2:
        return 0.0
    shares = [count / len(tokens) for count in Counter(tokens).values()]
    return -sum(share * math.log2(share) for share in shares) / math.log2(len(tokens))


def distinct(tokens: Sequence[Hashable], n: int) -> float:
    """Share of n-grams that are different ones, 0 to 1; 1 when there is none."""
    grams = [tuple(tokens[k : k + n]) for k in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def loop_share(tokens: Sequence[Hashable]) -> float:
    """Share of a text that lies in a final run of one passage (at most 64 tokens) said at least three times
    over, 0 to 1. The last round may be cut."""
    longest = 0
    for period in range(1, min(LONGEST_PERIOD, len(tokens) // FEWEST_ROUNDS) + 1):
        run = period
        while run < len(tokens) and tokens[-run - 1] == tokens[-run - 1 + period]:
            run += 1
        if run >= FEWEST_ROUNDS * period:
            longest = max(longest, run)
    return longest / len(tokens) if tokens else 0.0


def loops(inputs: MetricInputs, rows: str) -> list[float]:
    """`loop_share` of the words and marks of trace or answer, whichever loops more, for each row."""
    share = lambda text: loop_share(words_and_marks(text or ""))
    return [max(share(thought.trace), share(thought.answer)) for thought in inputs.thoughts(rows)]


def _register(rows: str) -> None:
    asked = Generations(rows, mode=RUN)
    said = lambda inputs: [texts[0] for texts in inputs.generations(rows, mode=RUN)]
    add = lambda name, good, about, needs=(asked,): metric(
        f"{rows}/{name}", rows=rows, needs=needs, good=good, about=about
    )

    @add("closed", "up", "share of answers whose thought closes within the token budget; 0 to 1")
    def closed(inputs: MetricInputs):
        return [float(thought.closed) for thought in inputs.thoughts(rows)]

    @add(
        "loop_share",
        "down",
        "share of trace or answer (the larger) in a final run of one passage said three times or more; 0"
        " to 1",
    )
    def looping(inputs: MetricInputs):
        return loops(inputs, rows)

    @add(
        "repetition_4",
        "down",
        "share of 4-grams of tokens that were there before (Welleck et al. 2020); 0 to 1",
    )
    def repetition(inputs: MetricInputs):
        return [1 - distinct(text.ids, 4) for text in said(inputs)]

    @add("distinct_2", "up", "share of pairs of words that are different ones; 0 to 1; short texts have more")
    def distinct_pairs(inputs: MetricInputs):
        return [distinct(pieces(text.text), 2) for text in said(inputs)]

    @add(
        "token_entropy",
        "up",
        "entropy of the tokens over its largest value (R-TOFU); 0 to 1; also high for noise",
    )
    def entropy(inputs: MetricInputs):
        return [token_entropy(text.ids) for text in said(inputs)]

    @add("written_tokens", "up", "tokens of trace and answer; compare with the initial model's")
    def length(inputs: MetricInputs):
        return [float(text.n_tokens) for text in said(inputs)]

    @add(
        "fluency",
        "up",
        "log p per token of trace and answer under the original model; at most 0; degenerate text lies below"
        f" {FLUENT:g}",
        (asked, Fluency(asked)),
    )
    def fluency(inputs: MetricInputs):
        return inputs.fluency(rows)


for _rows in ("forget", "retain", "arithmetic"):
    _register(_rows)
