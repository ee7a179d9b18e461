"""Forget quality and what stands beside it: on made-up truth ratios, on the official logs, in a run."""

import math

import numpy as np
import pytest
from conftest import FICTIONAL, SHARED_DATA
from scipy.stats import ks_2samp
from scripts import run_script

from unlearnkit.core.files import read_json
from unlearnkit.metrics.external_results import read_results
from unlearnkit.metrics.inputs import MetricInputs
from unlearnkit.metrics.spec import METRICS, Value, select

QUALITY = ("forget_quality", "forget_quality_log10", "forget_quality_ks")
RELATIVE = ("forget/nearer_to_retain", "forget/relative_test_p")
LOGS = SHARED_DATA / "open_unlearning_eval"
official = pytest.mark.skipif(not LOGS.is_dir(), reason="OpenUnlearning's logs are not here")


def table(ratios, first: int = 0) -> dict:
    return {"forget": {str(first + i): {"log_truth_ratio": ratio} for i, ratio in enumerate(ratios)}}


def figures(ratios, retain=None, **others) -> dict[str, Value]:
    """All figures of a model with these log truth ratios; `retain`, `second_retain_columns` and
    `original_columns` are tables of other models."""
    inputs = MetricInputs({"forget": [{"id": str(i)} for i in range(len(ratios))]}, retain, **others)
    inputs.values["forget/truth_ratio"] = Value(0.5, columns={"log_truth_ratio": list(ratios)})
    return {key: METRICS[key].compute(inputs) for key in (*QUALITY, *RELATIVE, "forget_quality_yardstick")}


def normal(seed: int, n: int = 40, mean: float = 0.0) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, size=n))


def test_they_are_chosen_with_tofu_and_alone():
    assert {*QUALITY, *RELATIVE, "forget_quality_yardstick"} <= set(select(["tofu"]))
    assert select(["forget_quality"]) == ["forget/truth_ratio", "forget_quality"]


def test_statistic_logarithm_and_nearest_values_stand_beside_p():
    ours, theirs = normal(0), normal(1, mean=0.6)
    found, expected = figures(ours, table(theirs)), ks_2samp(ours, theirs)
    quality = found["forget_quality"]
    assert quality.value == pytest.approx(expected.pvalue, rel=1e-11)
    assert found["forget_quality_ks"].value == pytest.approx(expected.statistic)
    assert found["forget_quality_log10"].value == pytest.approx(np.log10(expected.pvalue))
    assert (quality.n, quality.details["rows"], quality.details["other_rows"]) == (40, 40, 40)
    lower, higher = quality.details["next_lower"], quality.details["next_higher"]
    assert (lower["D"], higher["D"]) == (
        pytest.approx(expected.statistic + 1 / 40),
        pytest.approx(expected.statistic - 1 / 40),
    )
    assert lower["p"] < quality.value < higher["p"]


def test_a_p_too_small_for_a_float_has_its_logarithm():
    found = figures(normal(0, 1000), table(normal(1, 1000, mean=100)))
    assert found["forget_quality"].value == 0
    assert "see forget_quality_log10" in found["forget_quality"].reason
    assert found["forget_quality_log10"].value == pytest.approx(
        np.log10(2) - math.log10(math.comb(2000, 1000))
    )


def test_a_row_without_a_truth_ratio_on_one_side_counts_on_the_other():
    ours, theirs = normal(0), normal(1)
    found = figures([*ours[:-1], None], table(theirs))["forget_quality"]
    assert found.value == pytest.approx(ks_2samp(ours[:-1], theirs, method="exact").pvalue, rel=1e-11)
    assert (found.n, found.details["rows"], found.details["other_rows"]) == (39, 39, 40)
    assert "over 39 rows of this run and 40 of the retain results" in found.reason
    # OpenUnlearning's log leaves such a row out.
    shorter = table(theirs)
    del shorter["forget"]["7"]
    other = figures(ours, shorter)["forget_quality"]
    assert other.details["other_rows"] == 39 and other.value is not None


@pytest.mark.parametrize(
    "ours, theirs, reason",
    [
        ([*normal(0, 30), *[None] * 10], table(normal(1)), "10 of 40 forget rows have no truth ratio"),
        (
            normal(0),
            table([*normal(1, 3), *[None] * 37]),
            "37 of 40 forget rows have no truth ratio in the retain",
        ),
        (
            normal(0),
            table(normal(1), first=20),
            "of other forget rows: they have 40, this run 40, 20 of them unknown",
        ),
        (
            normal(0),
            table(normal(1, 400)),
            "of other forget rows: they have 400, this run 40; measure both on the same rows",
        ),
        (normal(0), {"retain": {}}, "of other forget rows: they have 0, this run 40"),
        ([None] * 40, table(normal(1)), "40 of 40 forget rows have no truth ratio"),
    ],
)
def test_other_rows_and_few_values_are_null_with_the_reason(ours, theirs, reason):
    found = figures(ours, theirs)
    for key in QUALITY:
        assert found[key].value is None
        assert reason in found[key].reason


def test_the_reason_has_the_figure_of_the_official_code():
    ours, theirs = normal(0), normal(1, 400)
    p = ks_2samp(ours, theirs, method="exact").pvalue
    assert f"p = {p:.3g}" in figures(ours, table(theirs))["forget_quality"].reason


def test_the_yardstick_is_the_p_of_one_retain_model_against_another():
    ours, first, second = normal(0, mean=5), normal(1), normal(2)
    alone = figures(ours, table(first))["forget_quality_yardstick"]
    assert alone.value is None and "evaluate.second_retain_results" in alone.reason
    found = figures(ours, table(first), second_retain_columns=table(second))
    assert found["forget_quality_yardstick"].value == pytest.approx(ks_2samp(first, second).pvalue)
    assert found["forget_quality"].value < 1e-6
    other = figures(ours, table(first), second_retain_columns=table(second, first=1000))
    assert other["forget_quality_yardstick"].value is None
    assert "the second retain results are of other forget rows" in other["forget_quality_yardstick"].reason
    assert "evaluate.retain_results" in figures(ours)["forget_quality_yardstick"].reason


def test_the_relative_test_needs_the_original_model_on_the_same_rows():
    ours, retain, original = normal(0), normal(1), normal(2, mean=1)
    for columns, reason in (
        (None, "evaluate.original_results"),
        (table(original, first=9), "of other forget rows"),
    ):
        found = figures(ours, table(retain), original_columns=columns)
        assert all(found[key].value is None and reason in found[key].reason for key in RELATIVE)
    found = figures(ours, None, original_columns=table(original))
    assert all("evaluate.retain_results" in found[key].reason for key in RELATIVE)
    same = figures([1.0] * 40, table([1.0] * 40), original_columns=table([1.0] * 40))
    assert all("values that differ" in same[key].reason for key in RELATIVE)


def test_the_relative_test_pairs_rows_by_id_and_leaves_out_unscored_ones():
    retain, original = normal(1), normal(2, mean=3)
    reordered = {"forget": dict(reversed(table(retain)["forget"].items()))}
    plain, other = (
        figures(retain, columns, original_columns=table(original)) for columns in (table(retain), reordered)
    )
    for key in RELATIVE:
        assert plain[key].value == other[key].value
    assert (plain[RELATIVE[0]].value, plain[RELATIVE[0]].details["mmd2_to_retain"]) == (1, 0)
    one_less = figures([None, *retain[1:]], table(retain), original_columns=table(original))[RELATIVE[0]]
    assert (one_less.value, one_less.n) == (1, 39)
    assert one_less.reason == "1 rows lack a truth ratio of one of the models"
    # A truth ratio of 0 in a log, whose logarithm is minus infinity.
    zero = figures(retain, table(retain), original_columns=table([-np.inf, *original[1:]]))[RELATIVE[0]]
    assert zero.value == 1


def test_a_run_says_all_of_it(tmp_path):
    chosen = ",".join((*QUALITY, *RELATIVE, "forget_quality_yardstick"))
    run = run_script(
        "evaluate_model",
        *f"--overall.model_name {FICTIONAL}/target --evaluate.metrics {chosen} --evaluate.rows 12".split(),
        *f"--logger.json.root {tmp_path} --logger.name retain".split(),
    )
    assert run.returncode == 0, run.stderr
    again = run_script(
        "evaluate_model",
        *f"--overall.model_name {FICTIONAL}/retain --evaluate.metrics {chosen} --evaluate.rows 12".split(),
        *f"--evaluate.retain_results {tmp_path}/retain --evaluate.original_results {tmp_path}/retain".split(),
        *f"--logger.json.root {tmp_path} --logger.name run".split(),
    )
    assert again.returncode == 0, again.stderr
    metrics, detail = (read_json(tmp_path / f"run/{name}.json") for name in ("metrics", "metrics_detail"))
    assert metrics["forget/nearer_to_retain"] == 0.5
    assert metrics["forget_quality_log10"] == pytest.approx(np.log10(metrics["forget_quality"]))
    assert detail["forget_quality"]["D"] == metrics["forget_quality_ks"]
    assert "evaluate.second_retain_results" in detail["forget_quality_yardstick"]["reason"]
    shown = " ".join(again.stdout.split())
    assert "12 rows against 12 of the retain model; the nearest other values of p are" in shown
    assert "forget/nearer_to_retain" in shown and "forget_quality_yardstick" not in shown


def log(model: str, kind: str, rows: int) -> dict:
    """The forget rows of an official log, the last `rows` of them, numbered from 0."""
    columns = list(read_results(LOGS / f"tofu_{model}_{kind}" / "TOFU_EVAL.json")["forget"].values())
    return {"forget": {str(i): row for i, row in enumerate(columns[-rows:])}}


MODELS = ("Llama-2-7b-chat-hf", "Llama-3.2-1B-Instruct", "Llama-3.1-8B-Instruct")


@official
@pytest.mark.parametrize("model, p", zip(MODELS, (4.346e-25, 3.905e-22, 1.585e-27), strict=True))
def test_the_official_logs_have_their_published_forget_quality(model, p):
    path = LOGS / f"tofu_{model}_full" / "evals_forget10/TOFU_EVAL.json"
    published = read_json(path)["forget_quality"]["agg_value"]
    ours = [row["log_truth_ratio"] for row in read_results(path)["forget"].values()]
    found = figures(ours, log(model, "retain90", 400))
    assert found["forget_quality"].value == pytest.approx(published, rel=1e-9)
    assert published == pytest.approx(p, rel=1e-3)
    assert found["forget_quality_log10"].value == pytest.approx(np.log10(published))


@official
@pytest.mark.parametrize("model, p", zip(MODELS, (0.96465, 0.99733, 0.86553), strict=True))
def test_an_honest_retrain_is_nearer_to_another_than_to_the_original(model, p):
    """forget05 is the second half of forget10, and neither retain95 nor retain90 has seen it."""
    first, second = log(model, "retain90", 200), log(model, "retain95", 200)
    original = log(model, "full/evals_forget05", 200)
    ours = [row["log_truth_ratio"] for row in second["forget"].values()]
    found = figures(ours, first, second_retain_columns=second, original_columns=original)
    assert found["forget_quality"].value == pytest.approx(p, abs=1e-5)
    assert found["forget_quality_yardstick"].value == found["forget_quality"].value
    assert found["forget/nearer_to_retain"].value == 1
    assert found["forget/relative_test_p"].value > 0.999
    unchanged = [row["log_truth_ratio"] for row in original["forget"].values()]
    kept = figures(unchanged, first, original_columns=original)
    assert kept["forget/nearer_to_retain"].value == 0
    assert kept["forget/relative_test_p"].value < 1e-4
