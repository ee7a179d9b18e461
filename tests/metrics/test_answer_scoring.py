"""Answers scored behind a prompt that is read once have the scores of plain forwards."""

import inspect

import pytest
import torch
from tiny import random_llama, random_other

from unlearnkit.core.encoding import Encoded, Template
from unlearnkit.core.parity_templates import OpenUnlearningTemplate
from unlearnkit.metrics.answer_scoring import AnswerScorer, shares_prompts
from unlearnkit.metrics.runner import EvalOptions, EvalRunner

QUESTIONS = (
    "Who?",
    "Who taught Abelin of the long winter market to bake?",
    "Where does Tamsin Greaves live?",
)
ANSWERS = ("Orlo.", "That was the miller of the long winter market.", "Nobody knows.", "x")


def encoded_rows(template: Template) -> list[Encoded]:
    return [
        template.encode({"id": f"{question}{answer}", "question": question, "answer": answer})
        for answer in ANSWERS
        for question in QUESTIONS
    ]


def scores(model, rows, budget=4096, together=True):
    found = {}
    scorer = AnswerScorer(model, 0, budget, moments=True)
    for some in [rows] if together else [[row] for row in rows]:
        start = len(found)
        scorer.score(some, lambda batch, start=start: found.update({start + k: s for k, s in batch.items()}))
    return [found[place] for place in range(len(rows))]


def sliding(tokenizer):
    """A Mistral whose attention reaches back eight tokens, less than a prompt."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MistralConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, sliding_window=8, pad_token_id=0, **shape
    )
    return MistralForCausalLM(config).eval()


MODELS = {
    "llama": random_llama,
    "gpt2": lambda tokenizer: random_other("gpt2", tokenizer),
    "mixtral": lambda tokenizer: random_other("mixtral", tokenizer),
    "sliding window": sliding,
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("budget", [1, 100, 4096])
def test_a_shared_prompt_changes_no_score(kind, budget, tokenizer):
    model, rows = MODELS[kind](tokenizer), encoded_rows(Template(tokenizer))
    assert shares_prompts(model)
    for ours, plain in zip(scores(model, rows, budget), scores(model, rows, together=False)):
        assert ours.logp == pytest.approx(plain.logp, abs=1e-5)
        assert ours.mean == pytest.approx(plain.mean, abs=1e-5)
        assert ours.variance == pytest.approx(plain.variance, abs=1e-4)
        assert (ours.hit == plain.hit).all()
        assert len(ours.logp) == ours.n_text + ours.n_terminator


def test_tokens_that_attention_must_not_reach_are_hidden_in_shared_prompts_too(tiny_model, tokenizer):
    """OpenUnlearning's mask hides every EOS of a chat prompt."""
    rows = encoded_rows(OpenUnlearningTemplate(tokenizer))
    hidden = [Encoded(r.id, r.input_ids, r.prompt_length, r.terminator_length, r.input_ids[1]) for r in rows]
    plain = scores(tiny_model, hidden, together=False)
    for ours, alone, seen in zip(scores(tiny_model, hidden), plain, scores(tiny_model, rows)):
        assert ours.logp == pytest.approx(alone.logp, abs=1e-5)
        assert ours.logp != pytest.approx(seen.logp, abs=1e-5)


def test_of_an_answer_that_merges_with_the_prompt_open_unlearning_scores_eos_alone(tiny_model, tokenizer):
    row = {"id": "a", "question": "Who?", "answer": "x"}
    runner = EvalRunner(tiny_model, OpenUnlearningTemplate(tokenizer), EvalOptions(256, 6, 4096))
    (score,) = runner.likelihoods([row], ["answer"])["answer"][0]
    assert (len(score.logp), score.n_text) == (1, 0)
    assert 0 < score.prob < 1
    (ours,) = EvalRunner(tiny_model, Template(tokenizer), EvalOptions(256, 6, 4096)).likelihoods(
        [row], ["answer"]
    )["answer"][0]
    assert ours.n_text > 0


def test_a_prompt_is_read_once_for_all_its_answers(tiny_model, tokenizer):
    rows, read = encoded_rows(Template(tokenizer)), []
    tiny_model.register_forward_pre_hook(
        lambda module, args, inputs: read.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    scores(tiny_model, rows)
    prompts = {tuple(row.input_ids[: row.prompt_length]) for row in rows}
    answers = sum(len(row.input_ids) - row.prompt_length for row in rows)
    widest = max(map(len, prompts))
    assert read[0] == len(prompts) * (widest - 1), "the prompts, without their last token"
    assert answers <= sum(read[1:]) < sum(len(row.input_ids) for row in rows)


def test_a_recurrent_model_reads_every_answer_with_its_prompt(tokenizer):
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(1)
    model = MambaForCausalLM(
        MambaConfig(vocab_size=len(tokenizer), hidden_size=16, state_size=4, num_hidden_layers=1)
    ).eval()
    rows = encoded_rows(Template(tokenizer))
    assert not shares_prompts(model)
    for ours, plain in zip(scores(model, rows), scores(model, rows, together=False)):
        assert ours.logp == pytest.approx(plain.logp, abs=1e-5)


def test_a_device_with_little_memory_gives_the_same_scores(tiny_model, tokenizer, monkeypatch):
    rows = encoded_rows(Template(tokenizer))
    expected, own, sizes = scores(tiny_model, rows), tiny_model.forward, []

    def forward(input_ids, **inputs):
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        sizes.append(len(input_ids))
        return own(input_ids=input_ids, **inputs)

    forward.__signature__ = inspect.signature(own)
    monkeypatch.setattr(tiny_model, "forward", forward)
    for ours, plain in zip(scores(tiny_model, rows), expected):
        assert ours.logp == pytest.approx(plain.logp, abs=1e-5)
    assert max(sizes) == 2


def test_generation_with_little_memory_gives_the_same_texts(tiny_model, tokenizer, monkeypatch):
    from unlearnkit.core.generation import DecodingOptions, generate

    prompts = [[5, 6, number] for number in range(20, 32)]
    options = DecodingOptions(12, stop_ids=range(0, 1494, 37))
    expected, own = generate(tiny_model, tokenizer, prompts, options), tiny_model.generate

    def little(input_ids, **inputs):
        if len(input_ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return own(input_ids=input_ids, **inputs)

    monkeypatch.setattr(tiny_model, "generate", little)
    assert generate(tiny_model, tokenizer, prompts, options) == expected


def test_logits_that_are_no_numbers_make_no_score(tiny_model, tokenizer):
    with torch.no_grad():
        tiny_model.lm_head.weight.fill_(float("nan"))
    runner = EvalRunner(tiny_model, Template(tokenizer), EvalOptions(256, 6, 4096))
    rows = [{"id": "a", "question": "Who?", "answer": "Orlo."}]
    (score,) = runner.likelihoods(rows, ["answer"])["answer"][0]
    assert score.loss != score.loss


def test_without_a_prompt_all_tokens_but_the_first_are_scored(tiny_model):
    rows = [Encoded(str(n), [5, 6, 7, 8 + n], 0, 0) for n in range(3)]
    behind = [Encoded(row.id, row.input_ids, 1, 0) for row in rows]
    for ours, plain in zip(scores(tiny_model, rows), scores(tiny_model, behind)):
        assert len(ours.logp) == 3 and ours.logp == pytest.approx(plain.logp, abs=1e-6)
