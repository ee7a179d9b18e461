"""MUSE's measures of documents (Shi et al., arXiv:2407.06460): verbatim and knowledge memorisation, privacy
leakage, and how much of a document greedy decoding reproduces token by token.

Its fifth and sixth criterion, scalability and sustainability, are these figures over several forget sets:
`run_requests.py`.
"""

from collections.abc import Sequence

from ..core.parity_templates import OPEN_UNLEARNING
from .inputs import MetricInputs
from .memorization import exact_memorization, extraction_strength
from .privacy import DOCUMENTS, beside_retain, leak, retain_auc
from .rouge import rougeL
from .spec import OPEN_UNLEARNING_PAPER, About, Generations, Good, Likelihood, PerRow, Value, metric

CONTINUED, ANSWERED = 128, 32
"""Most tokens of a continuation and of an answer, as in MUSE's code."""
STOPS = ("\n\n", "\nQuestion", "Question:")
"""Where an answer ends: at the next question that the model makes up."""
MUSE = "MUSE (arXiv:2407.06460)"


def _f1(inputs: MetricInputs, truths: Sequence[str], written: Sequence[str]) -> list[float]:
    """ROUGE-L F1 of texts; OpenUnlearning stems words."""
    stem = inputs.convention == OPEN_UNLEARNING
    return [rougeL(truth, text, stem=stem).fmeasure for truth, text in zip(truths, written)]


def _register_verbatim(key: str, rows: str, good: Good) -> None:
    need = Generations(rows, "prompt", most=CONTINUED)

    @metric(
        key,
        rows=rows,
        needs=[need],
        good=good,
        about=About(
            formula=(
                "ROUGE-L F1, unstemmed, of the greedy continuation of a document against the true one, both"
                f" cut to {CONTINUED} tokens (or evaluate.max_new_tokens, if fewer), mean over rows"
            ),
            range="0 to 1",
            blind_spot="the document's facts in other words; text behind the cut",
            source=MUSE,
            other_toolkits=(
                "MUSE reports it times 100, and its cut counts a BOS token in the reference but not in the"
                " continuation. OpenUnlearning stems and cuts no reference (evaluate.convention)."
            ),
        ),
    )
    def verbmem(inputs: MetricInputs):
        written = [inputs.cut(answers[0].text, CONTINUED) for answers in inputs.texts[need]]
        true = [row["gt"] for row in inputs.rows[rows]]
        if inputs.convention != OPEN_UNLEARNING:
            true = [inputs.cut(text, CONTINUED) for text in true]
        return PerRow(_f1(inputs, true, written), {"continuation": written})


def _register_knowledge(side: str, good: Good) -> None:
    rows = f"{side}_knowledge"
    need = Generations(rows, "prompt", most=ANSWERED, stops=STOPS)

    @metric(
        f"muse/knowmem_{side}",
        rows=rows,
        needs=[need],
        good=good,
        about=About(
            formula=(
                "ROUGE-L F1, unstemmed, of the greedy answer behind the split's answered examples, of at most"
                f" {ANSWERED} tokens and up to a blank line or the next question, mean over rows"
            ),
            range="0 to 1",
            blind_spot=(
                "a model that does not follow the form scores low whatever it knows; a wrong answer of the"
                " right form scores well above 0"
            ),
            source=MUSE,
            other_toolkits=(
                "MUSE reports it times 100. OpenUnlearning stems (evaluate.convention). Both ask behind"
                " `Answer: `, blank included, which splits the first word in some tokenizers."
            ),
        ),
    )
    def knowmem(inputs: MetricInputs):
        written = [answers[0].text for answers in inputs.texts[need]]
        return PerRow(
            _f1(inputs, [row["answer"] for row in inputs.rows[rows]], written), {"knowledge": written}
        )


_register_verbatim("muse/verbmem", "forget_documents", "down")
_register_verbatim("muse/verbmem_retain", "retain_documents", "up")
_register_knowledge("forget", "down")
_register_knowledge("retain", "up")


@metric(
    "muse/privleak",
    after=[f"{DOCUMENTS.key}/min_k/auc"],
    good="up",
    about=About(
        formula=(
            "100 (A - A_retain) / A_retain, A = 1 - AUC of Min-K of whole forget documents beside held-out"
            " ones"
        ),
        range="from -100; -100 fully memorised, 0 like the retain model, above 0 over-unlearned: best is 0",
        blind_spot=(
            "attacks other than Min-K; documents beyond dataset.max_length; another retain model gives"
            " another A_retain, which the interval takes as exact"
        ),
        source=MUSE,
        other_toolkits=(
            "MUSE has constants for its two retain models (A_retain .4772 for News, .5393 for Books), which"
            " its published code fails to read. OpenUnlearning drops the last token of a document and takes"
            " .5 where it has no retain model; here it is null."
        ),
    ),
)
def privleak(inputs: MetricInputs) -> Value:
    own = inputs.values[f"{DOCUMENTS.key}/min_k/auc"]
    return beside_retain(own, retain_auc(inputs, "min_k", DOCUMENTS), leak)


@metric(
    "muse/exact_memorization",
    rows="forget_documents",
    needs=[Likelihood("forget_documents", "gt")],
    good="down",
    about=About(
        formula="share of the tokens of a document's true continuation that are the argmax, mean over rows",
        range="0 to 1",
        blind_spot="common words are hit without memory: compare with the retain model",
        source=OPEN_UNLEARNING_PAPER,
        other_toolkits="OpenUnlearning leaves out the last token of raw text (evaluate.convention).",
    ),
)
def exact(inputs: MetricInputs):
    return [exact_memorization(score) for score in inputs.raw_texts("forget_documents", "gt")]


@metric(
    "muse/extraction_strength",
    rows="forget_documents",
    needs=[Likelihood("forget_documents", "gt")],
    good="down",
    about=About(
        formula=(
            "1 - k / length, k the shortest beginning of the true continuation after which all tokens are the"
            " argmax, mean over rows"
        ),
        range="0 to 1; 0 where the last token is missed",
        blind_spot="one missed token near the end hides a memorised beginning",
        source=OPEN_UNLEARNING_PAPER,
        other_toolkits=(
            "OpenUnlearning's least value is one token, and it leaves out the last token of raw text"
            " (evaluate.convention)."
        ),
    ),
)
def extraction(inputs: MetricInputs):
    least = int(inputs.convention == OPEN_UNLEARNING)
    return [extraction_strength(score, least) for score in inputs.raw_texts("forget_documents", "gt")]
