"""Is the meaning forgotten, or one wording of it? Answers read by a judge, the same question in other words,
and answers compared in meaning.

A judge sees question, reference answer and what was said, and says whether they mean the same. A row without
a verdict (the server failed, the reply cannot be read, the judge cannot tell) is unscored: never forgotten,
never known. Where more than 5 % of the rows are, there is no accuracy, only its bounds.
"""

from collections.abc import Sequence
from statistics import fmean

from .inputs import MetricInputs
from .rouge import rouge1, rougeL
from .spec import Case, Cells, Generations, Good, PerRow, Value, metric
from .verdicts import RuleJudge

FULL_COVERAGE = 0.95
"""Least share of rows with a verdict for which an accuracy is given."""
LABELLED_FROM = 0.1
"""Least ROUGE-L recall of an answer whose entailment is asked for; below, nothing is entailed
(arXiv:2410.08109)."""
SIDES = ("forget", "retain")
REPHRASED = "rephrased_questions"
ORIGINAL = Generations("forget")
REWORDED = Generations("forget", REPHRASED)


def case_of(row: dict, said: str) -> Case:
    """What a judge is shown of an answer."""
    return Case(row["id"], row["question"], row["answer"], said, row.get("key"))


def _matches(inputs: MetricInputs, rows: Sequence[dict], texts: Sequence[str]) -> list[float | None]:
    """1 where an answer means what the reference means, 0 where not, None without a verdict. One that says
    nothing needs no judge."""
    asked = [
        (number, case_of(row, text)) for number, (row, text) in enumerate(zip(rows, texts)) if text.strip()
    ]
    verdicts = inputs.judge.matches([case for _, case in asked])
    found: list[float | None] = [0.0] * len(rows)
    for (number, _), verdict in zip(asked, verdicts):
        found[number] = None if verdict is None else float(verdict)
    return found


def accuracy(inputs: MetricInputs, verdicts: Sequence[float | None], columns: Cells) -> PerRow | Value:
    """The mean of verdicts where there are enough of them."""
    scored = sum(verdict is not None for verdict in verdicts)
    if scored < FULL_COVERAGE * len(verdicts):
        reason = (
            f"the judge ({inputs.judge.name}) gave a verdict on {scored} of {len(verdicts)} rows; see the"
            " bounds"
        )
        return Value(None, reason, scored, len(verdicts) - scored, None, columns)
    return PerRow(verdicts, columns)


def _verdicts(inputs: MetricInputs, rows: str) -> list[float | None]:
    """The column of an accuracy that was computed before."""
    return list(inputs.values[f"semantic/{rows}_accuracy"].columns[f"{rows}_accuracy"])


def _register_accuracy(rows: str, good: Good) -> None:
    key = f"semantic/{rows}_accuracy"

    @metric(
        key,
        rows=rows,
        judged=True,
        needs=[Generations(rows)],
        good=good,
        about=(
            "share of answers that mean what the reference means, by the judge, of rows with a verdict; 0 to"
            f" 1; null where fewer than {100 * FULL_COVERAGE:g} % have one; no better than its judge, see"
            " judge_kappa"
        ),
    )
    def semantic_accuracy(inputs: MetricInputs):
        said = [answers[0].text for answers in inputs.generations(rows)]
        verdicts = _matches(inputs, inputs.rows[rows], said)
        return accuracy(inputs, verdicts, {f"{rows}_accuracy": verdicts, "generation": said})

    for bound, value, counted in (("lower", 0.0, "not known"), ("upper", 1.0, "known")):
        _register_bound(key, rows, good, bound, value, counted)


def _register_bound(key: str, rows: str, good: Good, bound: str, value: float, counted: str) -> None:
    cautious = "; the cautious one" if (good == "down") == (bound == "upper") else ""

    @metric(
        f"{key}_{bound}",
        rows=rows,
        judged=True,
        needs=[Generations(rows)],
        after=[key],
        good=good,
        about=f"{bound} bound of it: rows without a verdict count as {counted}{cautious}; 0 to 1",
    )
    def accuracy_bound(inputs: MetricInputs):
        return [value if verdict is None else verdict for verdict in _verdicts(inputs, rows)]


_register_accuracy("forget", "down")
_register_accuracy("retain", "up")


@metric(
    "semantic/coverage",
    judged=True,
    needs=[Generations(rows) for rows in SIDES],
    after=[f"semantic/{rows}_accuracy" for rows in SIDES],
    good="up",
    about="share of forget and retain rows with a verdict; 0 to 1",
)
def coverage(inputs: MetricInputs):
    verdicts = [verdict for rows in SIDES for verdict in _verdicts(inputs, rows)]
    return Value(sum(verdict is not None for verdict in verdicts) / len(verdicts), n=len(verdicts))


@metric(
    "semantic/judge_kappa",
    judged=True,
    fields=("key",),
    rows="forget",
    needs=[Generations(rows) for rows in SIDES],
    after=[f"semantic/{rows}_accuracy" for rows in SIDES],
    good="up",
    about=(
        "Cohen's kappa of the judge's verdicts with the rule that looks for the key fact, over forget and"
        " retain rows; -1 to 1; the rule is blind to answers that deny the fact"
    ),
)
def judge_kappa(inputs: MetricInputs):
    if isinstance(inputs.judge, RuleJudge):
        return Value(None, "the judge is the rule")
    rows = [row for name in SIDES for row in inputs.rows[name]]
    said = [answers[0].text for name in SIDES for answers in inputs.generations(name)]
    pairs = [
        (verdict, float(rule))
        for verdict, rule in zip(
            [v for name in SIDES for v in _verdicts(inputs, name)],
            RuleJudge().matches([case_of(*p) for p in zip(rows, said)]),
        )
        if verdict is not None
    ]
    return agreement(pairs, len(rows))


def agreement(pairs: Sequence[tuple[float, float]], total: int) -> Value:
    """Cohen's kappa of pairs of verdicts."""
    from sklearn.metrics import cohen_kappa_score

    ours, theirs = zip(*pairs) if pairs else ((), ())
    if len(set(theirs)) < 2:
        return Value(
            None,
            "the rule says the same of all rows: agreement beyond chance is not defined",
            len(pairs),
            total - len(pairs),
        )
    return Value(float(cohen_kappa_score(ours, theirs)), "", len(pairs), total - len(pairs))


# --- The same question in other words -----------------------------------------------------------------------


def _by_row(flat: Sequence, rows: Sequence[Sequence]) -> list[list]:
    """Values of all answers, one after the other, in lists like those of `rows`."""
    values = iter(flat)
    return [[next(values) for _ in several] for several in rows]


@metric(
    "semantic/forget_accuracy_rephrased",
    rows="forget",
    judged=True,
    needs=[REWORDED],
    good="down",
    about=(
        "forget_accuracy of answers to rephrased questions: mean over a row's wordings, then rows; a row with"
        " a wording without a verdict is unscored; 0 to 1"
    ),
)
def forget_accuracy_rephrased(inputs: MetricInputs):
    verdicts = _rephrased(inputs)
    means = [_whole_mean(several) for several in verdicts]
    return accuracy(inputs, means, {"forget_accuracy_rephrased": means, "rephrased_verdicts": verdicts})


def _whole_mean(verdicts: Sequence[float | None]) -> float | None:
    """The mean of verdicts; None where there is none, or one is lacking."""
    known = [verdict for verdict in verdicts if verdict is not None]
    return fmean(known) if known and len(known) == len(verdicts) else None


def _rephrased(inputs: MetricInputs) -> list[list[float | None]]:
    """For each forget row the verdicts on its answers to rephrased questions."""
    said = inputs.generations("forget", REPHRASED)
    flat = [(row, answer.text) for row, answers in zip(inputs.rows["forget"], said) for answer in answers]
    return _by_row(_matches(inputs, *(zip(*flat) if flat else ((), ()))), said)


def _known_verdicts(inputs: MetricInputs) -> Sequence[list[float | None]]:
    return inputs.values["semantic/forget_accuracy_rephrased"].columns["rephrased_verdicts"]


@metric(
    "semantic/forget_accuracy_rephrased_upper",
    rows="forget",
    judged=True,
    needs=[REWORDED],
    after=["semantic/forget_accuracy_rephrased"],
    good="down",
    about="upper bound of it: wordings without a verdict count as known; the cautious one; 0 to 1",
)
def forget_accuracy_rephrased_upper(inputs: MetricInputs):
    return [
        fmean(1.0 if verdict is None else verdict for verdict in several)
        for several in _known_verdicts(inputs)
    ]


@metric(
    "semantic/coverage_rephrased",
    rows="forget",
    judged=True,
    needs=[REWORDED],
    after=["semantic/forget_accuracy_rephrased"],
    good="up",
    about="share of answers to rephrased questions with a verdict; 0 to 1",
)
def coverage_rephrased(inputs: MetricInputs):
    return [fmean(float(verdict is not None) for verdict in several) for several in _known_verdicts(inputs)]


@metric(
    "semantic/paraphrase_gap",
    rows="forget",
    judged=True,
    needs=[ORIGINAL, REWORDED],
    after=["semantic/forget_accuracy", "semantic/forget_accuracy_rephrased"],
    good="down",
    about=(
        "mean over rows of accuracy on rephrased questions minus accuracy on the original one; -1 to 1; above"
        " 0: forgetting is tied to the wording; 0 for a wrecked model too; null where too few rows have all"
        " verdicts"
    ),
)
def paraphrase_gap(inputs: MetricInputs):
    pairs = zip(
        _verdicts(inputs, "forget"),
        inputs.values["semantic/forget_accuracy_rephrased"].columns["forget_accuracy_rephrased"],
    )
    gaps = [None if one is None or others is None else others - one for one, others in pairs]
    return accuracy(inputs, gaps, {"paraphrase_gap": gaps})


@metric(
    "semantic/worst_of_k",
    rows="forget",
    judged=True,
    needs=[ORIGINAL, REWORDED],
    after=["semantic/forget_accuracy", "semantic/forget_accuracy_rephrased"],
    good="down",
    about=(
        "share of rows of which some wording of the question, the original included, gets the answer; 0 to 1;"
        " grows with the number of wordings; one that is known to get it decides, whatever lacks a verdict"
    ),
)
def worst_of_k(inputs: MetricInputs):
    rows = [(one, *others) for one, others in zip(_verdicts(inputs, "forget"), _known_verdicts(inputs))]
    worst = [1.0 if 1.0 in verdicts else None if None in verdicts else 0.0 for verdicts in rows]
    return accuracy(inputs, worst, {"worst_of_k": worst})


def _recalls(inputs: MetricInputs, field: str, score=rougeL) -> list[list[float]]:
    """For each forget row, the recall of each answer to the questions in `field` against the reference
    answer."""
    said = inputs.generations("forget", field)
    return [
        [score(row["answer"], answer.text).recall for answer in answers]
        for row, answers in zip(inputs.rows["forget"], said)
    ]


@metric(
    "semantic/forget_rougeL_rephrased",
    rows="forget",
    needs=[REWORDED],
    good="down",
    about=(
        "ROUGE-L recall of answers to rephrased questions against the reference, mean over wordings, then"
        " rows; 0 to 1"
    ),
)
def forget_rougeL_rephrased(inputs: MetricInputs):
    return [fmean(recalls) for recalls in _recalls(inputs, REPHRASED)]


@metric(
    "semantic/forget_rougeL_paraphrased",
    rows="forget",
    needs=[ORIGINAL],
    fields=("paraphrased_answer",),
    good="down",
    about=(
        "ROUGE-L recall of the answer against the held-out paraphrase of the reference; 0 to 1; shared filler"
        " words count"
    ),
)
def forget_rougeL_paraphrased(inputs: MetricInputs):
    said = inputs.generations("forget")
    return [
        rougeL(row["paraphrased_answer"], answers[0].text).recall
        for row, answers in zip(inputs.rows["forget"], said)
    ]


@metric(
    "semantic/paraphrase_gap_rougeL",
    rows="forget",
    needs=[ORIGINAL, REWORDED],
    good="down",
    about="as paraphrase_gap with ROUGE-L recall in place of a judge; -1 to 1",
)
def paraphrase_gap_rougeL(inputs: MetricInputs):
    return [
        fmean(others) - one[0]
        for one, others in zip(_recalls(inputs, "question"), _recalls(inputs, REPHRASED))
    ]


@metric(
    "semantic/worst_of_k_rougeL",
    rows="forget",
    needs=[ORIGINAL, REWORDED],
    good="down",
    about=(
        "mean over rows of the largest ROUGE-L recall over the original and the rephrased questions; 0 to 1"
    ),
)
def worst_of_k_rougeL(inputs: MetricInputs):
    return [
        max(one[0], *others) for one, others in zip(_recalls(inputs, "question"), _recalls(inputs, REPHRASED))
    ]


@metric(
    "semantic/superficial_forgetting",
    rows="forget",
    needs=[ORIGINAL, REWORDED],
    good="up",
    about=(
        "mean over rows of ROUGE-1 recall on the original question minus its mean over rephrased ones (GAO's"
        " measure, asked with questions alone); -1 to 1; below 0: the exact wording is suppressed more than"
        " its paraphrases"
    ),
)
def superficial_forgetting(inputs: MetricInputs):
    pairs = zip(_recalls(inputs, "question", rouge1), _recalls(inputs, REPHRASED, rouge1))
    return [one[0] - fmean(others) for one, others in pairs]


# --- Answers compared in meaning ----------------------------------------------------------------------------


def _register_likeness(rows: str, good: Good) -> None:
    @metric(
        f"semantic/{rows}_cosine",
        rows=rows,
        needs=[Generations(rows)],
        good=good,
        about=(
            "cosine of the sentence embeddings of answer and reference (judge.embedder), negative ones as 0;"
            " 0 to 1; short answers and shared frames inflate it"
        ),
    )
    def cosine(inputs: MetricInputs):
        said = [answers[0].text for answers in inputs.generations(rows)]
        similarity = inputs.judges.similarity
        assert similarity is not None, "a run has an embedder"
        cosines = similarity(said, [row["answer"] for row in inputs.rows[rows]])
        return [max(0.0, cosine) if text.strip() else 0.0 for cosine, text in zip(cosines, said)]

    premise = "the answer" if rows == "forget" else "the reference"

    @metric(
        f"semantic/{rows}_entailment",
        rows=rows,
        needs=[Generations(rows)],
        good=good,
        about=(
            f"share of answers where {premise} entails"
            f" {'the reference' if rows == 'forget' else 'the answer'}, by judge.nli_model; none is asked"
            f" below a ROUGE-L recall of {LABELLED_FROM:g}; 0 to 1; the other direction and contradiction are"
            " columns"
        ),
    )
    def entailment(inputs: MetricInputs):
        entails = inputs.judges.entailment
        if entails is None:
            return Value(None, "needs a model that labels entailment: set judge.nli_model")
        said = [answers[0].text for answers in inputs.generations(rows)]
        truths = [row["answer"] for row in inputs.rows[rows]]
        asked = [
            number for number, pair in enumerate(zip(truths, said)) if rougeL(*pair).recall >= LABELLED_FROM
        ]
        directions = [[(said[n], truths[n]) for n in asked], [(truths[n], said[n]) for n in asked]]
        forwards, backwards = (dict(zip(asked, entails(pairs))) for pairs in directions)
        main, other = (forwards, backwards) if rows == "forget" else (backwards, forwards)
        share = lambda labels, word: [float(labels.get(number) == word) for number in range(len(said))]
        return PerRow(
            share(main, "entailment"),
            {
                f"{rows}_entailment_reverse": share(other, "entailment"),
                f"{rows}_contradiction": share(main, "contradiction"),
            },
        )


_register_likeness("forget", "down")
_register_likeness("retain", "up")
