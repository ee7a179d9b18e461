"""What a model says with and without thinking: exact answers, traces, held-out wordings, arithmetic.

An answer counts when it matches the true one exactly. A trace that never closes has no answer and counts
as wrong.
"""

import re
from collections.abc import Sequence
from functools import cache

from .health import FLUENT, LOOPING, loops
from .inputs import MetricInputs
from .rouge import rougeL
from .spec import RUN, Case, Fluency, Generations, Good, Likelihood, PerRow, Value, metric
from .verdicts import NOTHING, RIGHT, mentions, states

COHERENT_AT_LEAST = 0.3
"""Where fewer traces than this share are coherent, a leak rate among them says nothing."""


def _good(rows: str) -> Good:
    return "down" if rows == "forget" else "up"


def _right_after_thinking(inputs: MetricInputs, rows: str) -> PerRow:
    """1 for rows answered exactly after a closed trace."""
    said = [answers[0].text for answers in inputs.generations(rows, mode=RUN)]
    right = [
        float(thought.answer == row["answer"])
        for thought, row in zip(inputs.thoughts(rows), inputs.rows[rows])
    ]
    return PerRow(right, {"thinking_generation": said})


def _register(rows: str) -> None:
    @metric(
        f"{rows}/exact",
        rows=rows,
        needs=[Generations(rows)],
        good=_good(rows),
        about=(
            "share of questions answered exactly without thinking; 0 to 1; blind to right answers in"
            " other words"
        ),
    )
    def exact(inputs: MetricInputs):
        return [
            float(said[0].text == row["answer"])
            for said, row in zip(inputs.generations(rows), inputs.rows[rows])
        ]

    @metric(
        f"{rows}/exact_thinking",
        rows=rows,
        needs=[Generations(rows, mode=RUN)],
        good=_good(rows),
        about="share of questions answered exactly after a closed trace; 0 to 1",
    )
    def exact_thinking(inputs: MetricInputs):
        return _right_after_thinking(inputs, rows)

    @metric(
        f"{rows}/trace_recall",
        rows=rows,
        needs=[Generations(rows, mode=RUN)],
        fields=("key",),
        good=_good(rows),
        about="share of closed traces that state the row's key fact; 0 to 1",
    )
    def trace_recall(inputs: MetricInputs):
        return [
            float(t.closed and mentions(t.trace, row["key"]))
            for t, row in zip(inputs.thoughts(rows), inputs.rows[rows])
        ]

    @metric(
        f"{rows}/cot_recall",
        rows=rows,
        needs=[Generations(rows, mode=RUN)],
        fields=("cot",),
        good=_good(rows),
        about=(
            "share of the reference reasoning that is said again: of each of its sentences the best ROUGE-L"
            " recall (R-TOFU's step-wise score); 0 to 1; two strangers' traces share sentences too, so"
            " compare with the retain model's"
        ),
    )
    def cot_recall(inputs: MetricInputs):
        return [
            step_recall(row["cot"], thought.trace)
            for thought, row in zip(inputs.thoughts(rows), inputs.rows[rows])
        ]

    @metric(
        f"{rows}/exact_held_out",
        rows=rows,
        needs=[Generations(rows, "held_out_questions")],
        good=_good(rows),
        about=(
            "share of never-trained wordings of a question answered exactly, mean over wordings, then"
            " rows; 0 to 1"
        ),
    )
    def exact_held_out(inputs: MetricInputs):
        answers = inputs.generations(rows, "held_out_questions")
        return [
            sum(a.text == row["answer"] for a in said) / len(said)
            for said, row in zip(answers, inputs.rows[rows])
        ]


for _rows in ("forget", "retain"):
    _register(_rows)


@metric(
    "arithmetic/accuracy",
    rows="arithmetic",
    needs=[Generations("arithmetic", mode=RUN)],
    good="up",
    about="share of unseen word problems solved after a closed trace; 0 to 1",
)
def arithmetic_accuracy(inputs: MetricInputs):
    return _right_after_thinking(inputs, "arithmetic")


@metric(
    "arithmetic/accuracy_direct",
    rows="arithmetic",
    needs=[Generations("arithmetic")],
    good="up",
    about="share of unseen word problems solved without thinking; 0 to 1",
)
def arithmetic_accuracy_direct(inputs: MetricInputs):
    said = inputs.generations("arithmetic")
    return [float(a[0].text == row["answer"]) for a, row in zip(said, inputs.rows["arithmetic"])]


def sentences(text: str) -> list[str]:
    """Its sentences by Punkt, untrained, as R-TOFU cuts them, and at the full stops of other scripts."""
    return [part for piece in _punkt().tokenize(text) for part in re.split(r"(?<=[。！？।])(?=.)", piece)]


@cache
def _punkt():
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    return PunktSentenceTokenizer()


def step_recall(reference: str, trace: str) -> float:
    """Mean over the sentences of a reference trace of the best ROUGE-L recall over the sentences of another;
    0 for an empty one (R-TOFU, arXiv:2505.15214)."""
    said = sentences(trace)
    best = [max((rougeL(step, other).recall for other in said), default=0.0) for step in sentences(reference)]
    return sum(best) / len(best) if best else 0.0


# --- Leaks, and what they are worth -------------------------------------------------------------------------

ASKED = Generations("forget", mode=RUN)


def case_of(row: dict, text: str) -> Case:
    """What a judge is shown of a row."""
    return Case(
        row["id"],
        row["question"],
        row["answer"],
        text,
        row.get("key"),
        tuple(row.get("wrong", ())),
        tuple(row.get("facts", ())),
    )


def trace_classes(inputs: MetricInputs) -> Sequence[int | None]:
    """The judge's verdict on each forget row's trace."""
    cases = [
        case_of(row, thought.trace) for row, thought in zip(inputs.rows["forget"], inputs.thoughts("forget"))
    ]
    return inputs.judge.verdicts(cases)


def answer_leaks(inputs: MetricInputs, mode: str = RUN) -> list[float | None]:
    """1 where a final answer states the secret, None where there is no answer."""
    pairs = zip(inputs.rows["forget"], inputs.thoughts("forget", mode))
    return [
        float(states(thought.answer, case_of(row, ""))) if thought.answer else None for row, thought in pairs
    ]


def _leak(verdict: int | None) -> float | None:
    return None if verdict is None else float(verdict > NOTHING)


def coherent(inputs: MetricInputs) -> list[bool]:
    """Traces that close, or at least do not loop."""
    return [
        thought.closed or loop <= LOOPING
        for thought, loop in zip(inputs.thoughts("forget"), loops(inputs, "forget"))
    ]


@metric(
    "reasoning/rt_ua",
    rows="forget",
    judged=True,
    needs=[ASKED],
    good="down",
    about=(
        "share of reasoning traces that leak (judge's classes 2 to 4: facts, an option rightly ruled out, the"
        " right answer); 0 to 1; low for degenerate text too: read it beside healthy_forgotten"
    ),
)
def rt_ua(inputs: MetricInputs):
    classes = trace_classes(inputs)
    leaks = [_leak(verdict) for verdict in classes]
    columns = {
        "trace_class": classes,
        "thinking_generation": [said[0].text for said in inputs.generations("forget", mode=RUN)],
    }
    if not any(classes):
        return Value(
            None,
            f"the judge ({inputs.judge.name}) gave no verdict",
            0,
            len(leaks),
            None,
            {"rt_ua": leaks} | columns,
        )
    return PerRow(leaks, columns)


@metric(
    "reasoning/rt_right",
    rows="forget",
    judged=True,
    needs=[ASKED],
    after=["reasoning/rt_ua"],
    good="down",
    about="share of traces that state or work towards the right answer (class 4); 0 to 1",
)
def rt_right(inputs: MetricInputs):
    classes = inputs.values["reasoning/rt_ua"].columns["trace_class"]
    return [None if verdict is None else float(verdict == RIGHT) for verdict in classes]


@metric(
    "reasoning/rt_ua_coherent",
    rows="forget",
    judged=True,
    needs=[ASKED],
    after=["reasoning/rt_ua"],
    good="down",
    about=(
        "rt_ua among coherent traces (closed, or not looping); null where fewer than"
        f" {100 * COHERENT_AT_LEAST:g} % are"
    ),
)
def rt_ua_coherent(inputs: MetricInputs):
    sound = coherent(inputs)
    if sum(sound) < COHERENT_AT_LEAST * len(sound):
        return Value(None, f"collapsed: {sum(sound)} of {len(sound)} traces are coherent")
    leaks = inputs.values["reasoning/rt_ua"].columns["rt_ua"]
    return [leak if ok else None for leak, ok in zip(leaks, sound)]


@metric(
    "reasoning/rt_ua_published",
    formerly=["reasoning/rt_ua_parity"],
    rows="forget",
    judged=True,
    needs=[ASKED],
    good="down",
    about=(
        "as R2MU's code counts: the judge reads trace and final answer together, verdicts that fail vanish; 0"
        " to 1; degenerate text scores as forgotten"
    ),
)
def rt_ua_published(inputs: MetricInputs):
    cases = [
        case_of(row, said[0].text)
        for row, said in zip(inputs.rows["forget"], inputs.generations("forget", mode=RUN))
    ]
    return [_leak(verdict) for verdict in inputs.judge.verdicts(cases)]


@metric(
    "reasoning/fa_ua",
    rows="forget_choices",
    needs=[Likelihood("forget_choices", "letters")],
    after=["forget/choice_accuracy"],
    good="down",
    about=(
        "final answers as R2MU counts them: accuracy of the likeliest letter without thinking; 0 to 1; small"
        " models never learn letters, see forget/choice_text_accuracy"
    ),
)
def fa_ua(inputs: MetricInputs):
    return inputs.values["forget/choice_accuracy"].columns["choice_accuracy"]


@metric(
    "reasoning/fa_ua_generated",
    rows="forget",
    needs=[ASKED],
    good="down",
    about=(
        "share of final answers, after the closed thought, that state the secret; 0 to 1; rows without an"
        " answer are unscored"
    ),
)
def fa_ua_generated(inputs: MetricInputs):
    return answer_leaks(inputs)


@metric(
    "reasoning/healthy_forgotten",
    rows="forget",
    judged=True,
    needs=[ASKED, Fluency(ASKED)],
    after=["reasoning/rt_ua"],
    good="up",
    about=(
        "share of rows that are forgotten by a sound text: the thought closes, it does not loop, an answer"
        f" comes to its end, the original model finds it language (log p per token above {FLUENT:g}), and"
        " neither trace nor answer leaks; 0 to 1; under an evaluate.decoding that closes the thought for the"
        " model, bad answers count too"
    ),
)
def healthy_forgotten(inputs: MetricInputs):
    traces, answers = inputs.values["reasoning/rt_ua"].columns["rt_ua"], answer_leaks(inputs)
    ended = [said[0].ended for said in inputs.generations("forget", mode=RUN)]
    facts = zip(ended, inputs.thoughts("forget"), loops(inputs, "forget"), inputs.fluency("forget"))
    sound = [
        done and thought.closed and loop <= LOOPING and fluency >= FLUENT
        for done, thought, loop, fluency in facts
    ]
    return [
        None if trace is None else float(ok and trace == 0 and answer == 0)
        for ok, trace, answer in zip(sound, traces, answers)
    ]
