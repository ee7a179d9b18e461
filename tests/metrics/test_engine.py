"""The engine's promises: one pass for all, nothing depends on batching, what cannot be measured is null with
a reason."""

import math

import numpy as np
import pytest
from tiny import one_word_llama

from unlearnkit.core.encoding import Template
from unlearnkit.core.likelihood import token_nll
from unlearnkit.dataset import row_files
from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
from unlearnkit.metrics.aggregates import mean_of_values
from unlearnkit.metrics.inputs import MetricInputs
from unlearnkit.metrics.measure import MeasureOptions, count_texts, measure
from unlearnkit.metrics.resampling import NONE, interval, interval_of_mean, percentiles, resampled_means
from unlearnkit.metrics.runner import EvalOptions, EvalRunner, RunnerHooks
from unlearnkit.metrics.spec import METRICS, AnswerScore, Decoding, Generations, Value, select
from unlearnkit.model.evaluation import chosen_metrics
from unlearnkit.model.run.training_metrics import warn_of_unfit_task

ROWS = {
    "forget": [
        {
            "id": f"f{i}",
            "question": f"Who taught Abelin {word}?",
            "answer": f"That was the miller {word}.",
            "paraphrased_answer": f"The miller {word} did.",
            "perturbed_answer": [f"The widow {word} did.", "Nobody."],
        }
        for i, word in enumerate(["Orlo", "of the long winter market", "Tamsin Greaves", "x"])
    ]
}

LONG = {**ROWS["forget"][0], "id": "long", "answer": 300 * "That was the miller. "}
"""Its answer cannot be scored."""


def runner(model, tokenizer, batch_tokens=4096):
    return EvalRunner(model, Template(tokenizer), EvalOptions(256, 6, batch_tokens))


def test_values_do_not_depend_on_batching_or_row_order(tiny_model, tokenizer):
    keys = select(["forget/prob", "forget/truth_ratio", "forget/rougeL"])
    wide = measure(keys, ROWS, runner(tiny_model, tokenizer)).values
    narrow = measure(keys, {"forget": ROWS["forget"][::-1]}, runner(tiny_model, tokenizer, 1)).values
    for key in keys:
        assert wide[key].value == pytest.approx(narrow[key].value, abs=1e-6)
        column = key.partition("/")[2]
        assert wide[key].columns[column] == pytest.approx(narrow[key].columns[column][::-1], abs=1e-6)


def test_one_pass_equals_a_plain_forward_per_answer(tiny_model, tokenizer):
    import torch

    scored = runner(tiny_model, tokenizer).likelihoods(ROWS["forget"], ["answer", "perturbed_answer"])
    for row, answers, wrong in zip(ROWS["forget"], scored["answer"], scored["perturbed_answer"]):
        for text, score in zip([row["answer"], *row["perturbed_answer"]], [*answers, *wrong]):
            encoded = Template(tokenizer).encode({"id": "x", "question": row["question"], "answer": text})
            ids, labels = torch.tensor([encoded.input_ids]), torch.tensor([encoded.labels])
            with torch.no_grad():
                plain = token_nll(tiny_model(ids).logits, labels)
            assert score.loss == pytest.approx(plain.mean().item(), abs=1e-5)
            assert len(score.logp) == len(plain)
            assert score.n_terminator == 1


@pytest.mark.parametrize("mode", ["thinking", "more"])
def test_the_texts_that_are_counted_before_are_those_that_are_done(tiny_model, tokenizer, mode):
    rows, decoding, done = {"forget": [*ROWS["forget"], LONG]}, Decoding(mode), []
    keys = select(["tofu", "health"])
    options = EvalOptions(256, 6, 4096, decoding)
    reader = EvalRunner(
        tiny_model, Template(tokenizer), options, RunnerHooks(done.append, lambda: tiny_model)
    )
    measure(keys, rows, reader)
    assert sum(done) == count_texts(keys, rows, decoding) > 5 * len(rows["forget"])


def test_each_need_is_met_once(tiny_model, tokenizer, monkeypatch):
    calls = []
    real = EvalRunner.likelihoods
    monkeypatch.setattr(
        EvalRunner,
        "likelihoods",
        lambda self, rows, fields, *more: calls.append(sorted(fields)) or real(self, rows, fields, *more),
    )
    measure(select(["forget/prob", "forget/truth_ratio"]), ROWS, runner(tiny_model, tokenizer))
    assert calls == [["answer", "paraphrased_answer", "perturbed_answer"]]


def test_every_metric_is_named_before_it_is_computed(tiny_model, tokenizer):
    keys, named = select(["forget/prob", "forget/truth_ratio"]), []
    options = MeasureOptions(on_metric=lambda number, key: named.append((number, key)))
    measure(keys, ROWS, runner(tiny_model, tokenizer), options)
    assert named == list(enumerate(keys, 1))


def test_missing_rows_and_fields_are_null_with_the_reason(tiny_model, tokenizer):
    rows = {"forget": [{key: row[key] for key in ("id", "question", "answer")} for row in ROWS["forget"]]}
    values = measure(select(["tofu"]), rows, runner(tiny_model, tokenizer)).values
    assert values["forget/truth_ratio"].value is None
    assert "paraphrased_answer" in values["forget/truth_ratio"].reason
    assert values["retain/prob"].reason == "this data set has no retain rows"
    assert values["model_utility"].value is None
    assert "retain/prob" in values["model_utility"].reason
    assert values["forget_quality"].reason.startswith("needs forget/truth_ratio: the forget rows have no '")
    assert "make_perturbed.py" in values["forget_quality"].reason
    assert values["forget/prob"].n == 4


def quality(ours, theirs, ids=None):
    ids = ids or [str(i) for i in range(len(ours))]
    columns = None if theirs is None else {"forget": {i: {"log_truth_ratio": r} for i, r in zip(ids, theirs)}}
    inputs = MetricInputs({"forget": [{"id": str(i)} for i in range(len(ours))]}, columns)
    inputs.values["forget/truth_ratio"] = Value(0.5, columns={"log_truth_ratio": ours})
    return METRICS["forget_quality"].compute(inputs), METRICS["forget_quality_ks"].compute(inputs)


def test_forget_quality_needs_a_retain_model_of_the_same_rows():
    ours = list(np.linspace(-1, 1, 20))
    assert quality(ours, None)[0].value is None
    assert "evaluate.retain_results" in quality(ours, None)[0].reason
    assert quality(ours, ours[:10])[0].value is None
    assert "other forget rows" in quality(ours, ours, [f"x{i}" for i in range(20)])[0].reason


def test_forget_quality_identities():
    ours = list(np.random.default_rng(0).normal(size=50))
    p, d = quality(ours, ours)
    assert (p.value, d.value) == (1.0, 0.0)
    shifted = [x + 10 for x in ours]
    assert quality(ours, shifted)[0].value < 1e-10
    assert quality(ours, shifted)[1].value == 1.0
    inverted = quality([-x for x in ours], [-x for x in shifted])[0].value
    assert inverted == pytest.approx(quality(ours, shifted)[0].value)


def test_partial_utility_is_the_mean_of_what_there_is_and_names_the_rest():
    metric = METRICS["partial_utility"]
    inputs = MetricInputs({}, None)
    inputs.values = dict.fromkeys(metric.after, Value(None, "no rows"))
    assert metric.compute(inputs).reason.startswith(
        "no part of model_utility can be measured: needs retain/p"
    )
    inputs.values |= {"retain/prob": Value(0.5), "retain/rougeL": Value(0.25)}
    found = metric.compute(inputs)
    assert (found.value, found.n) == (pytest.approx(1 / 3), 2)
    assert found.reason.startswith(
        "mean of retain/prob, retain/rougeL; without retain/truth_ratio, real/prob, "
    )
    inputs.values["retain/rougeL"] = Value(0.0)
    assert metric.compute(inputs).value == 0
    inputs.values = dict.fromkeys(metric.after, Value(0.5))
    assert metric.compute(inputs).value is None  # it would be model_utility


def test_model_utility_is_a_harmonic_mean_and_zero_with_a_zero_part():
    metric = METRICS["model_utility"]
    inputs = MetricInputs({}, None)
    inputs.values = {key: Value(0.25 if i else 0.5) for i, key in enumerate(metric.after)}
    assert metric.compute(inputs).value == pytest.approx(9 / (8 / 0.25 + 1 / 0.5))
    inputs.values[metric.after[0]] = Value(0.0)
    assert metric.compute(inputs).value == 0.0


def test_truth_ratio_by_hand():
    inputs = MetricInputs({}, None)
    score = lambda p: AnswerScore(np.log(np.array([p, p])), np.array([True, True]), 1)
    inputs.scores = {
        ("forget", "paraphrased_answer", ""): [[score(0.5)]],
        ("forget", "perturbed_answer", ""): [[score(0.1), score(0.4)]],
    }
    result = METRICS["forget/truth_ratio"].compute(inputs)
    ratio = math.sqrt(0.1 * 0.4) / 0.5
    assert result.values == pytest.approx([ratio])
    assert result.columns["log_truth_ratio"] == pytest.approx([math.log(ratio)])


def test_intervals_hold_the_mean_and_rest_on_the_seed(tiny_model, tokenizer):
    run = lambda seed: measure(
        ["forget/prob"], ROWS, runner(tiny_model, tokenizer), MeasureOptions(seed=seed)
    ).values["forget/prob"]
    assert run(0).interval[0] <= run(0).value <= run(0).interval[1]
    assert run(0).interval == run(0).interval
    draws = np.random.default_rng(1).normal(size=40)
    assert interval(draws, 200, 0) != interval(draws, 200, 1)
    assert interval(draws, 0, 0) is None


def test_an_interval_holds_the_middle_95_percent():
    """A resample of three values has a mean of 0 (or 1) with probability 1/27 = 3.7 %: inside
    the middle 95 % and outside the middle 90 %."""
    assert interval(np.array([0.0, 1.0, 1.0]), 10_000, 0) == (0.0, 1.0)
    assert interval(np.array([0.0, 0.0, 1.0]), 10_000, 0) == (0.0, 1.0)


def test_the_loss_counts_the_terminator_and_the_answers_likelihood_does_not():
    score = AnswerScore(np.array([-1.0, -2.0, -6.0]), np.array([True, True, True]), 1)
    assert (score.loss, score.answer_logp) == (3.0, -1.5)
    assert AnswerScore(score.logp, score.hit, 0).answer_logp == -3.0


@pytest.mark.parametrize("mode, text", [("direct", "Orlo"), ("more", "Orlo\nWait Orlo\nWait Orlo")])
def test_an_answer_ends_where_the_template_ends_a_turn(mode, text, tokenizer):
    answers = runner(*one_word_llama(tokenizer)).generations(
        ROWS["forget"], Generations("forget", "question", mode)
    )
    assert [(answer.text, answer.ended) for (answer,) in answers] == [(text, True)] * 4


def test_choice_accuracy_reads_the_likeliest_letter():
    inputs = MetricInputs({"forget_choices": [{"id": "a", "right": 2}, {"id": "b", "right": 0}]}, None)
    score = lambda p: AnswerScore(np.log(np.array([p, 0.5])), np.array([True, True]), 1)
    letters = [score(p) for p in (0.1, 0.2, 0.6, 0.05)]
    inputs.scores = {("forget_choices", "letters", ""): [letters, letters]}
    assert METRICS["forget/choice_accuracy"].compute(inputs) == [1.0, 0.0]


@pytest.mark.parametrize("key", ["forget/trace_recall", "retain/trace_recall"])
def test_rows_without_a_key_fact_have_no_recall_of_it(key, tokenizer, tiny_model):
    rows = [{"id": "a", "question": "Who?", "answer": "Orlo."}]
    value = measure([key], {key.partition("/")[0]: rows}, runner(tiny_model, tokenizer)).values[key]
    assert value.value is None
    assert "have no 'key'" in value.reason


def test_a_figure_of_figures_has_the_interval_of_their_joint_resamples():
    """Of two equal columns the harmonic mean is each of them, resample by resample."""
    values = np.random.default_rng(0).uniform(0.2, 0.9, 40)
    means = resampled_means(values, 500, 3)
    part = Value(float(values.mean()), "", 40, interval=percentiles(means), resamples=means)
    both = mean_of_values({"a": part, "b": part})
    assert both.value == pytest.approx(part.value)
    assert both.interval == pytest.approx(part.interval)
    turned = mean_of_values({"a": part, "b": part}, lambda value: 1 - value)
    assert turned.interval == pytest.approx((1 - part.interval[1], 1 - part.interval[0]))
    assert mean_of_values({"a": part, "b": Value(0.5)}).interval is None, "one part has none"
    assert mean_of_values({"a": part, "b": Value(None, "no rows")}).reason == "needs b (no rows)"


def test_all_are_the_metrics_that_the_data_set_has_rows_for():
    rows = {"forget": [{"id": "f", "question": "Who?", "answer": "Me."}]}
    settings = lambda names: resolve_settings(StrictConfig(), [], {"evaluate.metrics": names}, {})
    every = chosen_metrics(settings("all"), rows)
    assert {"forget/prob", "forget/rougeL", "forget_quality"} <= set(every)
    others = ("lume/", "muse/", "retain/", "copyright/", "mia_texts/")
    assert not [key for key in every if key.startswith(others)]
    assert "mia/loss/auc" in every, "one of its sides is there: it is null and says what the other lacks"
    named = chosen_metrics(settings("all,muse/privleak"), rows)
    assert set(named) - set(every) == set(select(["muse/privleak"])), "what is named stays"
    assert chosen_metrics(settings("tofu"), rows) == select(["tofu"])


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("n", [2, 6, 64])
def test_rows_that_all_agree_have_the_exact_binomial_interval(value, n):
    from scipy.stats import binomtest

    low, high = interval(np.full(n, value), 100, 0)
    expected = binomtest(int(value * n), n).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_where_all_rows_agree_off_the_ends_there_is_no_interval():
    assert interval(np.full(5, 0.5), 100, 0) is None
    assert interval_of_mean(np.zeros(5), np.zeros(100), is_share=False) == (None, NONE)
    assert METRICS["forget/prob"].is_share and not METRICS["copyright/forget_lcs_chars"].is_share


def test_the_reason_of_a_null_names_the_file(tiny_model, tokenizer):
    options = MeasureOptions(row_files=row_files("MuseNews_forget"))
    found = measure(["muse/knowmem_forget"], ROWS, runner(tiny_model, tokenizer), options).values
    reason = "this data set has no forget_knowledge rows (knowmem_forget_qa.jsonl)"
    assert found["muse/knowmem_forget"].reason == reason


def test_a_task_of_other_rows_is_warned_of(caplog):
    rows = {name: [{"id": "a", "question": "q", "answer": "a"}] for name in ("forget", "retain")}
    for task, warned in (("muse", True), ("tofu", False)):
        caplog.clear()
        flags = {
            "unlearn.task_name": task,
            "overall.model_name": "owner/m",
            "dataset.forget_dataset_name": "Tofu_forget10",
        }
        warn_of_unfit_task(resolve_settings(StrictConfig(), [], flags, {}), rows)
        assert ("none of its metrics can be measured on Tofu_forget10" in caplog.text) == warned
