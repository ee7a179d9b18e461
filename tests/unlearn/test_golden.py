"""Losses and gradients against numbers made by other people's code and an independent float64 implementation."""

import copy
import json

import pytest
import torch
from conftest import GOLDEN

from core.files import UserError
from core.likelihood import row_nll
from model.reference import StartModel
from unlearn import compose, parse_method
from unlearn.base import hidden, logits
from unlearn.retain import EMBED
from unlearn.trainer import part_counts

EXPECTED = json.loads((GOLDEN / "objectives/expected/objectives.json").read_text())

# entry -> (method, weights); the golden files call the forget weight gamma and the retain weight alpha
CASES = {
    "retain_nll": ("FT", {}),
    "ga": ("GA", {}),
    "grad_diff": ("GA+FT", {"forget_weight": 0.7, "gamma": 1.3}),
    "npo": ("NPO", {}),
    "npo_retain": ("NPO+FT", {}),
    "retain_kl": ("KL", {}),
    "idk_nll": ("CL", {}),
    "jensun_retain": ("JSD", {}),
}


def step_loss(method: str, batch, models, weights, **fields):
    """The loss of one optimizer step of one micro-batch, as the trainer computes it."""
    model, frozen = models
    parsed = parse_method(method)
    components = {section: kind(**fields) if section == f"unlearn.{parsed.forget}" else kind()
                  for section, kind in parsed.sections.items()}
    composition = compose(parsed, components, **weights)
    with torch.no_grad():
        forget = batch["forget"]
        reference = StartModel({"forget": -row_nll(logits(frozen, forget), forget["labels"])}, frozen)
    batch = {"alternate": batch["alternative"], **batch}
    counts = part_counts(batch)
    terms = composition.terms(model, batch, reference)
    return sum(t.weight * t.term.total / counts[t.term.part][t.term.over] for t in terms.values())


@pytest.mark.parametrize("entry", CASES)
def test_loss_and_gradient(entry, golden_batches, golden_models):
    method, weights = CASES[entry]
    expected, tolerance = EXPECTED[entry]["expected"], EXPECTED[entry]["tolerance"]["library_model"]
    loss = step_loss(method, golden_batches, golden_models, weights)
    loss.backward()
    model = golden_models[0]
    norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in model.parameters() if p.grad is not None))
    assert loss.item() == pytest.approx(expected["loss"], rel=tolerance["loss"])
    assert norm.item() == pytest.approx(expected["grad_norm"], rel=tolerance["grad_norm"])
    largest = max(abs(value) for values in expected["grad"].values() for value in values)
    for name, values in expected["grad"].items():
        ours = model.get_parameter(name).grad.flatten()[:len(values)].double()
        assert (ours - torch.tensor(values, dtype=torch.float64)).abs().max() <= tolerance["grad"] * largest, name


def test_npo_with_small_beta_has_the_gradient_of_ascent_on_row_sums(golden_batches, golden_models):
    model = golden_models[0]
    part = golden_batches["forget"]
    wanted = torch.autograd.grad(-row_nll(logits(model, part), part["labels"]).mean(), model.lm_head.weight)[0]
    errors = []
    for beta in (1e-3, 1e-4):
        loss = step_loss("NPO", golden_batches, golden_models, {}, beta=beta)
        errors.append((torch.autograd.grad(loss, model.lm_head.weight)[0] - wanted).norm() / wanted.norm())
    assert errors[0] < 2e-2 and errors[1] < errors[0] / 5


def test_npo_at_the_start_is_two_over_beta_log_two(golden_batches, golden_models):
    model = golden_models[0]
    loss = step_loss("NPO", golden_batches, (model, model), {}, beta=0.5)
    assert loss.item() == pytest.approx(2 / 0.5 * torch.log(torch.tensor(2.0)).item(), rel=1e-6)


@pytest.mark.parametrize("retain", ["KL", "JSD", "EMBED"])
def test_the_start_model_is_at_distance_zero_from_itself_with_zero_gradient(retain, golden_batches, golden_models):
    model = golden_models[0]
    loss = step_loss(retain, golden_batches, (model, copy.deepcopy(model)), {})
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert max(p.grad.abs().max() for p in model.parameters() if p.grad is not None) < 1e-6


def test_activation_matching_is_the_plain_mean_over_attended_tokens(golden_batches, golden_models):
    model, frozen = golden_models
    part = golden_batches["retain"]
    inputs = {key: part[key] for key in ("input_ids", "attention_mask")}
    states = [m(**inputs, output_hidden_states=True).hidden_states[2] for m in (model, frozen)]
    wanted = ((states[0] - states[1]) ** 2)[part["attention_mask"].bool()].mean()
    composition = compose(parse_method("EMBED"), {"unlearn.retain.EMBED": EMBED(layer=1)})
    term = composition.terms(model, golden_batches, StartModel({}, frozen))["retain_embed"].term
    assert (term.total / part["attention_mask"].sum()).item() == pytest.approx(wanted.item(), rel=1e-6)
    with pytest.raises(UserError, match="layer 9 does not exist: the model has 3 blocks"):
        hidden(model, part, 9)


def test_a_weight_of_zero_costs_no_forward(golden_batches, golden_models, monkeypatch):
    model = golden_models[0]
    calls = []
    monkeypatch.setattr(type(model), "forward", lambda self, **kw: calls.append(kw) or pytest.fail("forward ran"))
    parsed = parse_method("NPO+KL")
    composition = compose(parsed, {s: k() for s, k in parsed.sections.items()}, forget_weight=0.0, gamma=0.0)
    assert composition.terms(model, golden_batches, None) == {}
    assert composition.needs == frozenset() and composition.parts == frozenset()


def test_padding_has_no_influence(golden_batches, golden_models):
    wider = {name: {"input_ids": torch.nn.functional.pad(part["input_ids"], (0, 3), value=7),
                    "attention_mask": torch.nn.functional.pad(part["attention_mask"], (0, 3)),
                    "labels": torch.nn.functional.pad(part["labels"], (0, 3), value=-100), "index": part["index"]}
             for name, part in golden_batches.items()}
    for method in ("GA+FT", "NPO+KL"):
        ours = step_loss(method, golden_batches, golden_models, {})
        assert step_loss(method, wider, golden_models, {}).item() == pytest.approx(ours.item(), rel=1e-6)
