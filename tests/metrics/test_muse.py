"""MUSE's figures, against what its own code and OpenUnlearning's report on the golden models."""

import shutil

import pytest
from conftest import GOLDEN
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearnkit.core.encoding import Template
from unlearnkit.core.files import read_json
from unlearnkit.core.generation import Generation
from unlearnkit.core.parity_templates import CONVENTIONS
from unlearnkit.dataset import ForgetSet, load_evaluation
from unlearnkit.metrics.inputs import MetricInputs
from unlearnkit.metrics.measure import MeasureOptions, measure
from unlearnkit.metrics.muse import ANSWERED, CONTINUED, STOPS
from unlearnkit.metrics.runner import EvalOptions, EvalRunner
from unlearnkit.metrics.spec import METRICS, Generations, select

GOLD = GOLDEN / "metrics"
EXPECTED = read_json(GOLD / "expected/muse.json")
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
KEYS = select(["muse", *(f"mia_texts/{attack}/auc" for attack in ATTACKS)])
OPEN_UNLEARNING = "open_unlearning"


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("muse")
    for path in (GOLD / "data").glob("muse_*.jsonl"):
        shutil.copy(path, folder / path.name.removeprefix("muse_"))
    shutil.copy(folder / "privleak_forget.jsonl", folder / "raw_forget.jsonl")
    return load_evaluation(ForgetSet("MuseNews_forget", folder))


@pytest.fixture(scope="module")
def measured(sets):
    """(model, convention) -> values; the full model beside the retain model."""
    tokenizer = AutoTokenizer.from_pretrained(GOLD / "tokenizer")
    found, columns = {}, {}
    for name in ("retain", "full"):
        model = AutoModelForCausalLM.from_pretrained(GOLD / f"model_{name}").eval()
        for convention, template in CONVENTIONS.items():
            options = EvalOptions(512, 200, 4096, convention=convention)
            runner = EvalRunner(model, template(tokenizer, "qa"), options)
            measuring = MeasureOptions(bootstrap=50, retain_columns=columns.get(convention))
            values = measure(KEYS, sets, runner, measuring).values
            found[name, convention] = values
            columns.setdefault(
                convention,
                {
                    rows: {
                        row["id"]: {"mia_min_k": score}
                        for row, score in zip(
                            sets[rows], values[f"{rows}/mia_min_k"].columns["mia_min_k"], strict=True
                        )
                    }
                    for rows in ("forget_texts", "holdout_texts")
                },
            )
    return found


def golden(model: str, convention: str) -> dict[str, float]:
    entries = EXPECTED[model]
    other = entries["open_unlearning"]
    if convention == OPEN_UNLEARNING:
        return {
            "muse/verbmem": other["forget_verbmem_ROUGE"]["peer"]["agg"],
            **{
                f"muse/knowmem_{side}": other[f"{side}_knowmem_ROUGE"]["peer"]["agg"]
                for side in ("forget", "retain")
            },
            **{
                f"muse/{name}": other[name]["peer"]["agg"]
                for name in ("exact_memorization", "extraction_strength")
            },
            **{f"mia_texts/{attack}/auc": other[f"mia_{attack}"]["peer"]["agg"] for attack in ATTACKS},
        }
    return {
        "muse/verbmem": entries["verbmem_f_max_new_128"]["peer"]["agg"],
        **{
            f"muse/knowmem_{side}": entries[f"knowmem_{side}"]["peer"]["agg"] for side in ("forget", "retain")
        },
        **{
            f"muse/{name}": other[name]["corrected"]["agg"]
            for name in ("exact_memorization", "extraction_strength")
        },
        "mia_texts/min_k/auc": 1 - entries["privleak_scores"]["reference"]["auc"]["forget_holdout_Min-40%"],
    }


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("model", ["retain", "full"])
def test_both_published_readings_are_met(measured, model, convention):
    values = measured[model, convention]
    expected = golden(model, convention)
    assert {key: values[key].value for key in expected} == pytest.approx(expected, abs=2e-6)
    assert all(values[key].interval for key in expected)


@pytest.mark.parametrize("model", ["retain", "full"])
def test_scores_of_single_documents_are_those_of_muse_and_open_unlearning(measured, model):
    for rows, side in (("forget_texts", "forget"), ("holdout_texts", "holdout")):
        scores = EXPECTED[model]["privleak_scores"]["reference"]["by_index"][side]
        own = measured[model, "none"][f"{rows}/mia_min_k"].columns["mia_min_k"]
        assert own == pytest.approx([scores[str(n)]["Min-40%"] for n in range(len(own))], abs=5e-6)
        for attack in ATTACKS:
            theirs = EXPECTED[model]["open_unlearning"][f"mia_{attack}"]["peer"][side]
            own = measured[model, OPEN_UNLEARNING][f"{rows}/mia_{attack}"].columns[f"mia_{attack}"]
            assert own == pytest.approx([theirs[str(n)]["score"] for n in range(len(own))], abs=2e-5)


def test_privacy_leakage_is_that_of_muse_and_null_without_a_retain_model(measured):
    value = measured["full", "none"]["muse/privleak"]
    assert value.value == pytest.approx(EXPECTED["privleak"]["value"], abs=1e-6)
    assert value.interval[0] <= value.value <= value.interval[1]
    alone = measured["retain", "none"]["muse/privleak"]
    assert alone.value is None
    assert "evaluate.retain_results" in alone.reason


def test_the_intervals_of_the_full_and_the_retain_model_lie_apart(measured):
    """Not those of extraction strength, whose 12 documents are too few, nor of retained knowledge."""
    for key in ("muse/verbmem", "mia_texts/min_k/auc", "muse/exact_memorization"):
        full, retain = measured["full", "none"][key], measured["retain", "none"][key]
        assert full.interval[0] > retain.interval[1], key


def test_a_cut_continuation_is_compared_with_a_cut_reference(sets):
    """MUSE counts BOS in the cut of the reference alone; the corrected golden value does not."""
    tokenizer = AutoTokenizer.from_pretrained(GOLD / "tokenizer")
    for name in ("retain", "full"):
        model = AutoModelForCausalLM.from_pretrained(GOLD / f"model_{name}").eval()
        runner = EvalRunner(model, Template(tokenizer, "qa"), EvalOptions(512, 24, 4096))
        value = measure(["muse/verbmem"], sets, runner, MeasureOptions(bootstrap=0)).values["muse/verbmem"]
        corrected = EXPECTED[name]["verbmem_f_max_new_24"]["corrected"]["agg"]
        assert value.value == pytest.approx(corrected, abs=1e-9)


def test_gold_and_continuation_are_cut_alike(tiny_model, tokenizer):
    """A continuation that is right for 128 tokens is right, whatever either says after them."""
    text = " ".join(f"word{number}" for number in range(400))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    beginning, other = tokenizer.decode(ids[:CONTINUED]), tokenizer.decode(ids[CONTINUED:])
    assert len(ids) > 3 * CONTINUED
    runner = EvalRunner(tiny_model, Template(tokenizer), EvalOptions(256, 200, 4096))
    for generated, gold in (
        (beginning, text),
        (beginning + " none of it", text),
        (text, beginning + other[::-1]),
    ):
        inputs = MetricInputs(
            {"forget_documents": [{"id": "d", "prompt": "", "gt": gold}]}, None, cut=runner.cut
        )
        written = Generation(generated, 1, True)
        inputs.texts[Generations("forget_documents", "prompt", most=CONTINUED)] = [[written]]
        assert METRICS["muse/verbmem"].compute(inputs).values == [1.0]


def test_a_smaller_budget_cuts_the_gold_too(tiny_model, tokenizer):
    runner = EvalRunner(tiny_model, Template(tokenizer), EvalOptions(256, 5, 4096))
    assert len(tokenizer(runner.cut("one two three four five six seven", CONTINUED))["input_ids"]) <= 5


def test_an_answer_has_at_most_32_tokens_and_ends_where_the_model_asks_on(tiny_model, tokenizer):
    runner = EvalRunner(tiny_model, Template(tokenizer), EvalOptions(256, 200, 4096))
    rows = [{"id": "q", "prompt": "Question: who?\nAnswer: ", "answer": "me"}]
    need = Generations("forget_knowledge", "prompt", most=ANSWERED, stops=STOPS)
    ((written,),) = runner.generations(rows, need)
    assert written.n_tokens <= ANSWERED
    stop = written.text.strip()[4:6]
    stopped = Generations("forget_knowledge", "prompt", most=ANSWERED, stops=(stop,))
    ((cut,),) = runner.generations(rows, stopped)
    assert cut.text == written.text.partition(stop)[0]
    assert cut.ended
