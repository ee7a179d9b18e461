"""Multiple choice: the question and its lettered options as plain text up to `Answer:`, then the likeliest
continuation.

`choice_accuracy` compares the letters, as WMDP and lm-eval do. `choice_text_accuracy` compares the texts of
the options after the same prompt: very small models know a fact long before they can bind it to a letter.
"""

import math

from .inputs import MetricInputs
from .spec import Good, Likelihood, metric

FIELDS = {"choice_accuracy": "letters", "choice_text_accuracy": "choices"}
WHAT = {"choice_accuracy": "letter", "choice_text_accuracy": "option text (log p per token)"}


def _hit(logps: list[float], right: int) -> float | None:
    """1 where the right option is the likeliest, the first of several; None where one could not be scored."""
    return None if any(map(math.isnan, logps)) else float(logps.index(max(logps)) == right)


def _register(rows: str, name: str, good: Good) -> None:
    choices, field = f"{rows}_choices", FIELDS[name]

    @metric(
        f"{rows}/{name}",
        rows=choices,
        needs=[Likelihood(choices, field)],
        good=good,
        about=(
            f"share of multiple choice questions where the right {WHAT[name]} is likeliest; 0 to 1; chance is"
            " 1 / number of options, also for a model that always picks the same position"
        ),
    )
    def accuracy(inputs: MetricInputs):
        scores = inputs.likelihood(choices, field)
        return [
            _hit([option.answer_logp for option in options], row["right"])
            for options, row in zip(scores, inputs.rows[choices])
        ]


for _rows in ("forget", "retain"):
    for _name in FIELDS:
        _register(_rows, _name, "down" if _rows == "forget" else "up")
