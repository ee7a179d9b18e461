"""Figures of LUME, KnowUnDo and RWKU beside values made by hand or by the libraries."""

import math
from collections import Counter

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import hmean
from sklearn.metrics import roc_auc_score

from unlearnkit.core.generation import Generation
from unlearnkit.loggers.logger import Results
from unlearnkit.metrics.inputs import MetricInputs
from unlearnkit.metrics.lume import PARTS
from unlearnkit.metrics.privacy import auc, min_k_plus_plus
from unlearnkit.metrics.rwku import ANSWER_TOKENS, fluency, ngram_entropy
from unlearnkit.metrics.spec import METRICS, AnswerScore, Generations, OfSamples, Value
from unlearnkit.model.benchmarks.benchmark_runner import TaskOutcome, merge_benchmarks

TRUTH = "Old Orlo kept running mills by the river."


def written(rows, field, truths, texts, **options):
    """Inputs with a text generated for each row."""
    table = [{"id": f"{number}", field: "?", "answer": truth} for number, truth in enumerate(truths)]
    inputs = MetricInputs({rows: table})
    inputs.texts[Generations(rows, field, **options)] = [[Generation(text, 1, True)] for text in texts]
    return inputs


def test_regurgitation_is_the_stemmed_rouge_recall_of_the_library():
    texts = [TRUTH, "Orlo keeps a mill, running by a river", ""]
    inputs = written("forget_task1_sc", "prompt", [TRUTH] * 3, texts)
    found = METRICS["lume/forget_task1_regurgitation"].compute(inputs).values
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    assert found == [scorer.score(TRUTH, text)["rougeL"].recall for text in texts]
    assert found[0] == 1.0 and 0 < found[1] < 1 and found[2] == 0.0


def test_knowledge_is_an_exact_match_without_case_and_outer_space():
    texts = [" madera\n", "Madera", "Madera.", "in Madera", ""]
    inputs = written("retain_task2_qa", "question", ["Madera "] * 5, texts)
    assert METRICS["lume/retain_task2_knowledge"].compute(inputs).values == [1.0, 1.0, 0.0, 0.0, 0.0]


def aggregate(figures):
    return METRICS["lume/task_aggregate"].compute(
        MetricInputs({}, values={key: Value(figures[key]) for key in PARTS})
    )


def test_the_task_aggregate_is_the_harmonic_mean_of_twelve_with_forget_turned_round():
    figures = {key: 0.1 + 0.05 * number for number, key in enumerate(PARTS)}
    parts = [1 - value if "/forget_" in key else value for key, value in figures.items()]
    assert len(parts) == 12
    assert aggregate(figures).value == pytest.approx(hmean(parts), abs=1e-12)
    perfect = {key: 0.0 if "/forget_" in key else 1.0 for key in PARTS}
    assert aggregate(perfect).value == 1.0
    assert aggregate(perfect | {PARTS[0]: 1.0}).value == 0.0, "one kind of forget row known whole"


def test_a_missing_part_leaves_the_aggregate_out_with_its_reason():
    values = {key: Value(0.5) for key in PARTS} | {PARTS[3]: Value(None, "this data set has none")}
    found = METRICS["lume/task_aggregate"].compute(MetricInputs({}, values=values))
    assert found.value is None
    assert found.reason == f"needs {PARTS[3]} (this data set has none)"


def test_the_aggregate_is_resampled_with_its_parts():
    parts = {key: Value(0.5, resamples=np.array([0.2, 0.5, 0.8])) for key in PARTS}
    found = METRICS["lume/task_aggregate"].compute(MetricInputs({}, values=parts))
    expected = [hmean([x] * 6 + [1 - x] * 6) for x in (0.2, 0.5, 0.8)]
    assert found.resamples == pytest.approx(expected)
    assert found.interval is not None


def mia_score(area):
    values = {"mia_texts/loss/auc": Value(area, "no forget_texts rows")}
    return METRICS["lume/mia_score"].compute(MetricInputs({}, values=values))


def test_the_membership_score_is_1_at_chance_and_0_on_both_sides():
    assert [mia_score(area).value for area in (0.5, 0.0, 1.0, 0.25, 0.75)] == [1.0, 0.0, 0.0, 0.5, 0.5]
    losses = np.array([0.5, 1.0, 2.0, 3.0]), np.array([1.0, 2.5, 4.0])
    members = [1] * 4 + [0] * 3
    assert auc(*losses) == pytest.approx(roc_auc_score(members, -np.concatenate(losses))), "as LUME's code"


def test_without_membership_texts_the_score_says_which_files_it_needs():
    found = mia_score(None)
    assert found.value is None
    assert "member.jsonl and nonmember.jsonl" in found.reason and "no forget_texts rows" in found.reason


def results(aggregate=0.6, membership=0.9):
    metrics = {"lume/task_aggregate": aggregate, "lume/mia_score": membership, "lume/final": None}
    reasons = {key: {"reason": "no texts" if value is None else ""} for key, value in metrics.items()}
    return Results(metrics, reasons)


def benchmark(accuracy, task="mmlu"):
    return [TaskOutcome(task, "ok", "", 1.0, {f"{task}/acc[none]": {"value": accuracy, "n": 4}})]


INITIAL = {"lume/final": None, "lm_eval/mmlu/acc[none]": 0.4}


def test_the_final_score_is_the_mean_with_mmlu_measured_after_the_metrics():
    found = merge_benchmarks(results(), benchmark(0.3), INITIAL)
    assert found.metrics["lume/final"] == pytest.approx((0.6 + 0.9 + 0.3) / 3), "valid at .75 of .4 exactly"
    assert found.detail["lume/final"]["mmlu_key"] == "lm_eval/mmlu/acc[none]"
    assert found.metrics["lm_eval/mmlu/acc[none]"] == 0.3
    own = merge_benchmarks(results(), benchmark(0.1))
    assert own.metrics["lume/final"] == pytest.approx(1.6 / 3), "the initial model is valid itself"


@pytest.mark.parametrize(
    "parts, accuracy, initial, reason",
    [
        ({}, 0.29, INITIAL, "not valid: MMLU 0.290 is below 0.75 of the initial model's 0.400"),
        ({}, 0.3, {}, "needs MMLU of the initial model: --evaluate.before true"),
        ({"membership": None}, 0.3, INITIAL, "no texts"),
    ],
)
def test_a_final_score_that_is_not_valid_or_lacks_a_part_is_null_with_its_reason(
    parts, accuracy, initial, reason
):
    found = merge_benchmarks(results(**parts), benchmark(accuracy), initial)
    assert found.metrics["lume/final"] is None
    assert found.detail["lume/final"]["reason"] == reason
    assert ("score" in found.detail["lume/final"]) == reason.startswith("not valid")


def test_a_subject_of_mmlu_is_not_mmlu():
    found = merge_benchmarks(results(), benchmark(0.3, "mmlu_astronomy"), INITIAL)
    assert found.detail["lume/final"]["reason"].startswith("needs MMLU, measured in the same run")
    assert merge_benchmarks(results(), benchmark(0.3, "mmlu@5"), INITIAL).metrics["lume/final"] is not None


def score(*hits, logp=-1.0):
    return AnswerScore(np.full(len(hits) + 1, logp), np.array([*hits, True]), 1)


def test_success_is_accuracy_turned_round_for_what_is_unlearned():
    inputs = MetricInputs({"forget": [{}] * 3, "retain": [{}]})
    inputs.scores["forget", "answer", ""] = [[score(True, False)], [score(True, True)], [score()]]
    inputs.scores["retain", "answer", ""] = [[score(True, False, False, False)]]
    assert METRICS["knowundo/unlearn_success"].compute(inputs) == [0.5, 0.0, None]
    assert METRICS["knowundo/retention_success"].compute(inputs) == [0.25]


def test_perplexity_is_the_exponential_of_the_mean_loss_of_the_rows():
    inputs = MetricInputs({"retain": [{}] * 3})
    scores = [[score(True, logp=-1.0)], [score(True, True, True, logp=-3.0)], [score()]]
    inputs.scores["retain", "answer", ""] = scores
    found = METRICS["knowundo/retention_perplexity"].compute(inputs)
    assert isinstance(found, OfSamples)
    assert (found.figure(*found.samples), found.unscored) == (pytest.approx(math.exp(2)), 1)
    assert found.figure(np.zeros(3)) == 1.0


def test_a_probe_of_rwku_is_scored_by_the_unstemmed_recall():
    options = {"most": ANSWER_TOKENS, "stops": ("\n",)}
    texts = ["a mill", "mills", ""]
    inputs = written("forget_level2", "question", ["the mill"] * 3, texts, **options)
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    expected = [scorer.score("the mill", text)["rougeL"].recall for text in texts]
    assert METRICS["rwku/forget_level2"].compute(inputs).values == expected == [0.5, 0.0, 0.0]


def test_fluency_is_the_mean_of_the_weighted_entropies():
    words = "the mill by the mill by the old river"
    counts = [Counter(zip(*(words.split()[k:] for k in range(n)))).values() for n in (2, 3)]
    two, three = (-sum(c / sum(cs) * math.log2(c / sum(cs)) for c in cs) for cs in counts)
    assert fluency(words) == pytest.approx((2 / 3 * two + 4 / 3 * three) / 2)
    assert [fluency(text) for text in ("", "mill", "mill mill mill mill")] == [0.0, 0.0, 0.0]
    different = [f"word{number}" for number in range(17)]
    assert ngram_entropy(different, 2) == pytest.approx(4.0), "16 pairs, each once"
    assert fluency("A mill. A river") == fluency("A mill . A river"), "marks are words"


def test_min_k_plus_plus_reads_the_lowest_fifth():
    logp = -np.arange(1.0, 11.0)
    row = AnswerScore(logp, np.ones(10, bool), 0, np.zeros(10), np.ones(10))
    assert min_k_plus_plus(row, 0.2) == pytest.approx(9.5)
    assert min_k_plus_plus(row) == pytest.approx(8.5)
    inputs = MetricInputs({"forget_members": [{"text": "x"}]})
    inputs.scores["forget_members", "text", ""] = [[row]]
    assert METRICS["rwku/forget_mia_min_k_plus_plus"].compute(inputs) == [pytest.approx(9.5)]
    assert METRICS["rwku/forget_mia_loss"].compute(inputs) == [pytest.approx(5.5)]
