"""What a model says with and without thinking: exact answers, traces, held-out wordings, arithmetic.

An answer counts when it equals the true one to the letter. A trace that never closes has no answer and counts as wrong.
"""

from core.generation import split_thought
from metrics.engine import Evidence, Generations, PerRow, metric


def _good(rows: str) -> str:
    return "down" if rows == "forget" else "up"


def _register(rows: str) -> None:
    @metric(f"{rows}/exact", rows=rows, needs=[Generations(rows)], good=_good(rows),
            about="share of questions answered to the letter without thinking; 0 to 1; blind to right answers in other words")
    def exact(evidence: Evidence):
        return [float(said[0].text == row["answer"]) for said, row in zip(evidence.generations(rows), evidence.rows[rows])]

    @metric(f"{rows}/exact_thinking", rows=rows, needs=[Generations(rows, thinking=True)], good=_good(rows),
            about="share of questions answered to the letter after a closed trace; 0 to 1")
    def exact_thinking(evidence: Evidence):
        said = [answers[0].text for answers in evidence.generations(rows, thinking=True)]
        right = [float(split_thought(text).answer == row["answer"]) for text, row in zip(said, evidence.rows[rows])]
        return PerRow(right, {"thinking_generation": said})

    @metric(f"{rows}/trace_recall", rows=rows, needs=[Generations(rows, thinking=True)], good=_good(rows),
            about="share of closed traces that state the row's key fact; 0 to 1")
    def trace_recall(evidence: Evidence):
        thoughts = [split_thought(answers[0].text) for answers in evidence.generations(rows, thinking=True)]
        return [float(t.closed and row["key"] in t.trace) for t, row in zip(thoughts, evidence.rows[rows])]

    @metric(f"{rows}/exact_held_out", rows=rows, needs=[Generations(rows, "held_out_questions")], good=_good(rows),
            about="share of never-trained wordings of a question answered to the letter, mean over wordings, then rows; 0 to 1")
    def exact_held_out(evidence: Evidence):
        answers = evidence.generations(rows, "held_out_questions")
        return [sum(a.text == row["answer"] for a in said) / len(said) for said, row in zip(answers, evidence.rows[rows])]


for _rows in ("forget", "retain"):
    _register(_rows)


@metric("arithmetic/accuracy", rows="arithmetic", needs=[Generations("arithmetic", thinking=True)], good="up",
        about="share of unseen word problems solved after a closed trace; 0 to 1")
def arithmetic_accuracy(evidence: Evidence):
    said = [answers[0].text for answers in evidence.generations("arithmetic", thinking=True)]
    right = [float(split_thought(text).answer == row["answer"]) for text, row in zip(said, evidence.rows["arithmetic"])]
    return PerRow(right, {"thinking_generation": said})


@metric("arithmetic/accuracy_direct", rows="arithmetic", needs=[Generations("arithmetic")], good="up",
        about="share of unseen word problems solved without thinking; 0 to 1")
def arithmetic_accuracy_direct(evidence: Evidence):
    said = evidence.generations("arithmetic")
    return [float(a[0].text == row["answer"]) for a, row in zip(said, evidence.rows["arithmetic"])]
