"""Logs of other toolkits, whole: every figure is that of its rows, and every fault is named."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED_DATA
from made_up_logs import GUARD, entry, muse, open_unlearning, tofu, write
from scipy.stats import ks_2samp

from unlearnkit.core.files import UserError
from unlearnkit.metrics.external_results import read_log, read_results
from unlearnkit.metrics.tofu import summarize

LOGS = SHARED_DATA / "open_unlearning_eval"
TOFU_LOGS = SHARED_DATA / "tofu_eval_logs"
RETAIN = {"evals_forget01": "retain99", "evals_forget05": "retain95", "evals_forget10": "retain90"}


def retain_log(path: Path) -> Path | None:
    """The retain model's log that a published log was made with."""
    if path.parent.name in RETAIN:
        folder = path.parents[1].name.replace("_full", f"_{RETAIN[path.parent.name]}")
        return LOGS / folder / path.name
    return Path(str(path).replace("_target", "_retrain")) if "_target" in str(path) else None


@pytest.mark.skipif(not LOGS.is_dir(), reason="OpenUnlearning's published logs are not here")
@pytest.mark.slow
def test_every_aggregate_of_the_published_logs_is_that_of_its_rows():
    paths = sorted(LOGS.rglob("*_EVAL.json"))
    assert len(paths) == 20
    for path in paths:
        beside = retain_log(path)
        log = read_log(path, read_log(beside) if beside else None)
        assert not log.warnings, path
        stored = [figure.name for figure in log.figures if figure.stored is not None]
        assert {figure.name for figure in log.checked} == set(stored), path
        assert all(figure.difference <= 1e-12 for figure in log.checked), path
        content = json.loads(path.read_text())
        assert all(name in stored or entry["agg_value"] is None for name, entry in content.items()), path
        summary = json.loads(path.with_name(path.name.replace("EVAL", "SUMMARY")).read_text())
        assert all(log.value(name) == pytest.approx(value, abs=1e-12) for name, value in summary.items())


@pytest.mark.skipif(not TOFU_LOGS.is_dir(), reason="TOFU's published logs are not here")
def test_tofus_published_logs_give_the_rows_of_its_leaderboard():
    """Finetune and Retain rows for the logs that are here."""
    from unlearnkit.metrics.tofu_leaderboard import read_leaderboard, select_rows

    logs = {name: next(TOFU_LOGS.glob(f"*llama2-7b_{name}_*")) for name in ("full", "retain90")}
    rows = select_rows(
        read_leaderboard(SHARED_DATA / "tofu_leaderboard"), ["llama", "10p", "finetune", "retain"]
    )
    for name, row in zip(logs, rows, strict=True):
        log = read_log(logs[name], read_log(logs["retain90"]))
        found = {figure.key: figure.value for figure in log.figures}
        assert not log.warnings
        for key, value in row.figures.items():
            assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-12), key


def test_a_made_up_log_is_read_whole(tmp_path):
    retain = read_log(write(tmp_path / "retain" / "TOFU_EVAL.json", open_unlearning(1)))
    content = open_unlearning(0, open_unlearning(1))
    log = read_log(write(tmp_path / "TOFU_EVAL.json", content), retain)
    assert not log.warnings and log.largest_difference < 1e-12
    assert {figure.name for figure in log.checked} == {
        *content,
        *(
            f"{name}.{part}"
            for name in content
            if name.startswith("mia")
            for part in ("auc", "forget", "holdout")
        ),
    }
    found = {figure.key: figure.value for figure in log.figures}
    for key, name in {
        "forget/prob": "forget_Q_A_Prob",
        "forget/para_prob": "forget_Q_A_PARA_Prob",
        "real/prob": "ra_Q_A_Prob_normalised",
        "world/truth_ratio": "wf_Truth_Ratio",
        "forget/exact_memorization": "exact_memorization",
        "open_unlearning/extraction_strength": "extraction_strength",
        "open_unlearning/ra_Q_A_Prob": "ra_Q_A_Prob",
        "mia/min_k/auc": "mia_min_k",
        "open_unlearning/mia_gradnorm/auc": "mia_gradnorm",
        "model_utility": "model_utility",
        "forget_quality": "forget_quality",
        "privleak": "privleak",
    }.items():
        assert found[key] == pytest.approx(content[name]["agg_value"], abs=1e-12), key
    row = log.columns["forget"]["3"]
    assert row["generation"] == "Oda Lenz." and row["prompt"] == "Who wove cloth 3?"
    assert row["mia_loss"] == content["mia_loss"]["forget"]["value_by_index"]["3"]["score"]
    assert math.exp(row["log_truth_ratio"]) == pytest.approx(
        content["forget_truth_ratio"]["value_by_index"]["3"]["score"]
    )
    assert set(log.columns) == {"forget", "retain", "real", "world", "holdout"}


def test_figures_that_need_the_retain_models_log_are_kept_as_stored_without_it(tmp_path):
    log = read_log(write(tmp_path / "TOFU_EVAL.json", open_unlearning(0, open_unlearning(1))))
    for name in ("forget_quality", "privleak"):
        figure = next(figure for figure in log.figures if figure.name == name)
        assert figure.recomputed is None and figure.value == figure.stored
        assert figure.reason == "as stored, not recomputed: needs the retain model's log (--retain)"
    retain = read_log(write(tmp_path / "retain.json", open_unlearning(1)))
    quality, leak = (
        next(figure for figure in retain.figures if figure.name == name)
        for name in ("forget_quality", "privleak")
    )
    assert quality.value is None and quality.reason.startswith("null in the log, whose evaluation had none")
    assert leak.key == "privleak_vs_half" and leak.recomputed == pytest.approx(leak.stored)


def test_muses_figures_are_f1_of_documents_under_names_of_their_own(tmp_path):
    content = muse()
    log = read_log(write(tmp_path / "MUSE_EVAL.json", content))
    assert not log.warnings and log.largest_difference < 1e-12
    assert all(figure.key.startswith("open_unlearning/") for figure in log.figures)
    assert {*content} <= {figure.name for figure in log.checked}
    assert log.columns["forget_documents"]["0"]["continuation"] == "Oda Lenz."
    assert set(log.columns) == {"forget", "retain", "forget_documents", "privleak_forget", "privleak_holdout"}


def test_null_rows_are_left_out_and_their_truth_ratios_numbered_as_the_rows_are(tmp_path):
    content = open_unlearning(0, null_row=2)
    assert list(content["forget_truth_ratio"]["value_by_index"]) == ["0", "1", "2", "3", "4"]
    log = read_log(write(tmp_path / "TOFU_EVAL.json", content))
    assert not log.warnings and log.largest_difference < 1e-12
    figure = next(figure for figure in log.figures if figure.name == "forget_truth_ratio")
    assert (figure.n, figure.unscored) == (5, 1) and figure.reason == "1 rows have no value in the log"
    ratios = [row["log_truth_ratio"] for row in log.columns["forget"].values()]
    stored = [row["score"] for row in content["forget_truth_ratio"]["value_by_index"].values()]
    assert ratios[2] is None and log.columns["forget"]["2"]["prob"] is None
    assert np.exp([ratio for ratio in ratios if ratio is not None]) == pytest.approx(stored)
    content["exact_memorization"]["value_by_index"]["1"] = {"score": None}
    log = read_log(write(tmp_path / "TOFU_EVAL.json", content))
    figure = next(figure for figure in log.figures if figure.name == "exact_memorization")
    assert (figure.n, figure.unscored) == (5, 1) and not figure.agrees


def test_the_truth_ratio_of_later_versions_is_a_share(tmp_path):
    """Aggregator prob_mean: rows and aggregate are p / (p + w)."""
    content = open_unlearning(0)
    true, wrong = (
        [np.mean(row["avg_loss"]) for row in content[f"forget_Q_A_{name}_Prob"]["value_by_index"].values()]
        for name in ("PARA", "PERT")
    )
    p, w = np.exp(-np.array(true)), np.exp(-np.array(wrong))
    content["forget_truth_ratio"] = entry("score", p / (p + w + GUARD))
    log = read_log(write(tmp_path / "TOFU_EVAL.json", content))
    figure = next(figure for figure in log.figures if figure.name == "forget_truth_ratio")
    assert not log.warnings and figure.key == "forget/truth_ratio_prob_mean"
    ratios = [row["log_truth_ratio"] for row in log.columns["forget"].values()]
    assert ratios == pytest.approx(np.array(true) - np.array(wrong), abs=1e-6)


@pytest.mark.parametrize("change", [1e-9, -0.1])
def test_a_stored_figure_that_is_not_that_of_its_rows_is_a_warning(change, tmp_path):
    content = open_unlearning(0)
    right = content["retain_Q_A_ROUGE"]["agg_value"]
    content["retain_Q_A_ROUGE"]["agg_value"] += change
    log = read_log(write(tmp_path / "TOFU_EVAL.json", content))
    assert [line.partition(":")[0] for line in log.warnings] == ["retain_Q_A_ROUGE"]
    assert repr(content["retain_Q_A_ROUGE"]["agg_value"]) in log.warnings[0]
    assert log.value("retain_Q_A_ROUGE") == pytest.approx(right, abs=1e-15)


def test_rows_that_do_not_follow_from_their_parts_are_a_warning(tmp_path):
    content = open_unlearning(0)
    content["ra_Truth_Ratio"]["value_by_index"]["3"]["score"] *= 1.5
    log = read_log(write(tmp_path / "TOFU_EVAL.json", content))
    assert any(line.startswith("ra_Truth_Ratio: rows 3 are not what") for line in log.warnings)


def test_unknown_metrics_are_named_and_kept_as_stored(tmp_path):
    content = open_unlearning(0) | {"forget_charm": {"agg_value": 0.25}, "version": "1.2"}
    log = read_log(write(tmp_path / "TOFU_EVAL.json", content))
    assert log.warnings == [
        "forget_charm: unknown metric: as stored, not recomputed",
        "version: not a metric of this format; left out",
    ]
    assert log.value("forget_charm") == 0.25


@pytest.mark.parametrize(
    "name, row, message",
    [
        ("exact_memorization", {"score": "high"}, "exact_memorization, row 1: 'score' must be"),
        ("exact_memorization", {"score": math.nan}, "exact_memorization, row 1: 'score' must be .* got nan"),
        ("exact_memorization", {}, "exact_memorization, row 1: 'score' is missing"),
        ("exact_memorization", [0.5], "exact_memorization, value_by_index, row 1 must be an object"),
        ("forget_Q_A_Prob", {"prob": 0.5, "avg_loss": -3}, "row 1: 'avg_loss' must be"),
        ("forget_Q_A_PERT_Prob", {"prob": [0.5, True], "avg_loss": [1, 1]}, "row 1: 'prob' must be"),
        ("retain_Q_A_ROUGE", {"rougeL_recall": 0.5, "input": 3}, "row 1: 'input' must be a text"),
        ("retain_Q_A_ROUGE", {"rougeL_f1": 0.5}, "row 1: 'rougeL_recall' is missing"),
    ],
)
def test_a_wrong_row_is_named(name, row, message, tmp_path):
    content = open_unlearning(0)
    content[name]["value_by_index"]["1"] = row
    with pytest.raises(UserError, match=message):
        read_log(write(tmp_path / "TOFU_EVAL.json", content))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"privleak": 3}, "privleak must be an object"),
        ({"privleak": {}}, "privleak: 'agg_value' is missing"),
        ({"model_utility": {"agg_value": "x"}}, "model_utility: 'agg_value' must be"),
        ({"exact_memorization": {"agg_value": math.inf}}, "exact_memorization: 'agg_value' must be"),
        ({"mia_loss": {"forget": 3}}, "mia_loss: 'forget' must be an object"),
        ({"mia_loss": {"auc": 2}}, "mia_loss: 'auc' must be a finite number from 0 to 1"),
        (
            {"mia_loss": {"forget": {"value_by_index": {"x": None}}}},
            "forget, value_by_index: 'x' is not a row",
        ),
        ({"mia_loss": {"forget": {"value_by_index": {"01": None}}}}, "'01' is not a row number"),
    ],
)
def test_a_wrong_entry_is_named(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_log(write(tmp_path / "TOFU_EVAL.json", open_unlearning(0) | changes))


@pytest.mark.parametrize(
    "text, message",
    [
        (
            '{"forget_quality": 0.5, "mia_min_k": 0.9}',
            "it is a summary, which holds no rows; give TOFU_EVAL.json",
        ),
        ('{"forget_truth_ratio": {"agg_value": 0.5}}', "neither a run folder"),
        ("[]", "neither a run folder"),
        ('{"a": ', "line 1, column 7"),
    ],
)
def test_a_file_that_is_no_log_is_refused(text, message, tmp_path):
    path = tmp_path / "TOFU_SUMMARY.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_log(path)


def test_tofus_log_is_read_whole(tmp_path):
    content = tofu()
    log = read_log(write(tmp_path / "log.json", content))
    table = content["eval_log_forget.json"]
    assert not log.warnings
    assert log.value("forget/para_prob") == pytest.approx(
        np.exp(-np.array(list(table["avg_paraphrased_loss"].values()))).mean()
    )
    assert log.value("tofu/forget/rouge1_recall") == pytest.approx(
        np.mean(list(table["rouge1_recall"].values()))
    )
    assert log.columns["forget"]["0"]["generation"] == "Oda Lenz."
    table["truth_ratio"]["4"] *= 2
    content["eval_log.json"]["num_token_gt"]["1"] += 1
    content["notes"] = {}
    log = read_log(write(tmp_path / "log.json", content))
    assert sorted(log.warnings) == [
        "eval_log.json: avg_gt_loss of rows 1 is not what gt_loss and num_token_gt give",
        "eval_log_forget.json: truth_ratio of rows 4 is not what avg_paraphrased_loss and"
        " average_perturb_loss give",
        "notes: not a table of this format; left out",
    ]


def test_null_rows_of_tofus_log_are_left_out_and_counted(tmp_path):
    content = tofu()
    content["eval_log_forget.json"]["average_perturb_loss"]["2"] = None
    log = read_log(write(tmp_path / "log.json", content))
    figure = next(figure for figure in log.figures if figure.key == "forget/truth_ratio")
    assert (figure.n, figure.unscored) == (5, 1) and 0 < figure.value < 1


@pytest.mark.parametrize("own, theirs", [(6, 4), (4, 9)])
def test_logs_of_unequal_sizes_are_tested_as_the_official_code_does(own, theirs, tmp_path):
    one, other = (
        read_results(write(tmp_path / f"{size}.json", tofu(size, forget=size))) for size in (own, theirs)
    )
    ratios = [[row["log_truth_ratio"] for row in each["forget"].values()] for each in (one, other)]
    values = summarize(one, other)
    assert values["forget_quality"].value == pytest.approx(ks_2samp(*ratios).pvalue, rel=1e-12)
    last = ks_2samp(*(ratio[-4:] for ratio in ratios))
    assert values["forget_quality"].reason == (
        f"{own} forget rows against the retain model's {theirs}, as the official code tests; TOFU's"
        f" leaderboard has the last 4 of both: p {last.pvalue:.6g}, D {last.statistic:.6g}"
    )


def test_rows_with_ids_are_tested_only_against_the_same_rows():
    one = {"forget": {"a": {"log_truth_ratio": 0.1}, "b": {"log_truth_ratio": 0.3}}}
    assert summarize(one, one)["forget_quality"].value == 1.0
    other = {"forget": {"a": {"log_truth_ratio": 0.1}, "c": {"log_truth_ratio": 0.3}}}
    assert "other forget rows: they have 2, this evaluation 2, 1 of them unknown there (first 'b')" in (
        summarize(one, other)["forget_quality"].reason
    )
    part = {"forget": {"a": {"log_truth_ratio": 0.1}, "b": {"log_truth_ratio": None}}}
    assert summarize(one, part)["forget_quality"].reason == (
        "1 of 2 forget rows have no truth ratio in the retain results"
    )
    assert summarize(one, {})["forget_quality"].reason == (
        "the retain results: no truth ratio of any forget row"
    )
