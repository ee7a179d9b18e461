"""RMU and R2MU: forwards that end at a block, what is trained, what the terms are averaged over."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny import random_llama
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config

from unlearnkit.core.encoding import Encoded, pad_rows
from unlearnkit.core.files import UserError
from unlearnkit.model.load.loading import add_lora, reference_model, train_only
from unlearnkit.model.reference import ReferenceModel
from unlearnkit.model.settings.method_keys import Lora
from unlearnkit.unlearn import compose, parse_method
from unlearnkit.unlearn.blocks import blocks, hidden
from unlearnkit.unlearn.objectives.reflection import reflection_tokens
from unlearnkit.unlearn.objectives.representation import R2MU, RMU, unit_vector


def composed(method, weights=None, **knobs):
    parsed = parse_method(method)
    return compose(
        parsed,
        {
            section: kind(**knobs) if section == f"unlearn.{parsed.forget}" else kind()
            for section, kind in parsed.sections.items()
        },
        **(weights or {}),
    )


def terms_of(composition, model, batch, reference):
    counts = composition.counts(batch)
    return {
        name: t.weight * t.term.total / counts[t.term.part][t.term.over]
        for name, t in composition.terms(model, batch, reference).items()
    }


@pytest.fixture
def world(golden_batches, golden_models):
    """A batch with every part, a model, and its initial model as the run makes it: the model itself with its
    weights put back."""
    model = golden_models[0]
    batch = golden_batches | {"traces": golden_batches["trace"]}
    train_only(model, RMU(layer=1).trained(model))
    return batch, model, ReferenceModel({}, *reference_model(model, 1), budget=10**6)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_short_forward_says_what_the_whole_one_says_and_leaves_the_model_whole(
    layer, golden_batches, golden_models
):
    model, part = golden_models[0], golden_batches["forget"]
    inputs = {key: part[key] for key in ("input_ids", "attention_mask")}
    caught = []
    handle = blocks(model)[layer].register_forward_hook(
        lambda _, __, out: caught.append(out[0] if isinstance(out, tuple) else out)
    )
    whole = model(**inputs).logits
    handle.remove()
    ran = []
    handles = [
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, block in enumerate(blocks(model))
    ]
    assert torch.equal(hidden(model, part, layer), caught[0])
    assert ran == list(range(layer + 1))
    for handle in handles:
        handle.remove()
    assert len(blocks(model)) == 3
    assert torch.equal(model(**inputs).logits, whole)


def test_a_forward_that_fails_leaves_the_model_whole(golden_batches, golden_models):
    model = golden_models[0]
    with pytest.raises(IndexError):
        hidden(model, {**golden_batches["forget"], "input_ids": torch.full((2, 3), 10**6)}, 0)
    assert len(blocks(model)) == 3


def test_the_initial_model_is_found_in_the_trained_one(world, golden_models):
    """With trained weights put back: equal to a frozen copy, cached or not, and the live weights are as they
    were."""
    batch, model, reference = world
    frozen = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 0.1 * torch.randn_like(p)
    live = {name: p.clone() for name, p in model.named_parameters()}
    for name in ("retain", "cot", "retain"):
        attended = batch[name]["attention_mask"].bool()
        assert torch.equal(
            reference.hidden(name, batch[name], 1)[attended], hidden(frozen, batch[name], 1)[attended]
        )
        assert torch.equal(reference.padded_hidden(name, batch[name], 1), hidden(frozen, batch[name], 1))
    assert all(torch.equal(live[name], p) for name, p in model.named_parameters())
    assert not torch.equal(hidden(model, batch["retain"], 1), hidden(frozen, batch["retain"], 1))


def test_autocast_does_not_mistake_the_live_weights_for_the_old_ones(world):
    batch, model, reference = world
    reference.precision = "bf16"
    with torch.no_grad():
        wanted = reference.padded_hidden("retain", batch["retain"], 1)
        for p in model.parameters():
            if p.requires_grad:
                p.mul_(3.0)
    forward = model.forward
    model.forward = torch.autocast("cpu", torch.bfloat16)(forward)  # as accelerate leaves it
    with torch.autocast("cpu", torch.bfloat16):
        live = hidden(model, batch["retain"], 1)
        assert torch.equal(reference.padded_hidden("retain", batch["retain"], 1), wanted)
        assert torch.equal(hidden(model, batch["retain"], 1), live)
        assert not torch.equal(live, wanted)


def test_rows_that_come_again_cost_no_forward_of_the_initial_model(world, monkeypatch):
    batch, model, reference = world
    reference.hidden("retain", batch["retain"], 1)
    monkeypatch.setattr(reference, "_ask", lambda question: pytest.fail("the initial model was asked"))
    reference.hidden("retain", {key: value[:1] for key, value in batch["retain"].items()}, 1)


def test_at_the_start_what_is_kept_is_kept(world):
    batch, model, reference = world
    found = terms_of(composed("R2MU", layer=1), model, batch, reference)
    assert set(found) == {"steering", "unthink", "retain_embed", "cot"}
    assert found["retain_embed"] == found["cot"] == 0
    assert found["steering"] > 0
    assert found["unthink"] > 0


def test_only_the_named_parameters_get_a_gradient(world):
    batch, model, reference = world
    sum(
        terms_of(
            composed("R2MU", {"gamma": 0.0}, layer=1, alpha=0.0, beta=0.0), model, batch, reference
        ).values()
    ).backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert touched == {"model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight"}


def test_weights_scale_their_terms_and_zero_leaves_them_out(world):
    batch, model, reference = world
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.down_proj.weight").mul_(1.5)
    one = terms_of(composed("R2MU", layer=1), model, batch, reference)
    two = terms_of(
        composed("R2MU", {"gamma": 3.0, "forget_weight": 5.0}, layer=1, alpha=2.0, beta=4.0),
        model,
        batch,
        reference,
    )
    factors = {"steering": 5.0, "unthink": 10.0, "retain_embed": 3.0, "cot": 4.0}
    assert {name: (two[name] / one[name]).item() for name in one} == pytest.approx(factors)
    assert set(composed("R2MU-v0", layer=1).terms(model, batch, reference)) == {
        "steering",
        "unthink",
        "retain_embed",
    }
    assert set(composed("R2MU", layer=1, beta=0.0).terms(model, batch, reference)) == {
        "steering",
        "unthink",
        "retain_embed",
    }
    assert set(composed("RMU", {"gamma": 0.0}, layer=1).terms(model, batch, reference)) == {"steering"}
    assert set(composed("RMU+FT", layer=1).terms(model, batch, reference)) == {"steering", "retain_nll"}


@pytest.mark.parametrize("reduction", ["tokens", "rows"])
def test_a_row_with_several_equal_traces_counts_as_with_one(world, reduction):
    batch, model, reference = world
    one = batch["traces"]
    owner = torch.arange(len(one["labels"]))
    lines = torch.cat([owner, owner[:1], owner[:1]])
    several = {key: value[lines] for key, value in one.items()} | {"owner": lines}
    composition = composed("R2MU", layer=1, reduction=reduction)
    alone = terms_of(composition, model, batch | {"traces": one | {"owner": owner}}, reference)["unthink"]
    assert terms_of(composition, model, batch | {"traces": several}, reference)[
        "unthink"
    ].item() == pytest.approx(alone.item(), rel=1e-5)


@pytest.mark.parametrize("knobs", [{}, {"reduction": "rows"}, {"positions": "labels"}, {"norm": "sum"}])
def test_padding_and_company_have_no_influence(world, knobs):
    batch, model, reference = world
    composition = composed("R2MU", layer=1, **knobs)
    pad = lambda part: {
        key: (
            torch.nn.functional.pad(value, (0, 4), value=-100 if key == "labels" else 0)
            if value.dim() == 2
            else value
        )
        for key, value in part.items()
    }
    wider = {name: pad(part) for name, part in batch.items()}
    fresh = ReferenceModel({}, *reference_model(model, 1))
    for name, value in terms_of(composition, model, wider, fresh).items():
        assert value.item() == pytest.approx(
            terms_of(composition, model, batch, reference)[name].item(), rel=1e-5, abs=1e-9
        ), name


def test_sum_is_mean_times_width_and_relative_steering_follows_the_activations(world):
    batch, model, reference = world
    width = model.config.hidden_size
    steer = lambda **knobs: terms_of(composed("RMU", layer=1, **knobs), model, batch, reference)[
        "steering"
    ].item()
    assert steer(norm="sum") == pytest.approx(width * steer(), rel=1e-6)
    rows = [Encoded("a", [5, 6, 7], 1, 0), Encoded("b", [8, 9], 1, 0)]
    reference.forget, reference.tokenizer = rows, type("T", (), {"pad_token_id": 0, "eos_token_id": 0})
    states = hidden(model, pad_rows(list(enumerate(rows)), 0), 1)
    norms = torch.cat([states[0, :3].norm(dim=-1), states[1, :2].norm(dim=-1)])
    assert reference.activation_norm(1) == pytest.approx(norms.median().item(), rel=1e-5)
    assert steer(steering="relative", steering_coeff=2.0) == pytest.approx(
        steer(steering_coeff=2.0 * norms.median().item()), rel=1e-5
    )


def test_the_direction_is_a_unit_vector_of_its_seed():
    one = unit_vector("gaussian", 64, 3)
    assert one.norm().item() == pytest.approx(1, rel=1e-6)
    assert torch.equal(one, unit_vector("gaussian", 64, 3))
    assert not torch.equal(one, unit_vector("gaussian", 64, 4))
    assert (one < 0).any()
    assert (unit_vector("uniform", 64, 3) >= 0).all()


@pytest.mark.parametrize("config", [Qwen2Config, Qwen3Config])
def test_the_tensor_is_found_by_name_where_its_place_is_another(config):
    model = AutoModelForCausalLM.from_config(
        config(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=5,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    )
    assert RMU(layer=3).trained(model) == [
        f"model.layers.{layer}.mlp.down_proj.weight" for layer in (1, 2, 3)
    ]
    assert RMU(layer=3, train_layers=(0, 3)).trained(model) == [
        f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 3)
    ]
    with pytest.raises(
        UserError,
        match=(
            r"unlearn.RMU.train_parameters: no parameter of blocks 1, 2, 3 has 'w2' .* mlp.down_proj.weight"
        ),
    ):
        RMU(layer=3, train_parameters="w2").trained(model)
    with pytest.raises(UserError, match="unlearn.R2MU.train_layers 7 does not exist: the model has 5 blocks"):
        R2MU(layer=3, train_layers=(7,)).trained(model)
    with pytest.raises(UserError, match="unlearn.R2MU.train_layers: block 4 has no influence"):
        R2MU(layer=3, train_layers=(4,)).trained(model)
    with pytest.raises(UserError, match="unlearn.R2MU.layer 5 does not exist: the model has 5 blocks"):
        R2MU(layer=5).check(model)


def test_adapters_go_to_what_is_trained(tiny_model):
    model = copy.deepcopy(tiny_model)
    names = RMU(layer=1).trained(model)
    adapted = add_lora(model, Lora(), only=names)
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * len(names)
    assert all("mlp.down_proj.lora_" in name for name in trained)
    with pytest.raises(
        UserError, match="unlearn.lora.targets: none of q_proj is among the parameters that the method"
    ):
        add_lora(copy.deepcopy(tiny_model), replace(Lora(), targets=("q_proj",)), only=names)


def test_words_of_reflection_that_are_several_tokens_are_left_out(caplog):
    reference = type(
        "R", (), {"token_ids": staticmethod(lambda text: {"Wait": [3], " Wait": [4]}.get(text, [1, 2]))}
    )
    assert reflection_tokens(reference, ("Wait", "Hmm")) == [3, 4]
    assert "several tokens here: Hmm" in caplog.text
    with pytest.raises(UserError, match="unlearn.RTP.words: none of Hmm is a single token"):
        reflection_tokens(reference, ("Hmm",))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_that_are_matched_have_no_dropout(checkpointing, tokenizer):
    model = random_llama(tokenizer, attention_dropout=0.5)
    rows = [Encoded(str(n), [7, 8, 9, 10 + n], 1, 0) for n in range(3)]
    part = pad_rows(list(enumerate(rows)), 0)
    with torch.no_grad():
        wanted = hidden(model, part, 1)
    if checkpointing:
        model.activation_checkpointing_enable()
    model.train()
    with torch.no_grad():
        assert not torch.allclose(
            model(**{k: part[k] for k in ("input_ids", "attention_mask")}).logits,
            model.eval()(part["input_ids"], part["attention_mask"]).logits,
        )
    model.train()
    found = hidden(model, part, 1)
    torch.testing.assert_close(found, wanted)
    found.sum().backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0
    assert all(module.training for module in model.modules())
