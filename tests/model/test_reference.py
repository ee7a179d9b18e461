"""Cached reference log-probabilities against live ones."""

import pytest
import torch
from tiny import random_llama

from unlearnkit.core.encoding import Template, pad_rows
from unlearnkit.core.files import fingerprint, read_json, write_json
from unlearnkit.model.load.loading import add_lora, lost_update_fraction, model_fingerprint
from unlearnkit.model.reference import LogprobCache, ReferenceOptions, live_logprobs, make_reference
from unlearnkit.model.settings.method_keys import Lora
from unlearnkit.unlearn import compose, parse_method
from unlearnkit.unlearn.blocks import hidden
from unlearnkit.unlearn.scoring import logits

QUESTIONS = [
    "Who taught Orla?",
    "Where was Abelin Greaves born, and in which town?",
    "Which animal?",
    "What does Petra make?",
]


@pytest.fixture
def rows(tokenizer):
    template = Template(tokenizer)
    return [
        template.encode({"id": f"r{i}", "question": q, "answer": "That was the miller " + "Orlo " * (i + 1)})
        for i, q in enumerate(QUESTIONS)
    ]


def cache_of(model, folder, batch_tokens=100, **options) -> LogprobCache:
    return LogprobCache(model, ReferenceOptions(folder, batch_tokens, **options))


def live(model, rows, order):
    return live_logprobs(model, pad_rows([(i, rows[i]) for i in order], 0))


def test_cached_equals_live_to_the_bit_at_the_same_batch_and_closely_otherwise(tiny_model, rows, tmp_path):
    order = sorted(range(4), key=lambda i: -len(rows[i].input_ids))
    cached = cache_of(tiny_model, tmp_path, batch_tokens=10_000).logprobs(rows, 0)
    assert torch.equal(cached[order], live(tiny_model, rows, order))
    for i in range(4):
        torch.testing.assert_close(cached[[i]], live(tiny_model, rows, [i]), rtol=1e-5, atol=1e-5)


def test_the_second_run_computes_nothing(tiny_model, rows, tmp_path, monkeypatch):
    first = cache_of(tiny_model, tmp_path).logprobs(rows, 0)
    monkeypatch.setattr(type(tiny_model), "forward", lambda *a, **k: pytest.fail("a forward ran"))
    assert torch.equal(cache_of(tiny_model, tmp_path).logprobs(rows[::-1], 0), first.flip(0))


def test_another_model_or_row_never_meets_a_stale_number(tiny_model, rows, tmp_path):
    cache = cache_of(tiny_model, tmp_path)
    cache.logprobs(rows, 0)
    with torch.no_grad():
        tiny_model.lm_head.weight[5, 3] += 0.5
    changed = cache_of(tiny_model, tmp_path)
    assert changed.path != cache.path
    torch.testing.assert_close(
        changed.logprobs(rows, 0), live(tiny_model, rows, range(4)), rtol=1e-5, atol=1e-5
    )


def test_a_broken_cache_file_is_made_anew(tiny_model, rows, tmp_path):
    cache = cache_of(tiny_model, tmp_path)
    wanted = cache.logprobs(rows, 0)
    cache.path.write_text('{"half')
    assert torch.equal(cache_of(tiny_model, tmp_path).logprobs(rows, 0), wanted)
    assert len(read_json(cache.path)["logprobs"]) == 4


@pytest.mark.parametrize("change", [lambda x: 2 * x, lambda x: -x, lambda x: None, str])
@pytest.mark.parametrize("resealed", [False, True])
def test_numbers_that_nobody_wrote_are_not_believed(change, resealed, tiny_model, rows, tmp_path, caplog):
    """Scaled values show by the checksum; what no log-probability can be, whatever the checksum says."""
    cache = cache_of(tiny_model, tmp_path)
    wanted = cache.logprobs(rows, 0)
    kept = read_json(cache.path)["logprobs"]
    changed = {key: change(value) for key, value in kept.items()}
    write_json(cache.path, {"checksum": fingerprint(changed if resealed else kept), "logprobs": changed})
    found = cache_of(tiny_model, tmp_path).logprobs(rows, 0)
    if resealed and change(-1.0) == -2.0:
        assert torch.equal(found, 2 * wanted)
    else:
        assert torch.equal(found, wanted)
        assert "is not what was written there" in caplog.text


def test_another_formula_or_library_never_meets_a_stale_number(tiny_model, tmp_path, monkeypatch):
    before = cache_of(tiny_model, tmp_path).path
    monkeypatch.setattr("unlearnkit.model.reference.versions", lambda names: dict.fromkeys(names, "another"))
    assert cache_of(tiny_model, tmp_path).path != before
    monkeypatch.undo()
    assert cache_of(tiny_model, tmp_path).path == before
    monkeypatch.setattr("unlearnkit.unlearn.base.__file__", __file__)
    assert cache_of(tiny_model, tmp_path).path != before


def test_another_precision_never_meets_a_stale_number(tiny_model, rows, tmp_path):
    exact, half = (
        cache_of(tiny_model, tmp_path, precision=kind).logprobs(rows, 0) for kind in ("fp32", "bf16")
    )
    assert torch.equal(half, cache_of(tiny_model, tmp_path / "new", precision="bf16").logprobs(rows, 0))
    assert not torch.equal(half, exact)


def reference_for(method, model, tokenizer, rows, tmp_path):
    parsed = parse_method(method)
    composition = compose(parsed, {section: kind() for section, kind in parsed.sections.items()})
    return make_reference(model, tokenizer, composition, rows, ReferenceOptions(tmp_path, 1000))


def test_npo_holds_no_second_model(tiny_model, tokenizer, rows, tmp_path):
    assert reference_for("NPO+FT", tiny_model, tokenizer, {"forget": rows}, tmp_path).model is None
    assert reference_for("GA+FT", tiny_model, tokenizer, {}, tmp_path) is None


def test_every_part_that_is_compared_has_its_numbers(tiny_model, tokenizer, rows, tmp_path):
    reference = reference_for(
        "DPO+FT", tiny_model, tokenizer, {"forget": rows, "alternate": rows[::-1], "retain": rows}, tmp_path
    )
    assert set(reference.logprobs) == {"forget", "alternate"}
    assert torch.equal(reference.logprobs["alternate"], reference.logprobs["forget"].flip(0))


def test_the_frozen_copy_stays_when_the_model_moves(tiny_model, tokenizer, rows, tmp_path):
    reference = reference_for("GA+KL", tiny_model, tokenizer, {}, tmp_path)
    part = pad_rows(list(enumerate(rows)), 0)
    before = reference.logits("retain", part)
    with torch.no_grad():
        tiny_model.lm_head.weight.add_(1.0)
    assert torch.equal(reference.logits("retain", part), before)
    assert not before.requires_grad


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("method", ["GA+KL", "GA+EMBED"])
def test_the_reference_has_no_dropout_while_the_model_trains(method, lora, tokenizer, rows, tmp_path):
    """Neither as a frozen copy (KL) nor as the model itself (EMBED, LoRA)."""
    part = pad_rows(list(enumerate(rows)), 0)
    model = random_llama(tokenizer, attention_dropout=0.5)
    wanted = {"GA+KL": logits(model, part), "GA+EMBED": hidden(model, part, 1)}[method]
    model = (add_lora(model, Lora()) if lora else model).train()
    reference = reference_for(method, model, tokenizer, {}, tmp_path)
    found = {"GA+KL": reference.logits, "GA+EMBED": lambda *of: reference.padded_hidden(*of, 1)}[method]
    torch.testing.assert_close(found("retain", part), wanted)
    assert model.training


def test_trained_adapters_are_off_in_the_reference(tiny_model, tokenizer, rows, tmp_path):
    part = pad_rows(list(enumerate(rows)), 0)
    wanted = logits(tiny_model, part)
    model = add_lora(tiny_model, Lora())
    reference = reference_for("GA+KL", model, tokenizer, {}, tmp_path)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += "lora_B" in name
    torch.testing.assert_close(reference.logits("retain", part), wanted)
    assert not torch.allclose(logits(model, part), wanted, atol=0.1)


def test_fingerprint_sees_a_single_weight(tiny_model):
    before = model_fingerprint(tiny_model)
    with torch.no_grad():
        tiny_model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    changed = model_fingerprint(tiny_model)
    assert changed != before
    tiny_model.config.rms_norm_eps = 1e-3
    assert model_fingerprint(tiny_model) != changed


def test_adapters_do_not_change_the_fingerprint_of_their_base(tiny_model):
    before = model_fingerprint(tiny_model)
    assert model_fingerprint(add_lora(tiny_model, Lora())) == before


def test_pure_bf16_swallows_small_steps_and_fp32_does_not(tiny_model):
    assert lost_update_fraction(tiny_model, 1e-5) == 0.0
    half = tiny_model.bfloat16()
    share = lost_update_fraction(half, 1e-5)
    weight = half.lm_head.weight.detach()
    assert share > 0.5
    really = ((weight - 1e-5 * weight.sign()) == weight).float().mean().item()
    assert lost_update_fraction(torch.nn.ParameterList([weight]), 1e-5) == pytest.approx(really, abs=0.15)
