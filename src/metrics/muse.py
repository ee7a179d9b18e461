"""MUSE's verbatim memorisation of documents (Shi et al., arXiv:2407.06460)."""

from .inputs import MetricInputs
from .rouge import rougeL
from .spec import About, Generations, Good, PerRow, metric

TOKENS = 128
"""Tokens of a continuation that are compared, as in MUSE's code."""


def _register(key: str, rows: str, good: Good) -> None:
    @metric(
        key,
        rows=rows,
        needs=[Generations(rows, "prompt")],
        good=good,
        about=About(
            formula=(
                "ROUGE-L F1, unstemmed, of the greedy continuation of a document against the true one, both"
                f" cut to {TOKENS} tokens (or evaluate.max_new_tokens, if fewer), mean over rows"
            ),
            range="0 to 1",
            blind_spot="the document's facts in other words; text behind the cut",
            source="MUSE (arXiv:2407.06460)",
            other_toolkits=(
                "MUSE reports it times 100, and its cut counts a BOS token in the reference but not in the"
                " continuation. OpenUnlearning stems and asks in the model's template."
            ),
        ),
    )
    def verbmem(inputs: MetricInputs):
        written = [inputs.cut(answers[0].text, TOKENS) for answers in inputs.generations(rows, "prompt")]
        true = [inputs.cut(row["gt"], TOKENS) for row in inputs.rows[rows]]
        values = [rougeL(gt, text, stem=False).fmeasure for gt, text in zip(true, written)]
        return PerRow(values, {"continuation": written})


_register("muse/verbmem", "forget_documents", "down")
_register("muse/verbmem_retain", "retain_documents", "up")
