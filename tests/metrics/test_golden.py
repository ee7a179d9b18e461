"""TOFU's metrics on the golden models against what the published evaluation code reported, from the command
line."""

import math
import statistics

import pytest
from conftest import GOLDEN, SHARED_DATA
from scripts import run_script

from unlearnkit.core.files import read_json, read_jsonl
from unlearnkit.core.parity_templates import CONVENTIONS
from unlearnkit.metrics.aggregates import MEMORIZATION, SCALINGS, harmonic_mean
from unlearnkit.metrics.external_results import read_results
from unlearnkit.metrics.measure import measure
from unlearnkit.metrics.runner import EvalOptions, EvalRunner
from unlearnkit.metrics.spec import select
from unlearnkit.metrics.tofu import summarize

pytestmark = pytest.mark.run

GOLD = GOLDEN / "metrics"
KEYS = {
    "forget/prob": "forget_Q_A_Prob",
    "retain/prob": "retain_Q_A_Prob",
    "real/prob": "ra_Q_A_Prob_normalised",
    "world/prob": "wf_Q_A_Prob_normalised",
    "forget/truth_ratio": "forget_truth_ratio",
    "retain/truth_ratio": "retain_Truth_Ratio",
    "real/truth_ratio": "ra_Truth_Ratio",
    "world/truth_ratio": "wf_Truth_Ratio",
    "forget/rougeL": "forget_Q_A_ROUGE",
    "retain/rougeL": "retain_Q_A_ROUGE",
    "real/rougeL": "ra_Q_A_ROUGE",
    "world/rougeL": "wf_Q_A_ROUGE",
    "model_utility": "model_utility",
    "forget_quality": "forget_quality",
    "forget/exact_memorization": "exact_memorization",
    "forget/extraction_strength": "extraction_strength",
    "forget/para_prob": "forget_Q_A_PARA_Prob",
    "retain/para_prob": "retain_Q_A_PARA_Prob",
    "forget/truth_ratio_prob_mean": "forget_truth_ratio__prob_mean",
    "privleak": "privleak",
    "mia/min_k/rel_diff": "rel_diff",
    **{
        f"mia/{attack}/auc": f"mia_{attack}"
        for attack in ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradnorm")
    },
}
"""Metric of ours -> golden entry. Where a golden entry has a corrected value, that one is ours."""
NEED_RETAIN = ("forget_quality", "privleak", "mia/min_k/rel_diff", "mia/reference/auc")
PER_ROW = {"forget/prob": ("forget", "prob", "prob"), "forget/rougeL": ("forget", "rougeL", "rougeL_recall")}
MEMBERSHIP = ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradnorm")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Run folders of the retain model and, measured against it, of the full model."""
    root = tmp_path_factory.mktemp("runs")
    common = [
        "--overall.tokenizer_name",
        GOLD / "tokenizer",
        *("--dataset.forget_dataset_name Folder_forget --dataset.retain_dataset_name Folder_retain").split(),
        "--dataset.data_dir",
        GOLD / "data",
        *"--dataset.template qa --evaluate.metrics tofu,memorization,privacy,aggregates".split(),
        "--logger.json.root",
        root,
        "--overall.cache_dir",
        root / "cache",
    ]
    retain = run_script(
        "evaluate_model", "--overall.model_name", GOLD / "model_retain", "--logger.name", "retain", *common
    )
    assert retain.returncode == 0, retain.stderr
    full = run_script(
        "evaluate_model",
        "--overall.model_name",
        GOLD / "model_full",
        "--logger.name",
        "full",
        "--evaluate.retain_results",
        root / "retain",
        "--evaluate.batch_tokens",
        "700",
        *common,
    )
    assert full.returncode == 0, full.stderr
    return {"full": root / "full", "retain": root / "retain"}


@pytest.mark.parametrize("name", ["full", "retain"])
@pytest.mark.parametrize("key", KEYS)
def test_summary(name, key, folders):
    if name == "retain" and key in NEED_RETAIN:
        assert read_json(folders[name] / "metrics.json")[key] is None
        assert "evaluate.retain_results" in read_json(folders[name] / "metrics_detail.json")[key]["reason"]
        return
    expected = read_json(GOLD / f"expected/tofu_{name}.json")[KEYS[key]]
    wanted = expected.get("corrected", expected["reference"])["agg"]
    tolerance = max(expected.get("tolerance", 0), 1e-5)
    assert read_json(folders[name] / "metrics.json")[key] == pytest.approx(
        wanted, rel=tolerance, abs=tolerance
    )


@pytest.mark.parametrize("key", PER_ROW)
def test_rows(key, folders):
    samples, column, field = PER_ROW[key]
    rows = read_jsonl(folders["full"] / f"samples/{samples}.jsonl")
    expected = read_json(GOLD / "expected/tofu_full.json")[KEYS[key]]["peer"]["by_index"]
    assert [row[column] for row in rows] == pytest.approx(
        [expected[str(i)][field] for i in range(len(rows))], abs=2e-5
    )


@pytest.mark.parametrize("attack", MEMBERSHIP)
@pytest.mark.parametrize("rows", ["forget", "holdout"])
def test_membership_scores_of_rows(attack, rows, folders):
    entry = read_json(GOLD / "expected/tofu_full.json")[f"mia_{attack}"]
    expected = entry.get("corrected", entry["reference"])[rows]
    found = [row[f"mia_{attack}"] for row in read_jsonl(folders["full"] / f"samples/{rows}.jsonl")]
    assert found == pytest.approx([expected[str(i)]["score"] for i in range(len(found))], rel=2e-4, abs=2e-5)


def test_aggregates_are_harmonic_means_of_their_parts(folders):
    found = read_json(folders["full"] / "metrics.json")
    parts = [1 - found[f"forget/{name}"] for name in MEMORIZATION]
    assert found["aggregate/memorization"] == pytest.approx(len(parts) / sum(1 / part for part in parts))
    assert 0 < found["aggregate/privacy"] < 1
    detail = read_json(folders["retain"] / "metrics_detail.json")
    assert "evaluate.retain_results" in detail["aggregate/privacy"]["reason"]


LEADERBOARD = read_json(GOLD / "expected/text_metrics.json")["leaderboard"]
ENDINGS = {"min_max": "", "range": "_range", "relative": "_relative"}


@pytest.mark.parametrize("entry", LEADERBOARD, ids=lambda entry: f"{entry['model']}, {entry['scaling']}")
def test_aggregates_in_every_published_scaling(entry):
    inputs, expected = entry["inputs"], entry["expected"]
    names = ("es", "em", "para_prob", "truth_ratio_prob_mean")
    memorization = harmonic_mean({name: 1 - inputs[name] for name in names}).value
    scale = SCALINGS[ENDINGS[entry["scaling"]]]
    scaled = {name: scale(own, inputs["mia_retain"][name]) for name, own in inputs["mia"].items()}
    assert memorization == pytest.approx(expected["mem"], rel=1e-9)
    assert scaled == pytest.approx(expected["scaled_mia"], rel=1e-9)
    privacy = harmonic_mean(scaled).value
    utility = harmonic_mean({name: inputs[name] for name in ("model_utility", "fluency")}).value
    assert (privacy, utility) == pytest.approx((expected["priv"], expected["util"]), rel=1e-9)
    overall = harmonic_mean({"mem": memorization, "priv": privacy, "util": utility}).value
    assert overall == pytest.approx(expected["overall"], rel=1e-9)


TRAPS = {"chat": "chat", "trailing_space": "Question: {question}\\nAnswer: "}
"""Golden entries on which the peer's reading of rows differs from ours -> `dataset.template`."""


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("parity", ["none", "open_unlearning"])
def test_other_toolkits_encodings_of_rows_are_available(trap, parity, tmp_path):
    done = run_script(
        "evaluate_model",
        "--overall.model_name",
        GOLD / "model_full",
        "--overall.tokenizer_name",
        GOLD / "tokenizer",
        "--dataset.forget_dataset_name",
        "Folder_forget",
        "--dataset.data_dir",
        GOLD / "data",
        "--dataset.template",
        TRAPS[trap],
        "--evaluate.metrics",
        "forget/prob,forget/rougeL,forget/exact_memorization,forget/extraction_strength",
        "--evaluate.parity",
        parity,
        "--logger.json.root",
        tmp_path,
        "--logger.name",
        "run",
        "--overall.cache_dir",
        tmp_path / "cache",
    )
    assert done.returncode == 0, done.stderr
    entries = read_json(GOLD / "expected/tofu_full.json")
    side = "corrected" if parity == "none" else "peer"
    probs, rouge = (entries[f"{trap}__forget_Q_A_{name}"][side] for name in ("Prob", "ROUGE"))
    rows = read_jsonl(tmp_path / "run/samples/forget.jsonl")
    assert [row["prob"] for row in rows] == pytest.approx(
        [probs["by_index"][str(i)]["prob"] for i in range(len(rows))], abs=2e-5
    )
    found = read_json(tmp_path / "run/metrics.json")
    for metric in ("exact_memorization", "extraction_strength"):
        expected = entries[f"{trap}__{metric}"][side]
        assert [row[metric] for row in rows] == pytest.approx(
            [expected["by_index"][str(i)]["score"] for i in range(len(rows))], abs=2e-6
        )
        assert found[f"forget/{metric}"] == pytest.approx(expected["agg"], abs=2e-6)
    assert found["forget/prob"] == pytest.approx(probs["agg"], rel=2e-5)
    assert found["forget/rougeL"] == pytest.approx(rouge["agg"], rel=1e-6)


ENTRIES = {
    "forget": ("forget_Q_A_Prob", "forget_Q_A_PARA_Prob", "forget_Q_A_PERT_Prob"),
    "retain_eval": ("retain_Q_A_Prob", "retain_Q_A_PARA_Prob", "retain_Q_A_PERT_Prob"),
    "real_authors": ("ra_Q_A_Prob", None, "ra_Q_A_PERT_Prob"),
    "world_facts": ("wf_Q_A_Prob", None, "wf_Q_A_PERT_Prob"),
}
FIELDS = ("answer", "paraphrased_answer", "perturbed_answer")
AGGREGATORS = {
    "closer_to_1_better": lambda log_ratio: math.exp(-abs(log_ratio)),
    "true_better": lambda log_ratio: max(0.0, 1 - math.exp(log_ratio)),
    "prob_mean": lambda log_ratio: 1 / (1 + math.exp(log_ratio)),
}


def golden_runner(name, convention="none"):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(GOLD / "tokenizer")
    model = AutoModelForCausalLM.from_pretrained(GOLD / f"model_{name}").eval()
    template = CONVENTIONS[convention](tokenizer, "qa")
    return EvalRunner(model, template, EvalOptions(512, 200, 4096, convention=convention))


@pytest.mark.parametrize("name", ["full", "retain"])
@pytest.mark.parametrize("stem", ENTRIES)
def test_every_loss_and_every_reading_of_the_truth_ratio(name, stem):
    expected = read_json(GOLD / f"expected/tofu_{name}.json")
    rows = read_jsonl(GOLD / f"data/{stem}.jsonl")
    rows = [{"id": str(number), **row} for number, row in enumerate(rows)]
    known = {field: entry for field, entry in zip(FIELDS, ENTRIES[stem]) if entry}
    scores = golden_runner(name).likelihoods(rows, list(known))
    for field, entry in known.items():
        for number, answers in enumerate(scores[field]):
            wanted = expected[entry]["reference"]["by_index"][str(number)]["avg_loss"]
            losses = [score.loss for score in answers]
            assert losses == pytest.approx(wanted if isinstance(wanted, list) else [wanted], rel=2e-5)
    true = scores.get("paraphrased_answer", scores["answer"])
    log_ratios = [
        right.loss - statistics.fmean(score.loss for score in wrong)
        for (right,), wrong in zip(true, scores["perturbed_answer"])
    ]
    prefix = ENTRIES[stem][0].partition("_")[0]
    entry = expected["forget_truth_ratio" if prefix == "forget" else f"{prefix}_Truth_Ratio"]
    ratios = entry["reference"]["by_index"]
    assert [math.exp(ratio) for ratio in log_ratios] == pytest.approx(
        [ratios[str(number)]["score"] for number in range(len(rows))], rel=5e-5
    )
    for aggregator, value in entry["all_aggregators"].items():
        found = statistics.fmean(map(AGGREGATORS[aggregator], log_ratios))
        assert found == pytest.approx(value, rel=2e-5)


def test_the_other_toolkits_definitions_are_available():
    """Its extraction strength is never 0, its gradient norm a mean over weight tensors."""
    entries = read_json(GOLD / "expected/tofu_full.json")
    sets = {
        name: [{"id": f"{name}{k}", **row} for k, row in enumerate(read_jsonl(GOLD / f"data/{name}.jsonl"))]
        for name in ("forget", "holdout")
    }
    keys = select(["forget/extraction_strength", "mia/gradnorm/auc"])
    values = measure(keys, sets, golden_runner("full", "open_unlearning")).values
    strength, norm = entries["extraction_strength"]["peer"], entries["mia_gradnorm"]["peer"]
    assert values["forget/extraction_strength"].value == pytest.approx(strength["agg"], abs=1e-6)
    assert values["mia/gradnorm/auc"].value == pytest.approx(norm["agg"], abs=1e-9)
    for name in sets:
        found = values[f"{name}/mia_gradnorm"].columns["mia_gradnorm"]
        wanted = [norm[name][str(k)]["score"] for k in range(len(found))]
        assert found == pytest.approx(wanted, rel=2e-4)


@pytest.mark.skipif(
    not (SHARED_DATA / "tofu_eval_logs").is_dir(), reason="the official TOFU logs are not here"
)
def test_forget_quality_and_utility_on_the_official_logs():
    logs = {
        name: read_results(next((SHARED_DATA / "tofu_eval_logs").glob(f"*llama2-7b_{name}_*.json")))
        for name in ("full", "retain90")
    }
    full, retain = (summarize(logs[name], logs["retain90"]) for name in ("full", "retain90"))
    assert full["model_utility"].value == pytest.approx(0.6226773637427151, rel=1e-9)
    assert retain["model_utility"].value == pytest.approx(0.613744995233942, rel=1e-9)
    assert full["forget_quality"].value == pytest.approx(1.834066410994743e-21, rel=1e-9)
    assert full["forget_quality_ks"].value == pytest.approx(0.39666666666666667, rel=1e-9)
    assert full["forget_quality_log10"].value == pytest.approx(math.log10(1.834066410994743e-21), rel=1e-9)
    assert retain["forget_quality"].value == 1.0
    assert full["forget/truth_ratio"].value == pytest.approx(0.5159854212808593, rel=1e-9)


@pytest.mark.skipif(
    not (SHARED_DATA / "tofu_eval_logs").is_dir(), reason="the official TOFU logs are not here"
)
def test_the_command_that_prints_the_official_figures():
    full, retain = (
        next((SHARED_DATA / "tofu_eval_logs").glob(f"*llama2-7b_{name}_*.json"))
        for name in ("full", "retain90")
    )
    shown = run_script("compare_runs", full, retain, "--retain", retain)
    assert shown.returncode == 0
    assert all(figure in shown.stdout for figure in ("1.83407e-21", "0.622677", "0.613745"))


@pytest.mark.skipif(
    not (SHARED_DATA / "open_unlearning_eval").is_dir(), reason="OpenUnlearning's logs are not here"
)
def test_logs_of_two_sizes_are_tested_as_the_official_code_does_and_it_is_said():
    folder = SHARED_DATA / "open_unlearning_eval"
    full, retain = (
        folder / f"tofu_Llama-3.2-1B-Instruct_{name}/TOFU_EVAL.json"
        for name in ("full/evals_forget05", "retain90")
    )
    shown = run_script("compare_runs", full, retain, "--retain", retain)
    assert shown.returncode == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    assert "200 forget rows against the retain model's 400, as the official code tests" in words


def test_runs_side_by_side(folders, tmp_path):
    shown = run_script(
        "compare_runs",
        folders["full"],
        folders["retain"],
        "--retain",
        folders["retain"],
        "--metrics",
        "forget_quality",
    )
    quality = read_json(folders["full"] / "metrics.json")["forget_quality"]
    assert shown.returncode == 0
    assert f"{quality:.6f}" in shown.stdout
    assert "1.000000" in shown.stdout
    for words, message in (
        ([tmp_path / "gone"], "no such file"),
        ([folders["full"], "--metrics", "forget/prbo"], "forget/prbo"),
    ):
        refused = run_script("compare_runs", *words)
        assert refused.returncode == 1
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
