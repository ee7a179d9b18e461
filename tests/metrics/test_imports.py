"""Evaluations of other toolkits, in the shapes they write."""

import json
import math

import pytest

from core.files import UserError
from metrics.imports import match_rows, read_results
from metrics.tofu import summarize


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
