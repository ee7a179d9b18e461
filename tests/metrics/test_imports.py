"""Evaluations of other toolkits, in the shapes they write."""

import json
import math

import pytest

from unlearnkit.core.files import UserError
from unlearnkit.metrics.external_results import match_rows, read_metrics, read_results
from unlearnkit.metrics.tofu import summarize
from unlearnkit.metrics.tofu_log import TOFU_SETS


def open_unlearning(ratios, rows=range(3)):
    table = lambda field, values: {
        "agg_value": 0.0,
        "value_by_index": {str(i): {field: v} for i, v in zip(rows, values)},
    }
    log = {"forget_truth_ratio": table("score", ratios)}
    for key in ("forget_Q_A_Prob", "retain_Q_A_Prob", "ra_Q_A_Prob_normalised", "wf_Q_A_Prob_normalised"):
        log[key] = table("prob", [0.5, 0.25, 0.75])
    for key in ("forget_Q_A_ROUGE", "retain_Q_A_ROUGE", "ra_Q_A_ROUGE", "wf_Q_A_ROUGE"):
        log[key] = table("rougeL_recall", [1.0, 0.5, 0.0])
    for key in ("retain_Truth_Ratio", "ra_Truth_Ratio", "wf_Truth_Ratio"):
        log[key] = table("score", [0.5, 2.0, 0.25])
    return log


def test_open_unlearnings_rows(tmp_path):
    path = tmp_path / "TOFU_EVAL.json"
    path.write_text(json.dumps(open_unlearning([0.5, 2.0, 1.0])))
    columns = read_results(path)
    assert columns["forget"]["1"] == {"prob": 0.25, "rougeL": 0.5, "log_truth_ratio": math.log(2.0)}
    values = summarize(columns, columns)
    assert values["forget/truth_ratio"].value == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert values["retain/truth_ratio"].value == pytest.approx((0.5 + 0 + 0.75) / 3)
    assert values["forget_quality"].value == 1.0
    assert values["model_utility"].value > 0


def test_numbered_rows_are_matched_in_order_and_only_when_all_are_there():
    columns = {"forget": {"0": {"prob": 0.1}, "1": {"prob": 0.2}}}
    assert match_rows(columns, {"forget": ["a", "b"]})["forget"] == {"a": {"prob": 0.1}, "b": {"prob": 0.2}}
    assert match_rows(columns, {"forget": ["a", "b", "c"]}) == columns
    ours = {"forget": {"x": {}, "y": {}}}
    assert match_rows(ours, {"forget": ["a", "b"]}) == ours


@pytest.mark.parametrize(
    "content", ['{"forget_truth_ratio": 0.5}', "[1]", "{}", '{"forget_truth_ratio": {"agg_value": 1}}']
)
def test_a_file_without_rows_is_refused(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match="neither a run folder"):
        read_results(tmp_path / "x.json")
    with pytest.raises(UserError, match="no samples"):
        read_results(tmp_path)


def tofu(**changes):
    """TOFU's log of one row a set, with other columns in the forget set."""
    table = {
        "avg_gt_loss": {"0": 0.5},
        "avg_paraphrased_loss": {"0": 1.5},
        "average_perturb_loss": {"0": [2.0, 3.0]},
        "rougeL_recall": {"0": 1.0},
    }
    return {stem: table | (changes if name == "forget" else {}) for name, stem in TOFU_SETS.items()}


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"avg_gt_loss": {"0": -1e4}},
            "avg_gt_loss, row 0 must be a finite number of at least 0, got -10000.0",
        ),
        ({"avg_gt_loss": {"0": math.nan}}, "avg_gt_loss, row 0 must be a finite number .* got nan"),
        ({"avg_gt_loss": {"0": True}}, "avg_gt_loss, row 0 must be a finite number .* got true"),
        ({"avg_gt_loss": {"0": 10**400}}, "avg_gt_loss, row 0 must be a finite number .* got 1000"),
        ({"avg_gt_loss": {"0": "0.5"}}, "avg_gt_loss, row 0 must be a finite number .* got '0.5'"),
        ({"avg_gt_loss": {"one": 0.5}}, "avg_gt_loss: 'one' is not a row number"),
        ({"avg_gt_loss": [0.5]}, r"'avg_gt_loss' must be an object, got \[0.5\]"),
        ({"average_perturb_loss": {"0": []}}, r"average_perturb_loss, row 0 must be a list, each a finite"),
        ({"average_perturb_loss": {"0": [2.0, None]}}, "average_perturb_loss, row 0 must be a list"),
        ({"rougeL_recall": {"0": 7}}, "rougeL_recall, row 0 must be a finite number from 0 to 1, got 7"),
        ({"rougeL_recall": {"0": 1.0, "1": 1.0}}, "row 1 is in only one of avg_gt_loss and rougeL_recall"),
    ],
)
def test_a_wrong_value_of_tofus_log_is_named_with_its_row(changes, message, tmp_path):
    path = tmp_path / "eval_log_aggregated.json"
    path.write_text(json.dumps(tofu()))
    assert read_results(path)["forget"]["0"]["log_truth_ratio"] == pytest.approx(-1.0)
    path.write_text(json.dumps(tofu(**changes)))
    with pytest.raises(UserError, match=f"eval_log_aggregated.json: eval_log_forget.json.*{message}"):
        read_results(path)


def test_losses_beyond_floats_give_probability_zero(tmp_path):
    log = tofu()
    log["eval_real_author_wo_options.json"] |= {
        "avg_gt_loss": {"0": 1e4},
        "average_perturb_loss": {"0": [1e4, 1e4]},
    }
    (tmp_path / "log.json").write_text(json.dumps(log))
    assert read_results(tmp_path / "log.json")["real"]["0"]["prob"] == 0.0


@pytest.mark.parametrize(
    "ratio, message",
    [
        (-1e4, "got -10000.0"),
        (math.nan, "got nan"),
        (10**400, "got 1000"),
        (True, "got true"),
        ("x", "got 'x'"),
    ],
)
def test_a_wrong_value_of_open_unlearnings_log_is_named_with_its_row(ratio, message, tmp_path):
    (tmp_path / "TOFU_EVAL.json").write_text(json.dumps(open_unlearning([0.5, ratio, 1.0])))
    with pytest.raises(
        UserError, match=f"TOFU_EVAL.json: forget_truth_ratio, row 1: 'score' must be .*{message}"
    ):
        read_results(tmp_path / "TOFU_EVAL.json")


@pytest.mark.parametrize(
    "row, message",
    [
        ({"prob": 0.5}, "line 2: 'id' is missing"),
        ({"id": ["a"]}, "line 2: 'id' must be a text"),
        ({"id": "a", "prob": True}, "line 2: 'prob' must be a finite number from 0 to 1 or null, got true"),
        ({"id": "a", "log_truth_ratio": math.nan}, "line 2: 'log_truth_ratio' must be .* got nan"),
        ({"id": "a", "question": "\ud83d"}, r"line 2, column \d+: \\ud83d is half of a character"),
        ({"id": "first"}, "line 2: id 'first' stands twice"),
    ],
)
def test_a_wrong_sample_of_a_run_is_named_with_its_line(row, message, tmp_path):
    (tmp_path / "samples").mkdir()
    path = tmp_path / "samples/forget.jsonl"
    path.write_text(json.dumps({"id": "first", "prob": None}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError, match=f"forget.jsonl, {message}"):
        read_results(tmp_path)


@pytest.mark.parametrize("value", ["0.5", True, math.nan, 10**400, [1]])
def test_a_wrong_figure_of_a_run_is_named(value, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"forget/prob": value}))
    with pytest.raises(UserError, match="metrics.json: 'forget/prob' must be a finite number or null"):
        read_metrics(tmp_path / "metrics.json")
