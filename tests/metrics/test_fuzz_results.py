"""Evaluations of ours and of other toolkits that are nearly right: figures in their range, or one clear
line."""

import json
import math

import pytest
from fuzz import fuzz, json_files, jsonl_files, value_or_refusal
from hypothesis import given
from hypothesis import strategies as st
from made_up_logs import muse, open_unlearning, tofu

from unlearnkit.core.files import fingerprint
from unlearnkit.core.reply_cache import ReplyCache
from unlearnkit.metrics.external_results import match_rows, read_log, read_metrics, read_results
from unlearnkit.metrics.tofu import summarize
from unlearnkit.metrics.tofu_leaderboard import read_leaderboard, utility_faults
from unlearnkit.model.report.comparison import number, read_evaluation, reason_lines
from unlearnkit.model.report.grid_table import row_values, run_figures

pytestmark = pytest.mark.slow

TOFU, OPEN, MUSE = tofu(forget=3), open_unlearning(null_row=1), muse()
LEADERBOARD = (
    "Index,Method,Epoch,Submitted By,Model,LR,WD,Forget Quality,Model Utility,Prob. Retain,ROUGE Retain,"
    "Truth Ratio Retain,Prob. Real Authors,ROUGE Real Authors,Truth Ratio Real Authors,Prob. Real World,"
    "ROUGE Real World,Truth Ratio Real World,Prob. Forget,ROUGE Forget,Truth Ratio Forget\n"
    "0,Grad. Ascent,3,Baseline,Phi,2e-05,0.01,1e-5,0.5" + ",0.5" * 12 + "\n"
)
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
    for figure in read_evaluation(path, path).figures.values():
        number(figure)


def check_log(path):
    """All that is made of a log: finite figures, a reason for each that is missing, rows that can be
    written."""
    check(path)
    log = value_or_refusal(lambda: read_log(path), path)
    if log is None:
        return
    for figure in log.figures:
        assert figure.value is None or math.isfinite(figure.value), figure
        assert figure.value is not None or figure.reason, figure
    json.dumps(log.columns, allow_nan=False)
    evaluation = read_evaluation(path)
    assert reason_lines({"one": evaluation}, list(evaluation.figures)) or evaluation.figures


@fuzz
@given(json_files(TOFU))
def test_tofus_logs(tmp_path, content):
    path = tmp_path / "eval_log_aggregated.json"
    path.write_bytes(content)
    check_log(path)


@fuzz
@given(json_files(OPEN))
def test_open_unlearnings_logs(tmp_path, content):
    path = tmp_path / "TOFU_EVAL.json"
    path.write_bytes(content)
    check_log(path)


@fuzz
@given(json_files(MUSE))
def test_open_unlearnings_logs_of_documents(tmp_path, content):
    path = tmp_path / "MUSE_EVAL.json"
    path.write_bytes(content)
    check_log(path)


@fuzz
@given(
    st.integers(0, len(LEADERBOARD) - 1), st.text(max_size=6) | st.sampled_from(["nan", "-1", "\n", ",", '"'])
)
def test_leaderboards(tmp_path, place, junk):
    path = tmp_path / "phi-5p.csv"
    text = LEADERBOARD[:place] + junk + LEADERBOARD[place + 1 :]
    path.write_bytes(text.encode(errors="surrogatepass"))
    rows = value_or_refusal(lambda: read_leaderboard(path), path) or []
    utility_faults(rows)
    assert all(value is None or -0.01 <= value <= 1.01 for row in rows for value in row.figures.values())


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
