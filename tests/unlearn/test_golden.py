"""Losses and gradients against numbers made by other people's code and an independent float64
implementation."""

import copy
import json

import pytest
import torch
from conftest import GOLDEN

from unlearnkit.core.files import UserError
from unlearnkit.core.likelihood import row_nll
from unlearnkit.model.reference import ReferenceModel
from unlearnkit.unlearn import compose, parse_method
from unlearnkit.unlearn.blocks import hidden
from unlearnkit.unlearn.objectives.representation import EMBED
from unlearnkit.unlearn.scoring import logits

INPUTS = json.loads((GOLDEN / "objectives/inputs/batches.json").read_text())
EXPECTED = json.loads((GOLDEN / "objectives/expected/objectives.json").read_text())

RETAIN_ALONE = {"forget_weight": 0.0}

STEER = {"layer": 1, "steering_coeff": 4.0}
ROWS = STEER | {"positions": "labels", "reduction": "rows"}
EVERYWHERE = STEER | {"positions": "all"}
RTP = {"weight": 2.0, "over": "forget", "words": ("first", "second", "third")}

# entry -> (method, weights, knobs of its first objective); the golden files call the forget weight gamma and
# the retain weight alpha
CASES = {
    "retain_nll": ("FT", {}, {}),
    "ga": ("GA", {}, {}),
    "grad_diff": ("GA+FT", {"forget_weight": 0.7, "gamma": 1.3}, {}),
    "npo": ("NPO", {}, {}),
    "npo_retain": ("NPO+FT", {}, {}),
    "npo_batch_mean": ("NPO", {}, {"reduction": "batch_mean"}),
    "npo_batch_mean_retain": ("NPO+FT", {"gamma": 1.5}, {"reduction": "batch_mean"}),
    "simnpo": ("SimNPO", {}, {"beta": 4.5}),
    "simnpo_margin": ("SimNPO", {}, {"beta": 2.5, "margin": 1.25, "margin_form": "inside"}),
    "simnpo_retain": ("SimNPO+FT", {"forget_weight": 0.125}, {"beta": 4.5}),
    "dpo": ("DPO", {}, {}),
    "dpo_retain": ("DPO+FT", {}, {}),
    "idk_nll": ("CL", {}, {}),
    "idk_concat": ("CL", {}, {"batch": "concat"}),
    "retain_kl": ("GA+KL", RETAIN_ALONE, {}),
    "undial": ("UNDIAL", {}, {}),
    "ceu": ("CEU", {}, {}),
    "wga": ("WGA", {}, {}),
    "wga_retain": ("WGA+FT", {}, {"beta": 0.5}),
    "satimp": ("SatImp", {}, {}),
    "satimp_retain": ("SatImp+FT", {"forget_weight": 0.1}, {"beta1": 1.0, "beta2": 0.5}),
    "pdu_forget": ("PDU", {}, {"dual": 0.0}),
    "jensun_forget": ("JensUn", {}, {}),
    "jensun_retain": ("JSD", {}, {}),
    "jensun": ("JensUn+JSD", {}, {}),
    "max_entropy": ("ME", {}, {}),
    "max_entropy_reverse": ("ME", {}, {"form": "uniform_model"}),
    "flat_tv": ("FLAT", {}, {}),
    "flat_kl": ("FLAT", {}, {"divergence": "kl"}),
    "rmu_masked_forget": ("RMU", {"gamma": 0.0}, ROWS),
    "rmu_masked": ("RMU", {}, ROWS),
    "rmu_plain": ("RMU", {"gamma": 1.4}, STEER),
    "r2mu": ("R2MU", {"gamma": 1.4}, STEER | {"beta": 0.9, "trace_positions": "attended"}),
    "r2mu_cot": ("FT+CoT", {"gamma": 0.0}, {"layer": 1, "positions": "attended"}),
    "reflection_penalty": ("FT+RTP", {"gamma": 0.0}, RTP),
}

# (entry, peer whose code gave the number) -> as above
CONVENTIONS = {
    ("npo", "Unlearn-Simple MUSE"): ("NPO", {}, {"reduction": "raw_logits"}),
    ("simnpo", "Unlearn-Simple MUSE"): ("SimNPO", {}, {"beta": 4.5, "reduction": "raw_logits"}),
    ("simnpo", "Unlearn-Simple WMDP"): ("SimNPO", {}, {"beta": 4.5, "reduction": "batch_mean"}),
    ("retain_kl", "open-unlearning"): ("GA+KL", RETAIN_ALONE, {"form": "all"}),
    ("retain_kl", "WAGLE"): ("GA+KL", RETAIN_ALONE, {"form": "seed_ce"}),
    ("retain_kl", "Unlearn-Simple MUSE"): ("GA+KL", RETAIN_ALONE, {"form": "raw_logits"}),
    ("undial", "open-unlearning"): ("UNDIAL", {}, {"positions": "all"}),
    ("pdu_forget", "open-unlearning"): ("PDU", {}, {"positions": "unshifted", "dual": 0.0}),
    ("max_entropy_reverse", "closer-look-LLM-unlearning"): ("ME", {}, {"form": "uniform_model"}),
    ("rmu_plain", "Unlearn-R2MU"): ("RMU", {"gamma": 1.4}, EVERYWHERE),
    ("r2mu", "Unlearn-R2MU"): ("R2MU", {"gamma": 1.4}, EVERYWHERE | {"beta": 0.9, "trace_positions": "all"}),
    ("r2mu_cot", "Unlearn-R2MU"): ("FT+CoT", {"gamma": 0.0}, {"layer": 1, "positions": "all"}),
    ("reflection_penalty", "Unlearn-R2MU"): ("FT+RTP", {"gamma": 0.0}, RTP | {"positions": "all"}),
    ("flat_tv", "FLAT"): ("FLAT", {}, {"positions": "all"}),
    ("flat_kl", "FLAT"): ("FLAT", {}, {"divergence": "kl", "positions": "all"}),
}


class GoldenReference(ReferenceModel):
    """The golden reference model; its texts are the golden token patterns."""

    def token_ids(self, text):
        words = dict(zip(RTP["words"], INPUTS["reflection_token_ids"]))
        return [words[text]] if text in words else INPUTS["refusal_pattern"]


@pytest.fixture(autouse=True)
def golden_direction(monkeypatch):
    vector = torch.tensor(INPUTS["control_vector_raw"])
    monkeypatch.setattr(
        "unlearnkit.unlearn.objectives.representation.unit_vector",
        lambda kind, size, seed: vector / vector.norm(),
    )


def configured(method: str, weights: dict, knobs: dict):
    """The composition of a case; the knobs go to its first objective of weight other than 0."""
    parsed = parse_method(method)
    sides = {"forget_weight": parsed.forget, "gamma": parsed.retain}
    off = sum(weights.get(key) == 0 for key, name in sides.items() if name)
    first = list(parsed.sections)[off]
    components = {
        section: kind(**knobs) if section == first else kind() for section, kind in parsed.sections.items()
    }
    return compose(parsed, components, **weights)


def step_loss(method: str, parts, models, weights, **knobs):
    """The loss of one optimizer step of one micro-batch, as the trainer computes it."""
    model, frozen = models
    composition = configured(method, weights, knobs)
    batch = {"alternate": parts["alternative"], "traces": parts["trace"], **parts}
    with torch.no_grad():
        logprobs = {
            name: -row_nll(logits(frozen, batch[name]), batch[name]["labels"])
            for name in ("forget", "alternate")
        }
    counts = composition.counts(batch)
    terms = composition.terms(model, batch, GoldenReference(logprobs, frozen))
    return sum(t.weight * t.term.total / counts[t.term.part][t.term.over] for t in terms.values())


def check(loss, expected, tolerance, model):
    """Loss, norm of the whole gradient and its stored entries."""
    loss.backward()
    norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in model.parameters() if p.grad is not None))
    assert loss.item() == pytest.approx(expected["loss"], rel=tolerance["loss"])
    assert norm.item() == pytest.approx(expected["grad_norm"], rel=tolerance["grad_norm"])
    largest = max(abs(value) for values in expected["grad"].values() for value in values)
    for name, values in expected["grad"].items():
        weight = model.get_parameter(name)
        ours = (
            (torch.zeros_like(weight) if weight.grad is None else weight.grad)
            .flatten()[: len(values)]
            .double()
        )
        assert (ours - torch.tensor(values, dtype=torch.float64)).abs().max() <= tolerance[
            "grad"
        ] * largest, name


def test_every_golden_objective_is_reproduced():
    """`gao` is a gradient beside its loss: tests/unlearn/test_gao.py."""
    assert set(CASES) | {"pdu", "r2mu_unthink", "gao"} == set(EXPECTED)


@pytest.mark.parametrize("entry", CASES)
def test_loss_and_gradient(entry, golden_batches, golden_models):
    method, weights, knobs = CASES[entry]
    loss = step_loss(method, golden_batches, golden_models, weights, **knobs)
    check(loss, EXPECTED[entry]["expected"], EXPECTED[entry]["tolerance"]["library_model"], golden_models[0])


@pytest.mark.parametrize("entry, peer", CONVENTIONS)
def test_what_a_peers_code_computes_is_there_when_asked_for(entry, peer, golden_batches, golden_models):
    method, weights, knobs = CONVENTIONS[entry, peer]
    loss = step_loss(method, golden_batches, golden_models, weights, **knobs)
    check(
        loss, EXPECTED[entry]["legacy"][peer], EXPECTED[entry]["tolerance"]["library_model"], golden_models[0]
    )


def test_the_unthink_term_of_r2mu(golden_batches, golden_models):
    model, frozen = golden_models
    for positions, expected in (
        ("attended", EXPECTED["r2mu_unthink"]["expected"]),
        ("all", EXPECTED["r2mu_unthink"]["legacy"]["Unlearn-R2MU"]),
    ):
        model.zero_grad()
        composition = configured("R2MU", {}, STEER | {"trace_positions": positions})
        batch = {**golden_batches, "traces": golden_batches["trace"]}
        term = composition.terms(model, batch, GoldenReference({}, frozen))["unthink"].term
        loss = term.total / composition.counts(batch)[term.part][term.over]
        check(loss, expected, EXPECTED["r2mu_unthink"]["tolerance"]["library_model"], model)


def test_pdu_and_its_multiplier(golden_batches, golden_models):
    """The golden loss counts the constant - dual * eps, which has no gradient."""
    expected, params = EXPECTED["pdu"]["expected"], EXPECTED["pdu"]["params"]
    composition = configured("PDU", {}, {name: params[name] for name in ("dual", "eps", "dual_step")})
    terms = composition.terms(golden_models[0], golden_batches, None)
    counts = composition.counts(golden_batches)
    means = {name: t.term.total / counts[t.term.part][t.term.over] for name, t in terms.items()}
    loss = sum(terms[name].weight * mean for name, mean in means.items()) - params["dual"] * params["eps"]
    check(loss, expected, EXPECTED["pdu"]["tolerance"]["library_model"], golden_models[0])
    retain = means["retain_nll"].item()
    duals = []
    for _ in range(3):
        composition.after_step({"retain_nll": retain}, 0.0)
        duals.append(composition.logged()["dual"])
    assert duals == pytest.approx(expected["dual_after_updates"], rel=1e-5)
    for _ in range(50):
        composition.after_step({"retain_nll": 0.0}, 0.0)
    assert composition.logged()["dual"] == 0.0


def test_npo_with_small_beta_has_the_gradient_of_ascent_on_row_sums(golden_batches, golden_models):
    model = golden_models[0]
    part = golden_batches["forget"]
    wanted = torch.autograd.grad(-row_nll(logits(model, part), part["labels"]).mean(), model.lm_head.weight)[
        0
    ]
    errors = []
    for beta in (1e-3, 1e-4):
        loss = step_loss("NPO", golden_batches, golden_models, {}, beta=beta)
        errors.append((torch.autograd.grad(loss, model.lm_head.weight)[0] - wanted).norm() / wanted.norm())
    assert errors[0] < 2e-2
    assert errors[1] < errors[0] / 5


def test_npo_at_the_start_is_two_over_beta_log_two(golden_batches, golden_models):
    model = golden_models[0]
    loss = step_loss("NPO", golden_batches, (model, model), {}, beta=0.5)
    assert loss.item() == pytest.approx(2 / 0.5 * torch.log(torch.tensor(2.0)).item(), rel=1e-6)


@pytest.mark.parametrize("retain", ["KL", "JSD", "EMBED"])
def test_the_initial_model_is_at_distance_zero_from_itself_with_zero_gradient(
    retain, golden_batches, golden_models
):
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
    term = composition.terms(model, golden_batches, ReferenceModel({}, frozen))["retain_embed"].term
    assert (term.total / part["attention_mask"].sum()).item() == pytest.approx(wanted.item(), rel=1e-6)
    with pytest.raises(UserError, match="layer 9 does not exist: the model has 3 blocks"):
        hidden(model, part, 9)


def test_a_weight_of_zero_costs_no_forward(golden_batches, golden_models, monkeypatch):
    model = golden_models[0]
    calls = []
    monkeypatch.setattr(
        type(model), "forward", lambda self, **kw: calls.append(kw) or pytest.fail("forward ran")
    )
    parsed = parse_method("NPO+KL")
    composition = compose(parsed, {s: k() for s, k in parsed.sections.items()}, forget_weight=0.0, gamma=0.0)
    assert composition.terms(model, golden_batches, None) == {}
    assert composition.needs == frozenset()
    assert composition.parts == frozenset()


def test_padding_has_no_influence(golden_batches, golden_models):
    wider = {
        name: {
            "input_ids": torch.nn.functional.pad(part["input_ids"], (0, 3), value=7),
            "attention_mask": torch.nn.functional.pad(part["attention_mask"], (0, 3)),
            "labels": torch.nn.functional.pad(part["labels"], (0, 3), value=-100),
            "index": part["index"],
        }
        for name, part in golden_batches.items()
    }
    for method in ("GA+FT", "NPO+KL"):
        ours = step_loss(method, golden_batches, golden_models, {})
        assert step_loss(method, wider, golden_models, {}).item() == pytest.approx(ours.item(), rel=1e-6)
