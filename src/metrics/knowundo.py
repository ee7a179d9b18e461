"""KnowUnDo's figures (Tian et al., arXiv:2407.01920): accuracy, perplexity and ROUGE-L on validation rows of
the unlearn and the retention part.

Accuracy and perplexity as in github.com/zjunlp/KnowUnDo (a4a7de6), llm_unlearn/run_eval_lora.py; its code has
no ROUGE.
"""

from .inputs import MetricInputs
from .memorization import exact_memorization
from .perplexity import perplexity_of_rows
from .rouge import rougeL
from .spec import About, Generations, Good, Likelihood, PerRow, metric

SIDES: tuple[tuple[str, str, Good], ...] = (("unlearn", "forget", "down"), ("retention", "retain", "up"))
SOURCE = "KnowUnDo (arXiv:2407.01920)"
TERMINATOR = "KnowUnDo's code scores the blank line in front of the answer too, and no end of turn."


def _register(part: str, rows: str, good: Good) -> None:
    forgets = rows == "forget"

    @metric(
        f"knowundo/{part}_success",
        rows=rows,
        needs=[Likelihood(rows, "answer")],
        good="up",
        about=About(
            formula=("1 minus the" if forgets else "the")
            + " share of answer tokens that are the argmax behind the true ones, mean over rows",
            range="0 to 1",
            blind_spot="grammar and words of the question give many hits to any model",
            source=SOURCE,
            other_toolkits=f"KnowUnDo prints it times 100. {TERMINATOR}",
        ),
        column="success",
    )
    def success(inputs: MetricInputs):
        shares = [exact_memorization(scores[0]) for scores in inputs.likelihood(rows, "answer")]
        return [None if share is None else 1 - share if forgets else share for share in shares]

    @metric(
        f"knowundo/{part}_perplexity",
        needs=[Likelihood(rows, "answer")],
        good="up" if forgets else "down",
        about=About(
            formula="exp of the mean over rows of the answer's mean NLL per token, terminator left out",
            range="at least 1",
            blind_spot="a few rows that the model finds impossible decide it",
            source=SOURCE,
            other_toolkits=TERMINATOR,
        ),
    )
    def ppl(inputs: MetricInputs):
        return perplexity_of_rows([-scores[0].answer_logp for scores in inputs.likelihood(rows, "answer")])

    @metric(
        f"knowundo/{part}_rougeL",
        rows=rows,
        needs=[Generations(rows)],
        good=good,
        about=About(
            formula="ROUGE-L recall, stemmed, of the greedy answer, mean over rows",
            range="0 to 1",
            blind_spot="shared filler words count; a longer answer has a higher recall",
            source=SOURCE,
            other_toolkits="The paper reports ROUGE-L; its code has none, so that its variant is unknown.",
        ),
        column="rougeL",
    )
    def rouge(inputs: MetricInputs):
        written = [answers[0].text for answers in inputs.generations(rows)]
        truths = [row["answer"] for row in inputs.rows[rows]]
        return PerRow(
            [rougeL(truth, text).recall for truth, text in zip(truths, written)], {"written": written}
        )


for _part, _rows, _good in SIDES:
    _register(_part, _rows, _good)
