"""MUSE's verbatim memorisation (Shi et al., arXiv:2407.06460)."""

from .engine import Evidence, Generations, Good, PerRow, metric
from .rouge import rougeL

TOKENS = 128
"""Tokens of a continuation that are compared, as published."""


def _register(key: str, rows: str, good: Good) -> None:
    @metric(
        key,
        rows=rows,
        needs=[Generations(rows, "prompt")],
        good=good,
        about=(
            "ROUGE-L F1 (unstemmed) of the continuation of a document against the true one, both cut to"
            f" {TOKENS} tokens (evaluate.max_new_tokens where that is fewer); 0 to 1"
        ),
    )
    def verbmem(evidence: Evidence):
        written = [evidence.cut(answers[0].text, TOKENS) for answers in evidence.generations(rows, "prompt")]
        true = [evidence.cut(row["gt"], TOKENS) for row in evidence.rows[rows]]
        values = [rougeL(gt, text, stem=False).fmeasure for gt, text in zip(true, written)]
        return PerRow(values, {"continuation": written})


_register("muse/verbmem", "forget_documents", "down")
_register("muse/verbmem_retain", "retain_documents", "up")
