"""MUSE's verbatim memorisation (Shi et al., arXiv:2407.06460)."""

from metrics.engine import Evidence, Generations, PerRow, metric
from metrics.rouge import rougeL


def _register(key: str, rows: str, good: str) -> None:
    @metric(
        key,
        rows=rows,
        needs=[Generations(rows, "prompt")],
        good=good,
        about="ROUGE-L F1 (unstemmed) of the greedy continuation of a document against the true one; 0 to 1",
    )
    def verbmem(evidence: Evidence):
        written = [answers[0].text for answers in evidence.generations(rows, "prompt")]
        values = [
            rougeL(row["gt"], text, stem=False).fmeasure for row, text in zip(evidence.rows[rows], written)
        ]
        return PerRow(values, {"continuation": written})


_register("muse/verbmem", "forget_documents", "down")
_register("muse/verbmem_retain", "retain_documents", "up")
