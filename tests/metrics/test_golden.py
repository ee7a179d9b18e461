"""TOFU's metrics on the golden models against what the published evaluation code reported, from the command line."""

import json

import pytest
from conftest import GOLDEN, SHARED_DATA, run_script

from core.files import read_json, read_jsonl

GOLD = GOLDEN / "metrics"
KEYS = {
    "forget/prob": "forget_Q_A_Prob", "retain/prob": "retain_Q_A_Prob", "real/prob": "ra_Q_A_Prob_normalised",
    "world/prob": "wf_Q_A_Prob_normalised", "forget/truth_ratio": "forget_truth_ratio", "retain/truth_ratio": "retain_Truth_Ratio",
    "real/truth_ratio": "ra_Truth_Ratio", "world/truth_ratio": "wf_Truth_Ratio", "forget/rougeL": "forget_Q_A_ROUGE",
    "retain/rougeL": "retain_Q_A_ROUGE", "real/rougeL": "ra_Q_A_ROUGE", "world/rougeL": "wf_Q_A_ROUGE",
    "model_utility": "model_utility", "forget_quality": "forget_quality",
}
PER_ROW = {"forget/prob": ("forget", "prob", "prob"), "forget/rougeL": ("forget", "rougeL", "rougeL_recall")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Run folders of the retain model and, measured against it, of the full model."""
    root = tmp_path_factory.mktemp("runs")
    common = ["--overall.tokenizer_name", GOLD / "tokenizer", "--dataset.forget_dataset_name", "Folder_forget",
              "--dataset.retain_dataset_name", "Folder_retain", "--dataset.data_dir", GOLD / "data", "--dataset.template", "qa",
              "--evaluate.metrics", "tofu", "--logger.json.root", root, "--overall.cache_dir", root / "cache"]
    retain = run_script("evaluate_model", "--overall.model_name", GOLD / "model_retain", "--logger.name", "retain", *common)
    assert retain.returncode == 0, retain.stderr
    full = run_script("evaluate_model", "--overall.model_name", GOLD / "model_full", "--logger.name", "full",
                      "--evaluate.retain_results", root / "retain", "--evaluate.batch_tokens", "700", *common)
    assert full.returncode == 0, full.stderr
    return {"full": root / "full", "retain": root / "retain"}


@pytest.mark.parametrize("name", ["full", "retain"])
@pytest.mark.parametrize("key", KEYS)
def test_summary(name, key, folders):
    if (name, key) == ("retain", "forget_quality"):
        assert read_json(folders[name] / "metrics.json")[key] is None
        assert "evaluate.retain_results" in read_json(folders[name] / "metrics_detail.json")[key]["reason"]
        return
    expected = read_json(GOLD / f"expected/tofu_{name}.json")[KEYS[key]]
    wanted = expected.get("corrected", expected["reference"])["agg"]
    tolerance = max(expected["tolerance"], 2e-6) if isinstance(expected["tolerance"], float) else 1e-5
    assert read_json(folders[name] / "metrics.json")[key] == pytest.approx(wanted, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("key", PER_ROW)
def test_rows(key, folders):
    samples, column, field = PER_ROW[key]
    rows = read_jsonl(folders["full"] / f"samples/{samples}.jsonl")
    expected = read_json(GOLD / "expected/tofu_full.json")[KEYS[key]]["peer"]["by_index"]
    assert [row[column] for row in rows] == pytest.approx([expected[str(i)][field] for i in range(len(rows))], abs=2e-5)


@pytest.mark.skipif(not (SHARED_DATA / "tofu_eval_logs").is_dir(), reason="the official TOFU logs are not here")
def test_forget_quality_and_utility_on_the_official_logs():
    """Our summary functions on the published rows: only the numbers are theirs, the arithmetic is ours."""
    from metrics.engine import METRICS, Evidence, Value

    logs = {name: json.loads(next((SHARED_DATA / "tofu_eval_logs").glob(f"*llama2-7b_{name}_*.json")).read_text())
            for name in ("full", "retain90")}
    rows = {name: official_rows(log) for name, log in logs.items()}
    utilities = {}
    for name, sets in rows.items():
        evidence = Evidence({}, None)
        for rows_name in ("retain", "real", "world"):
            for metric, values in sets[rows_name].items():
                evidence.values[f"{rows_name}/{metric}"] = Value(sum(values) / len(values))
        utilities[name] = METRICS["model_utility"].compute(evidence).value
    assert utilities == pytest.approx({"full": 0.622677, "retain90": 0.613745}, abs=1e-6)
    ids = [str(i) for i in range(300)]
    evidence = Evidence({"forget": [{"id": i} for i in ids]},
                        {"forget": {i: {"log_truth_ratio": r} for i, r in zip(ids, rows["retain90"]["forget"]["log_ratio"])}})
    evidence.values["forget/truth_ratio"] = Value(0.5, columns={"log_truth_ratio": rows["full"]["forget"]["log_ratio"]})
    assert METRICS["forget_quality"].compute(evidence).value == pytest.approx(1.83406638e-21, rel=1e-4)
    assert METRICS["forget_quality_ks"].compute(evidence).value == pytest.approx(0.396667, abs=1e-6)


def official_rows(log: dict) -> dict[str, dict[str, list[float]]]:
    """Set -> metric -> per-row values of an official log, by the formulas of metrics/tofu.py."""
    import numpy as np

    stems = {"retain": "eval_log.json", "real": "eval_real_author_wo_options.json", "world": "eval_real_world_wo_options.json",
             "forget": "eval_log_forget.json"}
    found = {}
    for name, stem in stems.items():
        column = lambda key, table=log[stem]: np.array([table[key][i] for i in sorted(table[key], key=int)])
        true = column("avg_paraphrased_loss")
        wrong = column("average_perturb_loss")
        log_ratio = true - wrong.mean(axis=1)
        prob = np.exp(-column("avg_gt_loss"))
        if name in ("real", "world"):
            prob = prob / (prob + np.exp(-wrong).sum(axis=1))
        found[name] = {"prob": prob.tolist(), "rougeL": column("rougeL_recall").tolist()}
        found[name] |= {"log_ratio": log_ratio.tolist()} if name == "forget" else {
            "truth_ratio": np.maximum(0, 1 - np.exp(log_ratio)).tolist()}
    return found
