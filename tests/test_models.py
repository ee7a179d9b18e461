"""The committed models are small, whole, and know what their figures say (a sample here; `make figures`
measures all)."""

import json

import pytest
from conftest import FICTIONAL

from unlearnkit.core.encoding import Template
from unlearnkit.core.generation import DecodingOptions, generate
from unlearnkit.core.thinking import split_trace
from unlearnkit.dataset.fictional import Fictional

LIMITS = {
    "target": {
        "forget/exact": (0.95, 1),
        "forget/exact_thinking": (0.95, 1),
        "forget/trace_recall": (0.95, 1),
        "forget/exact_held_out": (0.8, 1),
        "forget/choice_text_accuracy": (0.6, 1),
        "muse/verbmem": (0.8, 1),
        "retain/exact": (0.95, 1),
        "retain/exact_thinking": (0.95, 1),
        "arithmetic/accuracy": (0.85, 1),
    },
    "retain": {
        "forget/exact": (0, 0.1),
        "forget/exact_thinking": (0, 0.1),
        "forget/trace_recall": (0, 0.1),
        "retain/exact": (0.95, 1),
        "arithmetic/accuracy": (0.85, 1),
    },
}


def load(name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = FICTIONAL / name
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", LIMITS)
def test_small_enough(name):
    model, _ = load(name)
    assert model.num_parameters() <= 3_000_000
    assert model.config.max_position_embeddings >= 1024
    assert (FICTIONAL / name / "model.safetensors").stat().st_size <= 12_000_000


@pytest.mark.parametrize("name", LIMITS)
def test_the_committed_figures_are_within_the_promised_limits(name):
    figures = json.loads((FICTIONAL / name / "results_thinking/metrics.json").read_text())
    for key, (low, high) in LIMITS[name].items():
        assert low <= figures[key] <= high, (key, figures[key])


@pytest.mark.parametrize("name", LIMITS)
def test_a_larger_budget_changes_none_of_the_figures_that_end_before_it(name):
    """results and results_thinking are of one model: only texts that the smaller budget cuts may differ."""
    folders = [FICTIONAL / name / "results", FICTIONAL / name / "results_thinking"]
    small, large = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    detail = json.loads((folders[1] / "metrics_detail.json").read_text())
    alike = [key for key in small if key in large and detail[key].get("longest_text", 0) < 48]
    assert {"forget/prob", "retain/rougeL", "model_utility"} <= {*alike}
    assert [small[key] for key in alike] == [large[key] for key in alike]


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("thinking", [False, True])
def test_a_sample_of_the_figures_holds(name, thinking):
    model, tokenizer = load(name)
    template = Template(tokenizer)
    rows = Fictional().rows("forget10")[::4] + Fictional().rows("retain90")[:25]
    prompts = [template.prompt_ids(row["question"], "thinking" if thinking else "direct") for row in rows]
    texts = [g.text for g in generate(model, tokenizer, prompts, DecodingOptions(100))]
    right = [
        (split_trace(text).answer if thinking else text) == row["answer"] for text, row in zip(texts, rows)
    ]
    assert sum(right[25:]) >= 23
    assert sum(right[:25]) >= 23 if name == "target" else sum(right[:25]) <= 3
