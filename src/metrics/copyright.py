"""Continuations of passages of a book: how much of the true text a model writes. Family `copyright` has
the longest prompts, as published figures do (Who's Harry Potter in WAGLE's task), `copyright_lengths` the
shorter ones.

Every figure has a sibling on passages that no model was trained on (`holdout`): what any reader of the same
author's style writes. Forgotten passages should score as low as those, not lower.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .inputs import MetricInputs
from .memorization import longest_common_run, verbatim_share
from .perplexity import perplexity_of_rows
from .rouge import rougeL
from .spec import About, Generations, Good, Likelihood, PerRow, metric

TOKENS = 200
"""Tokens of a continuation that are written and compared."""
SHORTER = (50, 100, 200)
"""Words of the prompts of the further row sets; the main one has 300."""
DIRECTIONS: dict[str, Good] = {"forget": "down", "retain": "up", "holdout": "up"}
SOURCE = "SOUL (arXiv:2404.18239), WAGLE (arXiv:2410.17509)"
FAULTS = (
    "WAGLE's code drops the first token of every continuation, pads on the left without an attention mask,"
    " and ends at 600 tokens of prompt and continuation together, against the whole true one. Its prompts"
    " have 300 tokens (about 225 English words), in question and answer marks; here they are plain text"
)


@dataclass(frozen=True)
class Figure:
    """A comparison of a continuation with the true one.

    Args:
        compute: The figure of (truth, text, tokeniser).
        about: Its declaration.
        parts: The parts of the book that it is computed on.
    """

    compute: Callable[[str, str, Callable[[str], Sequence]], float | None]
    about: About
    parts: tuple[str, ...] = ("forget", "holdout")


def sentence_bleu(truth: str, text: str) -> float:
    """BLEU of one text by sacrebleu, 0 to 1."""
    from sacrebleu import sentence_bleu as bleu

    return bleu(text, [truth]).score / 100


def sentence_chrf(truth: str, text: str) -> float:
    """chrF of one text by sacrebleu, 0 to 1."""
    from sacrebleu import sentence_chrf as chrf

    return chrf(text, [truth]).score / 100


def common_characters(truth: str, text: str) -> int:
    """Length of the longest common substring. Runs of blanks and line breaks count as one blank."""
    return longest_common_run(*(" ".join(each.split()) for each in (truth, text)))


def _about(formula: str, bounds: str, blind_spot: str, source: str = SOURCE, faults: str = "") -> About:
    greedy = f"the greedy continuation of a passage against the true one, both cut to {TOKENS} tokens"
    return About(
        formula=f"{formula} of {greedy} (or evaluate.max_new_tokens, if fewer), mean over passages",
        range=bounds,
        blind_spot=f"{blind_spot}; compare with holdout, a wrecked model scores below it",
        source=source,
        other_toolkits=faults,
    )


FIGURES: dict[str, Figure] = {
    "rougeL": Figure(
        lambda truth, text, ids: rougeL(truth, text).recall,
        _about("ROUGE-L recall, stemmed,", "0 to 1", "shared filler words count", faults=f"{FAULTS}."),
        ("forget", "retain", "holdout"),
    ),
    "rougeL_f1": Figure(
        lambda truth, text, ids: rougeL(truth, text).fmeasure,
        _about("ROUGE-L F1, stemmed,", "0 to 1", "shared filler words count", "this project"),
    ),
    "bleu": Figure(
        lambda truth, text, ids: sentence_bleu(truth, text),
        _about(
            "sentence BLEU (sacrebleu: effective order, exponential smoothing)",
            "0 to 1",
            "one other word breaks four n-grams",
            faults=f"{FAULTS}; its BLEU is corpus BLEU of one text, without effective order, and 0 to 100.",
        ),
    ),
    "chrf": Figure(
        lambda truth, text, ids: sentence_chrf(truth, text),
        _about("chrF (sacrebleu)", "0 to 1", "any English shares short letter groups", "this project"),
    ),
    "lcs_chars": Figure(
        lambda truth, text, ids: float(common_characters(truth, text)),
        _about(
            "length of the longest common substring in characters, runs of blanks as one,",
            "0 to the length of the true continuation",
            "it is one run; several shorter copies are not added up",
            "this project",
        ),
    ),
    "lcs_tokens": Figure(
        lambda truth, text, ids: float(longest_common_run(ids(truth), ids(text))),
        _about(
            "length of the longest common run in the model's tokens",
            f"0 to {TOKENS}",
            "tokenizers differ: no figure to compare between models of different ones",
            "this project",
        ),
    ),
    "verbatim_share": Figure(
        lambda truth, text, ids: verbatim_share(truth, text),
        _about(
            "words of the longest common run over the words of the truth",
            "0 to 1",
            "one changed word halves it",
            "this project",
        ),
    ),
}


def _register(part: str, name: str, prompt_words: int | None = None) -> None:
    ending = f"_{prompt_words}" if prompt_words else ""
    rows, figure = f"{part}_passages{ending}", FIGURES[name]

    @metric(
        f"copyright/{part}_{name}{ending}",
        rows=rows,
        needs=[Generations(rows, "prompt", most=TOKENS)],
        fields=["gt"],
        good=DIRECTIONS[part],
        about=figure.about,
        column=name,
        family="copyright_lengths" if prompt_words else "copyright",
    )
    def continued(inputs: MetricInputs):
        written = [answers[0].text for answers in inputs.generations(rows, "prompt", most=TOKENS)]
        true = [inputs.cut(row["gt"], TOKENS) for row in inputs.rows[rows]]
        values = [figure.compute(truth, text, inputs.ids) for truth, text in zip(true, written)]
        return PerRow(values, {"continuation": written})


def _register_perplexity(part: str, good: Good) -> None:
    rows = f"{part}_passages"

    @metric(
        f"copyright/{part}_perplexity",
        rows=rows,
        needs=[Likelihood(rows, "text")],
        good=good,
        about=About(
            formula=(
                "exp of the mean over passages of the NLL per token of a whole passage, prompt and EOS"
                " included, as far as dataset.max_length reaches"
            ),
            range="at least 1; the size of the vocabulary is a model that knows nothing",
            blind_spot=(
                "forgotten means as high as on holdout: a wrecked model is far above both; tokenizers differ"
            ),
            source="this project",
        ),
    )
    def perplexity(inputs: MetricInputs):
        return perplexity_of_rows([scores[0].loss for scores in inputs.likelihood(rows, "text")])


for _part, _good in DIRECTIONS.items():
    for _name in FIGURES:
        if _part in FIGURES[_name].parts:
            _register(_part, _name)
    _register_perplexity(_part, "up" if _part == "forget" else "down")
for _words in SHORTER:
    for _part in ("forget", "holdout"):
        for _name in FIGURES:
            _register(_part, _name, _words)
