"""Verbatim memorisation as MUSE counts it."""

from unlearnkit.core.encoding import Template
from unlearnkit.core.generation import Generation
from unlearnkit.metrics.inputs import MetricInputs
from unlearnkit.metrics.muse import TOKENS
from unlearnkit.metrics.runner import EvalOptions, EvalRunner
from unlearnkit.metrics.spec import METRICS, Generations


def test_gold_and_continuation_are_cut_alike(tiny_model, tokenizer):
    """A continuation that is right for 128 tokens is right, whatever either says after them."""
    text = " ".join(f"word{number}" for number in range(400))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    beginning, other = tokenizer.decode(ids[:TOKENS]), tokenizer.decode(ids[TOKENS:])
    assert len(ids) > 3 * TOKENS
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
        inputs.texts[Generations("forget_documents", "prompt")] = [[written]]
        assert METRICS["muse/verbmem"].compute(inputs).values == [1.0]


def test_a_smaller_budget_cuts_the_gold_too(tiny_model, tokenizer):
    runner = EvalRunner(tiny_model, Template(tokenizer), EvalOptions(256, 5, 4096))
    assert len(tokenizer(runner.cut("one two three four five six seven", TOKENS))["input_ids"]) <= 5
