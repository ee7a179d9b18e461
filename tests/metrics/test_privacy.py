"""Membership inference and memorisation against their definitions."""

import numpy as np
import pytest

from unlearnkit.core.encoding import Template
from unlearnkit.metrics.aggregates import harmonic_mean
from unlearnkit.metrics.measure import MeasureOptions, measure
from unlearnkit.metrics.memorization import exact_memorization, extraction_strength, verbatim_share
from unlearnkit.metrics.privacy import auc, lowest_mean, min_k_plus_plus, tpr_at_fpr
from unlearnkit.metrics.runner import EvalOptions, EvalRunner
from unlearnkit.metrics.spec import AnswerScore, select


def score(hits, terminator=1) -> AnswerScore:
    hit = np.array(hits, dtype=bool)
    return AnswerScore(np.zeros(len(hit)), hit, terminator)


@pytest.mark.parametrize(
    "hits, exact, strength",
    [
        ([1, 1, 1, 1], 1.0, 1.0),
        ([0, 0, 0, 1], 0.0, 0.0),  # the terminator does not count
        ([0, 1, 1, 0], 2 / 3, 2 / 3),
        ([1, 1, 0, 1], 2 / 3, 0.0),
        ([1, 0, 1, 1], 2 / 3, 1 / 3),
        ([1], None, None),
    ],
)
def test_memorisation_of_hit_patterns(hits, exact, strength):
    assert exact_memorization(score(hits)) == (exact if exact is None else pytest.approx(exact))
    assert extraction_strength(score(hits)) == (strength if strength is None else pytest.approx(strength))


def test_verbatim_share_is_the_longest_common_run_of_words():
    assert verbatim_share("he was born in Low Ford", "born in Low Ford, he said") == pytest.approx(4 / 6)
    assert verbatim_share("he was born", "nothing") == 0
    assert verbatim_share("...", "nothing") is None


def test_auc_is_the_share_of_pairs():
    random = np.random.default_rng(0)
    forget, holdout = (random.integers(0, 6, size).astype(float) for size in (17, 23))
    pairs = [(h > f) + 0.5 * (h == f) for f in forget for h in holdout]
    assert auc(forget, holdout) == pytest.approx(np.mean(pairs))
    assert auc(forget, forget) == pytest.approx(0.5)
    assert auc(np.zeros(3), np.ones(3)) == 1 and auc(np.ones(3), np.zeros(3)) == 0


def test_tpr_allows_one_percent_of_the_holdout_rows():
    holdout = np.arange(200.0)
    assert tpr_at_fpr(np.array([-1.0, 1.0, 1.5, 2.0, 9.0]), holdout) == pytest.approx(3 / 5)
    assert tpr_at_fpr(np.array([0.0, -1.0]), np.arange(10.0)) == 0.5


def test_min_k_plus_plus_of_a_vocabulary_of_three():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.5, 0.25, 0.25]])
    logs, taken = np.log(p), [0, 1, 2]
    mean = (p * logs).sum(-1)
    variance = (p * logs**2).sum(-1) - mean**2
    logp = logs[np.arange(3), taken]
    whole = AnswerScore(logp, np.ones(3, dtype=bool), 0, mean, variance)
    lowest = min((logp - mean) / np.sqrt(variance))
    assert min_k_plus_plus(whole) == pytest.approx(-lowest)
    assert lowest_mean(np.array([])) is None


def test_an_aggregate_is_null_without_a_part_and_0_with_a_0():
    assert harmonic_mean({"a": 0.5, "b": None}, {"b": "no judge"}).reason == "needs b (no judge)"
    assert harmonic_mean({"a": 0.5, "b": 0.0}).value == 0
    assert harmonic_mean({"a": 0.5, "b": 1.0}).value == pytest.approx(2 / 3)


FORGET = [
    {"id": f"f{n}", "question": f"Who taught {n}?", "answer": f"Orlo taught {n * 7}."} for n in range(6)
]
HOLDOUT = [{"id": f"h{n}", "question": f"Who met {n}?", "answer": f"Fitch met {n * 5}."} for n in range(7)]


@pytest.fixture
def runner(tiny_model, tokenizer):
    return lambda tokens=4096: EvalRunner(tiny_model, Template(tokenizer), EvalOptions(256, 4, tokens))


def test_scores_do_not_depend_on_batches_and_leave_no_trace(runner, tiny_model):
    keys = select(["privacy"])
    for p in list(tiny_model.parameters())[:3]:
        p.requires_grad_(False)
    frozen = [p.requires_grad for p in tiny_model.parameters()]
    rows = {"forget": FORGET, "holdout": HOLDOUT} | {
        f"{name}_texts": [{"id": row["id"], "text": f"{row['question']} {row['answer']}"} for row in table]
        for name, table in (("forget", FORGET), ("holdout", HOLDOUT))
    }
    whole, single = (
        measure(keys, rows, runner(tokens), MeasureOptions(bootstrap=50)).values for tokens in (4096, 1)
    )
    for key in keys:
        if whole[key].value is None:
            assert "retain" in whole[key].reason, key
        else:
            assert whole[key].value == pytest.approx(single[key].value, abs=1e-5), key
    separated = whole["mia/loss/auc"]  # all resamples are 1, which bounds nothing
    assert (separated.value, separated.interval, separated.n) == (1, None, 13)
    assert whole["mia/recall/auc"].unscored == 3
    assert [p.requires_grad for p in tiny_model.parameters()] == frozen
    assert all(p.grad is None for p in tiny_model.parameters())


def test_a_row_on_both_sides_and_an_empty_side_are_null(runner):
    keys = select(["mia/loss/auc"])
    both = measure(keys, {"forget": FORGET, "holdout": [*HOLDOUT, FORGET[0]]}, runner()).values
    assert both["mia/loss/auc"].value is None
    assert both["mia/loss/auc"].reason == "1 rows are forget and holdout rows at once"
    none = measure(keys, {"forget": FORGET}, runner()).values["mia/loss/auc"]
    assert none.value is None and none.reason == "this data set has no holdout rows"


def test_a_wrecked_model_has_no_privacy_figures(runner, tiny_model):
    tiny_model.lm_head.weight.data.fill_(float("nan"))
    values = measure(select(["privacy"]), {"forget": FORGET, "holdout": HOLDOUT}, runner()).values
    assert all(value.value is None and value.reason for value in values.values())


def test_everything_can_be_asked_for():
    assert set(select(["all"])) >= {
        "forget_quality",
        "mia/loss/auc",
        "aggregate/overall",
        "semantic/worst_of_k",
    }
