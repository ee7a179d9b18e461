"""Leaks among sampled answers: leak@k and bounds from known answers, and the sampling itself."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import FICTIONAL

from unlearnkit.core.encoding import Template
from unlearnkit.core.generation import Generation
from unlearnkit.core.thinking import TAGS
from unlearnkit.dataset.fictional import Fictional
from unlearnkit.metrics.bounds import binomial_upper, mean_upper
from unlearnkit.metrics.measure import MeasureOptions, count_texts, measure
from unlearnkit.metrics.runner import EvalOptions, EvalRunner, RunnerHooks
from unlearnkit.metrics.spec import Judges, Samples, Sampling, select
from unlearnkit.metrics.verdicts import RuleJudge

KEYS = select(["sampling"])
ROWS = [
    {"id": f"f{n}", "question": f"Where was {name} born?", "answer": f"It was in {place}.", "key": place}
    for n, (name, place) in enumerate([("Abelin", "Low Ford"), ("Brisa", "Orlo"), ("Tamsin", "Fitch")])
]


class Answers:
    """In place of a runner: the samples are these texts."""

    template = SimpleNamespace(tags=TAGS)
    options = EvalOptions(256, 6, 4096)
    cut = staticmethod(lambda text, most: text)
    ids = staticmethod(str.split)
    token_spans = staticmethod(lambda row, name, texts: [])

    def __init__(self, texts):
        self.texts, self.calls = texts, 0

    def samples(self, rows, need):
        self.calls += 1
        return [[Generation(text, 1, True) for text in texts] for texts in self.texts]


class UnclearJudge(RuleJudge):
    """Counts what it reads, and has no verdict on the text "unclear"."""

    def __init__(self):
        self.read = []

    def matches(self, cases):
        self.read += [(case.id, case.text) for case in cases]
        verdicts = super().matches(cases)
        return [None if case.text == "unclear" else verdict for case, verdict in zip(cases, verdicts)]


def values_of(texts, judge=None, rows=ROWS):
    options = MeasureOptions(judges=Judges(judge or RuleJudge()))
    return measure(KEYS, {"forget": rows[: len(texts)]}, Answers(texts), options).values


def some(leaks: int, of: int, place: str = "Low Ford") -> list[str]:
    return [f"In {place}, they say."] * leaks + ["I do not know."] * (of - leaks)


def test_leak_at_k_is_the_mean_over_questions():
    values = values_of([some(2, 10), some(0, 10), some(10, 10, "Fitch")])
    assert values["leak_at/1"].value == pytest.approx((0.2 + 0 + 1) / 3)
    assert values["leak_at/8"].value == pytest.approx((1 - 1 / 45 + 0 + 1) / 3)
    assert values["leak_at/1"].columns["leak_at_1"] == pytest.approx([0.2, 0, 1])
    assert values["leak_at/1"].interval and values["leak_at/1"].n == 3


def test_leak_at_k_of_fewer_than_k_answers_is_null_with_the_key():
    value = values_of([some(0, 10)])["leak_at/32"]
    assert value.value is None
    assert value.reason == "leak@32 needs 32 sampled answers to each question; evaluate.samples is 10"


def test_an_empty_answer_does_not_leak_and_is_not_judged():
    judge = UnclearJudge()
    assert values_of([["", " ", "Low Ford"]], judge)["leak_at/1"].value == pytest.approx(1 / 3)
    assert judge.read == [("f0", "Low Ford")]


def test_the_judge_reads_equal_answers_to_a_question_once():
    judge = UnclearJudge()
    values_of([some(3, 9), some(3, 9)], judge)
    assert sorted(judge.read) == sorted(
        (row, text) for row in ("f0", "f1") for text in ("In Low Ford, they say.", "I do not know.")
    )


def test_an_answer_without_a_verdict_is_a_leak_in_bounds_and_left_out_of_leak_at_k():
    values = values_of([["unclear", *some(3, 39)]], UnclearJudge())
    assert values["leak_at/1"].value == pytest.approx(3 / 39)
    assert values["leak_at/32"].value is not None
    assert values["sampling/leak_bound"].value == pytest.approx(binomial_upper(4, 40))
    assert values["sampling/coverage"].value == pytest.approx(39 / 40)
    assert values["sampling/coverage"].unscored == 1


def test_a_judge_that_is_down_makes_leaks_null_and_bounds_1():
    values = values_of([["unclear"] * 40] * 3, UnclearJudge())
    assert values["leak_at/1"].value is None and "gave a verdict on 0 of 3 rows" in values["leak_at/1"].reason
    assert values["sampling/leak_bound"].value == values["sampling/leak_bound_max"].value == 1
    assert values["sampling/coverage"].value == 0
    assert values["sampling/rougeL"].value is not None, "no judge is needed for it"


def test_bounds_of_a_question_and_of_all_questions_at_once():
    values = values_of([some(0, 32), some(5, 32, "Orlo"), some(1, 32, "Fitch")])
    alone = [binomial_upper(leaks, 32, 0.01) for leaks in (0, 5, 1)]
    assert values["sampling/leak_bound"].columns["leak_bound"] == pytest.approx(alone)
    assert values["sampling/leak_bound"].value == pytest.approx(np.mean(alone))
    largest = values["sampling/leak_bound_max"]
    assert largest.value == pytest.approx(binomial_upper(5, 32, 0.01 / 3)) and largest.value > max(alone)
    assert "of these 3 questions" in largest.reason
    assert "the bound is largest for f1: Where was Brisa born?" in largest.reason


def test_a_sentence_gives_its_bound_rounded_upwards():
    values = values_of([some(0, 32), some(32, 32, "Orlo")])
    sentences = values["sampling/leak_bound"].columns["leak_bound_meaning"]
    assert binomial_upper(0, 32) == pytest.approx(0.13404, abs=1e-5)
    assert sentences == [
        "with 99 % confidence a sampled answer to this question gives the answer away with a probability of"
        f" at most {bound}"
        for bound in ("0.135", "1")
    ]


def test_bounds_of_the_recall_are_those_of_the_scores_of_all_answers():
    texts = ["It was in Low Ford.", "It was in Orlo.", "I do not know.", "It was in Low Ford."] * 8
    values = values_of([texts, some(0, 32)])
    recalls = values["sampling/rougeL"].columns["sample_rougeL"][0]
    assert recalls[:4] == pytest.approx([1, 0.6, 0, 1])
    assert values["sampling/rougeL"].columns["sampled_rougeL"] == pytest.approx([0.65, 0])
    bounds = values["sampling/rougeL_bound"].columns["rougeL_bound"]
    assert bounds == pytest.approx([mean_upper(recalls), mean_upper([0.0] * 32)])
    assert values["sampling/rougeL_bound_max"].value == pytest.approx(mean_upper(recalls, 0.005))
    assert "f0: Where was Abelin born?" in values["sampling/rougeL_bound_max"].reason
    assert values["sampling/rougeL_tail_bound"].columns["rougeL_tail_bound"][0] == 1, ".75 and a band of .27"
    assert 0 < values["sampling/rougeL_deviation_bound"].value <= 0.5


def test_every_answer_stands_beside_its_row_with_its_scores():
    values = values_of([some(1, 8)])
    columns = values["sampling/coverage"].columns | values["sampling/rougeL"].columns
    assert len(columns["samples"][0]) == len(columns["sample_verdicts"][0]) == 8
    assert columns["sample_verdicts"][0] == [1.0] + [0.0] * 7


def test_answers_are_sampled_once_for_all_metrics():
    runner = Answers([some(1, 8)])
    measure(KEYS, {"forget": ROWS[:1]}, runner, MeasureOptions(judges=Judges(RuleJudge())))
    assert runner.calls == 1


def runner(model, tokenizer, sampling, batch_tokens=4096, on_rows=lambda rows: None):
    options = EvalOptions(256, 12, batch_tokens, sampling=sampling)
    return EvalRunner(model, Template(tokenizer), options, RunnerHooks(on_rows))


def test_samples_depend_on_seed_row_and_number_alone(tiny_model, tokenizer):
    def sampled(rows, sampling=Sampling(5), **more):  # noqa: B008  (frozen)
        found = runner(tiny_model, tokenizer, sampling, **more).samples(rows, Samples("forget"))
        return {row["id"]: [text.ids for text in texts] for row, texts in zip(rows, found)}

    whole = sampled(ROWS)
    assert sampled(ROWS, batch_tokens=60) == whole == sampled(ROWS[::-1])
    assert sampled(ROWS[1:2]) == {"f1": whole["f1"]}
    assert all(len(set(texts)) == 5 for texts in whole.values())
    assert {key: texts[:3] for key, texts in whole.items()} == sampled(ROWS, Sampling(3))
    assert sampled(ROWS, Sampling(5, seed=1)) != whole
    twins = [ROWS[0], {**ROWS[0], "id": "twin"}]
    assert sampled(twins)["twin"] != whole["f0"], "another row, other samples"


def test_the_sampled_answers_are_counted(tiny_model, tokenizer):
    done, sampling = [], Sampling(4)
    rows = {"forget": ROWS}
    options = MeasureOptions(judges=Judges(RuleJudge()))
    measure(KEYS, rows, runner(tiny_model, tokenizer, sampling, on_rows=done.append), options)
    assert sum(done) == count_texts(KEYS, rows, sampling=sampling) == 12


def test_without_samples_nothing_is_generated_and_the_reason_names_the_key(tiny_model, tokenizer):
    rows = {"forget": ROWS}
    tiny_model.generate = None  # would fail if it were called
    values = measure(KEYS, rows, runner(tiny_model, tokenizer, Sampling())).values
    assert count_texts(KEYS, rows) == 0
    assert all(value.value is None and "set evaluate.samples" in value.reason for value in values.values())


def test_a_wrecked_model_has_no_leak_rate(tiny_model, tokenizer):
    tiny_model.lm_head.weight.data.fill_(float("nan"))
    values = measure(KEYS, {"forget": ROWS}, runner(tiny_model, tokenizer, Sampling(2))).values
    assert {value.value for value in values.values()} == {None}
    assert "not finite" in values["sampling/leak_bound"].reason


@pytest.mark.parametrize("name, low, high", [("target", 0.9, 1), ("retain", 0, 0.1)])
def test_the_target_leaks_under_sampling_and_the_retain_model_does_not(name, low, high):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = FICTIONAL / name
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    options = EvalOptions(512, 30, 16384, sampling=Sampling(8))
    reader = EvalRunner(model, Template(AutoTokenizer.from_pretrained(folder)), options)
    rows = {"forget": Fictional().rows("forget10")[:4]}
    values = measure(KEYS, rows, reader, MeasureOptions(judges=Judges(RuleJudge()))).values
    assert low <= values["leak_at/1"].value <= values["leak_at/8"].value <= high
    assert low <= values["sampling/leak_bound"].value, "a bound of eight answers is at least .44"
    assert values["sampling/leak_bound"].value >= values["leak_at/1"].value
