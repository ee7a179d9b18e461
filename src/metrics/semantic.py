"""Meaning of answers: judged against the reference, on the question as trained and on rephrased ones, and
compared by embeddings and entailment.

A judge gets question, reference and answer, and decides whether the two mean the same. A row without a
verdict (the server failed, the reply cannot be read, the judge is undecided) is unscored: neither forgotten
nor known. Where more than 5 % of the rows have none, the accuracy is null and only its bounds have values.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from .inputs import MetricInputs
from .rouge import rouge1, rougeL
from .spec import About, Case, Cells, Generations, Good, PerRow, Value, metric
from .verdicts import RuleJudge

FULL_COVERAGE = 0.95
"""Share of rows with a verdict below which an accuracy is null."""
MIN_ENTAILMENT_RECALL = 0.1
"""ROUGE-L recall of an answer below which nothing counts as entailed, without the model
(arXiv:2410.08109)."""
SIDES = ("forget", "retain")
REPHRASED = "rephrased_questions"
ORIGINAL = Generations("forget")
REWORDED = Generations("forget", REPHRASED)
GAO_PROBE = (
    "GAO's probe holds the whole text, answer included, padded on the right: no test of recall. Here it is"
    " the question alone."
)


def case_of(row: dict, text: str) -> Case:
    """The case of a row and an answer for a judge: without wrong options and facts, which the rubric for
    answers has no use for."""
    return Case(row["id"], row["question"], row["answer"], text, row.get("key"))


def matches(inputs: MetricInputs, rows: Sequence[dict], texts: Sequence[str]) -> list[float | None]:
    """1 where an answer means the same as the reference, 0 where not, None without a verdict. An empty answer
    is 0 without the judge."""
    cases = {number: case_of(*pair) for number, pair in enumerate(zip(rows, texts)) if pair[1].strip()}
    verdicts = inputs.judge.matches(list(cases.values()))
    found: list[float | None] = [0.0] * len(rows)
    for number, verdict in zip(cases, verdicts):
        found[number] = None if verdict is None else float(verdict)
    return found


def accuracy(inputs: MetricInputs, verdicts: Sequence[float | None], columns: Cells) -> PerRow | Value:
    """Values whose mean is an accuracy; null with a reason where too few rows have a verdict."""
    scored = sum(verdict is not None for verdict in verdicts)
    if scored < FULL_COVERAGE * len(verdicts):
        reason = (
            f"the judge ({inputs.judge.name}) gave a verdict on {scored} of {len(verdicts)} rows; see the"
            " bounds"
        )
        return Value(None, reason, scored, len(verdicts) - scored, None, columns)
    return PerRow(verdicts, columns)


def _verdicts(inputs: MetricInputs, rows: str) -> list[float | None]:
    """The per-row verdicts behind an accuracy computed earlier."""
    return list(inputs.values[f"semantic/{rows}_accuracy"].columns[f"{rows}_accuracy"])


def _register_accuracy(rows: str, good: Good) -> None:
    key = f"semantic/{rows}_accuracy"

    @metric(
        key,
        rows=rows,
        judged=True,
        needs=[Generations(rows)],
        good=good,
        about=About(
            formula=(
                "share of answers that mean the same as the reference, by the judge, over rows with a verdict"
            ),
            range=f"0 to 1; null where fewer than {100 * FULL_COVERAGE:g} % have one",
            blind_spot="errors of the judge, see semantic/judge_kappa; other wordings of the question",
            source="this project, after GAO's code (Zhong-Zhengyi/Ignore)",
            other_toolkits=(
                "GAO counts a failed or unreadable verdict as forgotten, looks for true before false in the"
                " reply, hides the question from the judge and decodes with the model's own sampling"
                " defaults."
            ),
        ),
    )
    def semantic_accuracy(inputs: MetricInputs):
        texts = [answers[0].text for answers in inputs.generations(rows)]
        verdicts = matches(inputs, inputs.rows[rows], texts)
        return accuracy(inputs, verdicts, {f"{rows}_accuracy": verdicts, "generation": texts})

    _register_bound(rows, good, "lower")
    _register_bound(rows, good, "upper")


def _register_bound(rows: str, good: Good, bound: Literal["lower", "upper"]) -> None:
    key = f"semantic/{rows}_accuracy"
    value, counted = (0.0, "not known") if bound == "lower" else (1.0, "known")
    # The cautious bound makes the model look worse: forget rows known, retain rows not.
    flattered = "forget" if bound == "lower" else "retain"

    @metric(
        f"{key}_{bound}",
        rows=rows,
        judged=True,
        needs=[Generations(rows)],
        after=[key],
        good=good,
        about=About(
            formula=f"semantic accuracy with rows without a verdict counted as {counted}",
            range="0 to 1",
            blind_spot=(
                f"errors of the judge; it flatters {flattered} rows, where the other bound is the one to"
                " quote"
            ),
            source="this project",
        ),
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
    about=About(
        formula="share of forget and retain rows with a verdict",
        range="0 to 1",
        blind_spot="whether the verdicts are right; the rows without one may be the hard ones",
        source="this project",
    ),
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
    about=About(
        formula=(
            "Cohen's kappa of the judge's verdicts and those of the rule that looks for the key fact, over"
            " forget and retain rows"
        ),
        range="-1 to 1; 0 is agreement by chance",
        blind_spot="errors of the rule, which takes a denial of the fact for the fact",
        source="this project",
    ),
)
def judge_kappa(inputs: MetricInputs):
    if isinstance(inputs.judge, RuleJudge):
        return Value(None, "the judge is the rule")
    rows = [row for name in SIDES for row in inputs.rows[name]]
    texts = [answers[0].text for name in SIDES for answers in inputs.generations(name)]
    by_judge = [verdict for name in SIDES for verdict in _verdicts(inputs, name)]
    by_rule = RuleJudge().matches(list(map(case_of, rows, texts)))
    pairs = [(one, float(other)) for one, other in zip(by_judge, by_rule) if one is not None]
    return kappa(pairs, len(rows))


def kappa(pairs: Sequence[tuple[float, float]], total: int) -> Value:
    """Cohen's kappa of (judge's verdict, rule's verdict) of `total` rows, some of them without a pair."""
    from sklearn.metrics import cohen_kappa_score

    n, unscored = len(pairs), total - len(pairs)
    by_judge, by_rule = [one for one, _ in pairs], [other for _, other in pairs]
    # Chance agreement is 1 then, and kappa 0 / 0.
    if len(set(by_rule)) < 2:
        reason = "the rule says the same of all rows: agreement beyond chance is not defined"
        return Value(None, reason, n, unscored)
    return Value(float(cohen_kappa_score(by_judge, by_rule)), "", n, unscored)


# --- Rephrased questions ------------------------------------------------------------------------------------


def _by_row(flat: Sequence, rows: Sequence[Sequence]) -> list[list]:
    """Split a flat list of values, one per answer, into lists as long as those of `rows`."""
    values = iter(flat)
    return [[next(values) for _ in answers] for answers in rows]


@metric(
    "semantic/forget_accuracy_rephrased",
    rows="forget",
    judged=True,
    needs=[REWORDED],
    good="down",
    about=About(
        formula=(
            "semantic/forget_accuracy of answers to rephrased questions, mean over a row's wordings, then"
            " rows"
        ),
        range="0 to 1; a row with a wording without a verdict is unscored",
        blind_spot="wordings that are not among the given ones; errors of the judge",
        source="this project",
        other_toolkits=GAO_PROBE,
    ),
)
def forget_accuracy_rephrased(inputs: MetricInputs):
    generated = inputs.generations("forget", REPHRASED)
    rows = [row for row, answers in zip(inputs.rows["forget"], generated) for _ in answers]
    texts = [answer.text for answers in generated for answer in answers]
    verdicts = _by_row(matches(inputs, rows, texts), generated)
    means = list(map(_mean_if_complete, verdicts))
    return accuracy(inputs, means, {"forget_accuracy_rephrased": means, "rephrased_verdicts": verdicts})


def _mean_if_complete(verdicts: Sequence[float | None]) -> float | None:
    """The mean of a row's verdicts; None where one is missing, or there are none."""
    known = [verdict for verdict in verdicts if verdict is not None]
    return fmean(known) if known and len(known) == len(verdicts) else None


def _rephrased_verdicts(inputs: MetricInputs) -> Sequence[list[float | None]]:
    return inputs.values["semantic/forget_accuracy_rephrased"].columns["rephrased_verdicts"]


@metric(
    "semantic/forget_accuracy_rephrased_upper",
    rows="forget",
    judged=True,
    needs=[REWORDED],
    after=["semantic/forget_accuracy_rephrased"],
    good="down",
    about=About(
        formula="semantic/forget_accuracy_rephrased with wordings without a verdict counted as known",
        range="0 to 1",
        blind_spot="it nears 1 where the judge often fails, whatever was forgotten",
        source="this project",
    ),
)
def forget_accuracy_rephrased_upper(inputs: MetricInputs):
    return [
        fmean(1.0 if verdict is None else verdict for verdict in verdicts)
        for verdicts in _rephrased_verdicts(inputs)
    ]


@metric(
    "semantic/coverage_rephrased",
    rows="forget",
    judged=True,
    needs=[REWORDED],
    after=["semantic/forget_accuracy_rephrased"],
    good="up",
    about=About(
        formula="share of answers to rephrased questions with a verdict",
        range="0 to 1",
        blind_spot="whether the verdicts are right; the answers without one may be the hard ones",
        source="this project",
    ),
)
def coverage_rephrased(inputs: MetricInputs):
    return [
        fmean(float(verdict is not None) for verdict in verdicts) for verdicts in _rephrased_verdicts(inputs)
    ]


@metric(
    "semantic/paraphrase_gap",
    rows="forget",
    judged=True,
    needs=[ORIGINAL, REWORDED],
    after=["semantic/forget_accuracy", "semantic/forget_accuracy_rephrased"],
    good="down",
    about=About(
        formula="accuracy on rephrased questions minus accuracy on the original, mean over rows",
        range="-1 to 1; above 0 forgetting is tied to the wording; null where too few rows have all verdicts",
        blind_spot="it is 0 for a wrecked model and for one that forgot nothing",
        source="this project",
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
    about=About(
        formula=(
            "share of rows where at least one wording of the question, the original included, gets the answer"
        ),
        range="0 to 1",
        blind_spot="it grows with the number of wordings; leaks under wordings that are not given",
        source="this project, after JensUn (arXiv:2509.02820)",
        other_toolkits="JensUn takes the worst case over paraphrases and formats of the question.",
    ),
)
def worst_of_k(inputs: MetricInputs):
    rows = [(one, *others) for one, others in zip(_verdicts(inputs, "forget"), _rephrased_verdicts(inputs))]
    worst: list[float | None] = []
    for verdicts in rows:
        if 1.0 in verdicts:
            worst.append(1.0)
        else:
            worst.append(None if None in verdicts else 0.0)
    return accuracy(inputs, worst, {"worst_of_k": worst})


def _recalls(inputs: MetricInputs, field: str, score=rougeL) -> list[list[float]]:
    """Forget row -> recall of each answer to the questions in `field` against the reference answer."""
    return [
        [score(row["answer"], answer.text).recall for answer in answers]
        for row, answers in zip(inputs.rows["forget"], inputs.generations("forget", field))
    ]


@metric(
    "semantic/forget_rougeL_rephrased",
    rows="forget",
    needs=[REWORDED],
    good="down",
    about=About(
        formula=(
            "ROUGE-L recall of answers to rephrased questions against the reference, mean over wordings,"
            " then rows"
        ),
        range="0 to 1",
        blind_spot="the secret in other words; shared filler words count",
        source="this project",
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
    about=About(
        formula=(
            "ROUGE-L recall of the answer against the held-out paraphrase of the reference, mean over rows"
        ),
        range="0 to 1",
        blind_spot="shared filler words count; it is one other wording",
        source="this project",
    ),
)
def forget_rougeL_paraphrased(inputs: MetricInputs):
    return [
        rougeL(row["paraphrased_answer"], answers[0].text).recall
        for row, answers in zip(inputs.rows["forget"], inputs.generations("forget"))
    ]


@metric(
    "semantic/paraphrase_gap_rougeL",
    rows="forget",
    needs=[ORIGINAL, REWORDED],
    good="down",
    about=About(
        formula="ROUGE-L recall on rephrased questions minus recall on the original, mean over rows",
        range="-1 to 1; above 0 forgetting is tied to the wording",
        blind_spot="it is 0 for a wrecked model and for one that forgot nothing; shared filler words count",
        source="this project",
    ),
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
    about=About(
        formula="largest ROUGE-L recall over the original and the rephrased questions, mean over rows",
        range="0 to 1",
        blind_spot="it grows with the number of wordings; shared filler words count",
        source="this project",
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
    about=About(
        formula="ROUGE-1 recall on the original question minus its mean over rephrased ones, mean over rows",
        range="-1 to 1; below 0 the exact wording is suppressed more than its paraphrases",
        blind_spot="it is 0 for a wrecked model and for one that forgot nothing; order of words",
        source="GAO's code (Zhong-Zhengyi/Ignore), on questions alone",
        other_toolkits=GAO_PROBE,
    ),
)
def superficial_forgetting(inputs: MetricInputs):
    pairs = zip(_recalls(inputs, "question", rouge1), _recalls(inputs, REPHRASED, rouge1))
    return [one[0] - fmean(others) for one, others in pairs]


# --- Embeddings and entailment ------------------------------------------------------------------------------


def _register_cosine(rows: str, good: Good) -> None:
    @metric(
        f"semantic/{rows}_cosine",
        rows=rows,
        needs=[Generations(rows)],
        good=good,
        about=About(
            formula=(
                "cosine of the sentence embeddings of answer and reference (judge.embedder), negative ones"
                " as 0, mean over rows"
            ),
            range="0 to 1",
            blind_spot="short answers and shared frames inflate it; a denial lies near what it denies",
            source="arXiv:2410.08109, R-TOFU (arXiv:2505.15214)",
            other_toolkits=(
                "The embedder differs: paraphrase-MiniLM-L6-v2 in arXiv:2410.08109, all-MiniLM-L6-v2 in"
                " R-TOFU."
            ),
        ),
    )
    def cosine(inputs: MetricInputs):
        texts = [answers[0].text for answers in inputs.generations(rows)]
        similarity = inputs.judges.similarity
        assert similarity is not None, "a run has an embedder"
        cosines = similarity(texts, [row["answer"] for row in inputs.rows[rows]])
        # An empty text has an embedding too, which is near to some answers.
        return [max(0.0, value) if text.strip() else 0.0 for value, text in zip(cosines, texts)]


def _register_entailment(rows: str, good: Good) -> None:
    """Forget rows: the answer entails the reference, it gives the secret away. Retain rows: the reference
    entails the answer, nothing in it is made up."""
    answer_is_premise = rows == "forget"
    premise, hypothesis = (
        ("the answer", "the reference") if answer_is_premise else ("the reference", "the answer")
    )

    @metric(
        f"semantic/{rows}_entailment",
        rows=rows,
        needs=[Generations(rows)],
        good=good,
        about=About(
            formula=(
                f"share of answers where {premise} entails {hypothesis}, by judge.nli_model; none below a"
                f" ROUGE-L recall of {MIN_ENTAILMENT_RECALL:g}"
            ),
            range="0 to 1",
            blind_spot=(
                "errors of the model; the other direction and contradiction, which are columns of samples/"
            ),
            source="arXiv:2410.08109",
            other_toolkits="arXiv:2410.08109 takes the model sileod/deberta-v3-base-tasksource-nli.",
        ),
    )
    def entailment(inputs: MetricInputs):
        entails = inputs.judges.entailment
        if entails is None:
            return Value(None, "needs a model that labels entailment: set judge.nli_model")
        texts = [answers[0].text for answers in inputs.generations(rows)]
        truths = [row["answer"] for row in inputs.rows[rows]]
        pairs = list(zip(texts, truths) if answer_is_premise else zip(truths, texts))
        labelled = [
            number
            for number, (truth, text) in enumerate(zip(truths, texts))
            if rougeL(truth, text).recall >= MIN_ENTAILMENT_RECALL
        ]
        forward = [pairs[number] for number in labelled]
        backward = [(second, first) for first, second in forward]
        main = dict(zip(labelled, entails(forward)))
        reverse = dict(zip(labelled, entails(backward)))

        def column(labels: dict[int, str], label: str) -> list[float]:
            return [float(labels.get(number) == label) for number in range(len(texts))]

        return PerRow(
            column(main, "entailment"),
            {
                f"{rows}_entailment_reverse": column(reverse, "entailment"),
                f"{rows}_contradiction": column(main, "contradiction"),
            },
        )


_SIDES: tuple[tuple[str, Good], ...] = (("forget", "down"), ("retain", "up"))
for _rows, _good in _SIDES:
    _register_cosine(_rows, _good)
    _register_entailment(_rows, _good)
