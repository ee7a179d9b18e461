"""Evaluations of ours and of other toolkits that are nearly right: figures in their range, or one clear
line."""

import json
import math

import pytest
from fuzz import fuzz, json_files, jsonl_files, value_or_refusal
from hypothesis import given

from unlearnkit.core.files import fingerprint
from unlearnkit.core.reply_cache import ReplyCache
from unlearnkit.metrics.external_results import (
    OPEN_UNLEARNING,
    TOFU_SETS,
    match_rows,
    read_metrics,
    read_results,
)
from unlearnkit.metrics.tofu import summarize
from unlearnkit.model.report.comparison import number, read_figures
from unlearnkit.model.report.grid_table import row_values, run_figures

pytestmark = pytest.mark.slow

TOFU = {
    stem: {
        "avg_gt_loss": {"0": 0.1, "1": 4.0},
        "avg_paraphrased_loss": {"0": 1.5, "1": 2.0},
        "average_perturb_loss": {"0": [1.7, 1.9], "1": [2.5, 3.0]},
        "rougeL_recall": {"0": 1.0, "1": 0.5},
        "truth_ratio": {"0": 1.0, "1": 0.5},
    }
    for stem in TOFU_SETS.values()
}
OPEN = {
    key: {"agg_value": 0.5, "value_by_index": {"0": {field: 0.0}, "1": {field: 0.5}, "2": None}}
    for metrics in OPEN_UNLEARNING.values()
    for key, field in metrics.values()
}
SAMPLES = [
    {"id": f"r{n}", "question": "Q", "prob": 0.5, "rougeL": 1.0, "log_truth_ratio": -0.5, "generation": "A"}
    for n in range(2)
]
METRICS = {"forget/prob": 0.5, "forget_quality": None, "lm_eval/x/acc[none]": 0.25}


def check(path):
    """All that is made of an evaluation."""
    columns = value_or_refusal(lambda: read_results(path), path)
    if columns is None:
        return
    own = match_rows(columns, {name: [f"id{n}" for n in range(2)] for name in columns})
    for key, value in summarize(columns, own).items():
        assert value.value is None or (math.isfinite(value.value) and -1e-2 <= value.value <= 1 + 1e-2), key
    for figure in read_figures(path, path).values():
        number(figure)


@fuzz
@given(json_files(TOFU))
def test_tofus_logs(tmp_path, content):
    path = tmp_path / "eval_log_aggregated.json"
    path.write_bytes(content)
    check(path)


@fuzz
@given(json_files(OPEN))
def test_open_unlearnings_logs(tmp_path, content):
    path = tmp_path / "TOFU_EVAL.json"
    path.write_bytes(content)
    check(path)


@fuzz
@given(jsonl_files(SAMPLES))
def test_samples_of_a_run(tmp_path, content):
    (tmp_path / "samples").mkdir(exist_ok=True)
    for name in ("forget", "retain", "real", "world"):
        (tmp_path / "samples" / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in SAMPLES)
        )
    (tmp_path / "samples/forget.jsonl").write_bytes(content)
    check(tmp_path)
    value_or_refusal(lambda: row_values(tmp_path, "forget/prob"), tmp_path)


@fuzz
@given(json_files(METRICS), json_files({"train_seconds": 3.5, "peak_memory_mb": 300}))
def test_figures_of_a_run(tmp_path, metrics, environment):
    (tmp_path / "metrics.json").write_bytes(metrics)
    (tmp_path / "environment.json").write_bytes(environment)
    figures = value_or_refusal(lambda: read_metrics(tmp_path / "metrics.json"), "metrics.json") or {}
    for figure in (value_or_refusal(lambda: run_figures(tmp_path), tmp_path) or figures).values():
        number(figure)


KEPT = [{"key": key, "reply": "Yes.", "checksum": fingerprint(key, "Yes.")} for key in "ab"]


@fuzz
@given(jsonl_files(KEPT))
def test_caches_of_replies_never_stop_a_run(tmp_path, content):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(content)
    replies = ReplyCache(path)
    assert all(reply == "Yes." for reply in replies.known.values())
    replies.add("new", "It is.")
    assert ReplyCache(path).get("new") == "It is."
