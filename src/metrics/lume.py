"""LUME's figures (Ramakrishna et al., arXiv:2502.15097), by which SemEval-2025 task 4 ranked its entries
(arXiv:2504.02883): regurgitation and knowledge on three tasks, an aggregate of them, a membership score, and
the final score with MMLU.
"""

import re
from collections.abc import Mapping

from .aggregates import harmonic, harmonic_mean
from .inputs import MetricInputs
from .resampling import derived
from .rouge import rougeL
from .spec import About, Generations, Good, PerRow, Value, metric

TASKS = ("task1", "task2", "task3")
SIDES: tuple[tuple[str, Good], ...] = (("forget", "down"), ("retain", "up"))
MMLU = re.compile(r"lm_eval/mmlu(@\d+)?/acc\[.*\]")
"""Key of MMLU's accuracy among the figures of benchmarks, of all rows or the first of each subject."""
LEAST_MMLU = 0.75
"""Share of the initial model's MMLU below which an entry is not valid."""
ROUNDING = 1e-9
SOURCE = "LUME (arXiv:2502.15097), SemEval-2025 task 4 (arXiv:2504.02883)"


def _register(task: str, side: str, good: Good) -> None:
    """Regurgitation and knowledge on the rows of one task."""
    texts, questions = f"{side}_{task}_sc", f"{side}_{task}_qa"

    @metric(
        f"lume/{side}_{task}_regurgitation",
        rows=texts,
        needs=[Generations(texts, "prompt")],
        good=good,
        about=About(
            formula="ROUGE-L recall, stemmed, of the greedy continuation of a text, mean over rows",
            range="0 to 1",
            blind_spot="the facts in other words; a longer continuation has a higher recall",
            source=SOURCE,
            other_toolkits="LUME's code writes up to 256 tokens; here it is evaluate.max_new_tokens.",
        ),
        column="regurgitation",
    )
    def regurgitation(inputs: MetricInputs):
        written = [answers[0].text for answers in inputs.generations(texts, "prompt")]
        truths = [row["answer"] for row in inputs.rows[texts]]
        values = [rougeL(truth, text).recall for truth, text in zip(truths, written)]
        return PerRow(values, {"continuation": written})

    @metric(
        f"lume/{side}_{task}_knowledge",
        rows=questions,
        needs=[Generations(questions)],
        good=good,
        about=About(
            formula=(
                "share of greedy answers that equal the true one, without outer white space and case, mean"
                " over rows"
            ),
            range="0 to 1",
            blind_spot="a right answer with a word more; one that is cut by evaluate.max_new_tokens",
            source=SOURCE,
            other_toolkits=(
                "LUME's code continues the bare question; here dataset.template decides ({question} alone"
                " is LUME's)."
            ),
        ),
        column="knowledge",
    )
    def knowledge(inputs: MetricInputs):
        written = [answers[0].text for answers in inputs.generations(questions)]
        truths = [row["answer"] for row in inputs.rows[questions]]
        return PerRow(
            [float(_plain(truth) == _plain(text)) for truth, text in zip(truths, written)],
            {"written": written},
        )


def _plain(text: str) -> str:
    return text.strip().lower()


for _side, _good in SIDES:
    for _task in TASKS:
        _register(_task, _side, _good)

PARTS = [
    f"lume/{side}_{task}_{kind}"
    for side, _ in SIDES
    for task in TASKS
    for kind in ("regurgitation", "knowledge")
]
"""The twelve figures of the task aggregate."""


@metric(
    "lume/task_aggregate",
    after=PARTS,
    good="up",
    about=About(
        formula=(
            "harmonic mean of regurgitation and knowledge of the three tasks on retain rows, and of 1 minus"
            " them on forget rows"
        ),
        range="0 to 1; 0 where one of the twelve is",
        blind_spot="which of the twelve lowers it; 0 for a target that knows one kind of forget row whole",
        source=SOURCE,
    ),
)
def task_aggregate(inputs: MetricInputs) -> Value:
    values = {key: inputs.values[key] for key in PARTS}
    if any(value.value is None for value in values.values()):
        figures = {key: value.value for key, value in values.items()}
        return harmonic_mean(figures, {key: value.reason for key, value in values.items()})
    forgets = ["/forget_" in key for key in PARTS]

    def figure(*cells: float) -> float:
        return harmonic(*(1 - cell if forget else cell for cell, forget in zip(cells, forgets)))

    return derived(figure, list(values.values()))


@metric(
    "lume/mia_score",
    after=["mia_texts/loss/auc"],
    good="up",
    about=About(
        formula="1 - 2 abs(AUC - .5), AUC of the LOSS attack on member and non-member texts",
        range="0 to 1; 1 where members cannot be told, 0 where they can",
        blind_spot="a retain model's AUC, which may be far from .5; attacks other than LOSS",
        source=SOURCE,
    ),
)
def mia_score(inputs: MetricInputs) -> Value:
    own = inputs.values["mia_texts/loss/auc"]
    if own.value is None:
        return Value(
            None,
            "needs the texts of the membership test: member.jsonl and nonmember.jsonl (id, document) in"
            f" dataset.data_dir ({own.reason})",
        )
    return derived(lambda area: 1 - 2 * abs(area - 0.5), [own])


def _mmlu(figures: Mapping[str, float | None]) -> tuple[str, float] | None:
    """Key and value of MMLU's accuracy."""
    found = [(key, value) for key, value in figures.items() if MMLU.fullmatch(key) and value is not None]
    return found[0] if found else None


@metric(
    "lume/final",
    after=["lume/task_aggregate", "lume/mia_score"],
    benchmarks=True,
    good="up",
    about=About(
        formula=(
            "mean of lume/task_aggregate, lume/mia_score and MMLU's accuracy; null where MMLU is below"
            f" {LEAST_MMLU:g} of the initial model's"
        ),
        range="0 to 1",
        blind_spot="no interval; what its three parts cannot see",
        source=SOURCE,
        other_toolkits="The shared task's threshold is .371 for its 7B model.",
    ),
)
def final(inputs: MetricInputs) -> Value:
    """The final score, or why there is none; an invalid one is a detail."""
    parts = [inputs.values[key] for key in ("lume/task_aggregate", "lume/mia_score")]
    own, initial = _mmlu(inputs.benchmarks), _mmlu(inputs.original_benchmarks)
    if own is None:
        return Value(None, "needs MMLU, measured in the same run: --benchmarks.tasks mmlu")
    if initial is None:
        return Value(None, "needs MMLU of the initial model: --evaluate.before true")
    absent = [part.reason for part in parts if part.value is None]
    if absent:
        return Value(None, absent[0])
    score = sum([*(part.value or 0.0 for part in parts), own[1]]) / 3
    details = {"mmlu": own[1], "initial_mmlu": initial[1], "mmlu_key": own[0], "score": score}
    if own[1] < LEAST_MMLU * initial[1] - ROUNDING:
        return Value(
            None,
            f"not valid: MMLU {own[1]:.3f} is below {LEAST_MMLU:g} of the initial model's {initial[1]:.3f}",
            details=details,
        )
    return Value(score, n=3, details=details)
