"""Losses without the logits of all tokens at once."""

import pytest
import torch
import torch.nn.functional as F
from scripts import REPO
from tiny import random_llama
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from unlearnkit.core.likelihood import token_jsd, token_kl
from unlearnkit.unlearn.passes import chunked_head
from unlearnkit.unlearn.scoring import answer_divergence, answer_nll, answer_row_nll

ROWS, PROMPT, ANSWER = 3, 4, 9


@pytest.fixture
def model():
    return random_llama(AutoTokenizer.from_pretrained(REPO / "files/models/fictional/target"))


@pytest.fixture
def part(model):
    torch.manual_seed(0)
    ids = torch.randint(3, model.config.vocab_size, (ROWS, PROMPT + ANSWER))
    labels = ids.clone()
    labels[:, :PROMPT] = -100
    labels[1, -3:] = -100  # a shorter answer
    mask = torch.ones_like(ids)
    mask[1, -3:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "index": torch.arange(ROWS)}


def in_chunks(monkeypatch, model, tokens: int) -> None:
    monkeypatch.setattr(chunked_head, "WHOLE_LOGITS", 0)
    monkeypatch.setattr(chunked_head, "CHUNK_LOGITS", tokens * model.config.vocab_size)


def gradients(model, loss) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


class LargestLogits(TorchDispatchMode):
    """The most rows of any tensor [..., V] that is computed, the head's own weight [D, V] left out."""

    def __init__(self, config):
        super().__init__()
        self.vocabulary, self.weight, self.rows = (
            config.vocab_size,
            (config.hidden_size, config.vocab_size),
            0,
        )

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if (
            isinstance(out, torch.Tensor)
            and out.shape[-1:] == (self.vocabulary,)
            and out.shape != self.weight
        ):
            self.rows = max(self.rows, out.numel() // self.vocabulary)
        return out


def test_values_and_gradients_are_those_of_the_whole_logits(model, part, monkeypatch):
    logits = model(input_ids=part["input_ids"], attention_mask=part["attention_mask"]).logits[:, :-1]
    targets = part["labels"][:, 1:]
    scored = targets != -100
    whole = F.cross_entropy(logits[scored], targets[scored], reduction="none")
    expected = gradients(model, (whole * torch.arange(len(whole))).sum())
    in_chunks(monkeypatch, model, tokens=2)
    chunked = answer_nll(model, part)
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-6)
    found = gradients(model, (chunked * torch.arange(len(chunked))).sum())
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    sums = torch.stack(
        [whole[:ANSWER].sum(), whole[ANSWER : 2 * ANSWER - 3].sum(), whole[2 * ANSWER - 3 :].sum()]
    )
    torch.testing.assert_close(answer_row_nll(model, part), sums, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("divergence", [token_kl, token_jsd])
def test_divergences_are_those_of_the_whole_logits(divergence, model, part, monkeypatch):
    other = torch.randn(int((part["labels"][:, 1:] != -100).sum()), model.config.vocab_size)
    whole = answer_divergence(model, part, other, divergence)
    in_chunks(monkeypatch, model, tokens=5)
    torch.testing.assert_close(answer_divergence(model, part, other, divergence), whole, rtol=1e-5, atol=1e-5)


def test_no_tensor_holds_the_logits_of_more_than_a_chunk(model, part, monkeypatch):
    with LargestLogits(model.config) as whole:
        answer_nll(model, part).sum().backward()
    assert whole.rows >= ROWS * ANSWER - 3
    in_chunks(monkeypatch, model, tokens=4)
    answer_nll(model, part)  # the first call compares the two forms on one token
    with LargestLogits(model.config) as chunked:
        answer_nll(model, part).sum().backward()
    assert chunked.rows == 4


def test_few_logits_are_computed_whole_and_to_the_bit(model, part):
    answer_nll(model, part)  # the first call tries what the model does
    calls = []
    model.lm_head.register_forward_hook(lambda module, args, out: calls.append(out.shape[-1]))
    answer_nll(model, part)
    assert calls.count(model.config.vocab_size) == 1


def test_an_architecture_that_caps_its_logits_is_computed_whole(part, monkeypatch):
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "gemma2", **shape, num_key_value_heads=2, head_dim=16, vocab_size=1536, final_logit_softcapping=5.0
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    whole = answer_nll(model, part)
    in_chunks(monkeypatch, model, tokens=2)
    assert torch.equal(answer_nll(model, part), whole)


def test_adapters_get_the_gradient_of_the_whole_logits(model, part, monkeypatch):
    import peft

    model = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    whole = torch.autograd.grad(answer_nll(model, part).sum(), trained)
    in_chunks(monkeypatch, model, tokens=2)
    chunked = torch.autograd.grad(answer_nll(model, part).sum(), trained)
    for ours, theirs in zip(chunked, whole):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
