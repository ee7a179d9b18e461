"""What must hold of every objective, and the identities that tie them together."""

import copy
import math

import pytest
import torch

from unlearnkit.core.likelihood import row_nll, shifted, token_nll
from unlearnkit.model.reference import ReferenceModel
from unlearnkit.unlearn import FORGET, REGULARIZERS, RETAIN, compose, parse_method
from unlearnkit.unlearn.edits.task_vector import TV
from unlearnkit.unlearn.edits.whp import damped
from unlearnkit.unlearn.method import method_names
from unlearnkit.unlearn.objectives.reflection import WORDS
from unlearnkit.unlearn.scoring import answer_logits, answer_scores, logits

PAIRS = sorted({parse_method(name).name for name in method_names()} - {"origin", "TV"})


class GoldenReference(ReferenceModel):
    def token_ids(self, text):
        return [len(text)] if text in WORDS else [46, 24]


@pytest.fixture
def world(golden_batches, golden_models):
    """Batches with every part there is, the model, and a reference that answers everything."""
    model, frozen = golden_models
    batch = golden_batches | {
        "alternate": golden_batches["alternative"],
        "retain_alternate": golden_batches["alternative"],
        "environment": golden_batches["cot"],
        "traces": golden_batches["trace"],
    }
    with torch.no_grad():
        logprobs = {
            name: -row_nll(logits(frozen, batch[name]), batch[name]["labels"])
            for name in ("forget", "alternate")
        }
    return batch, model, GoldenReference(logprobs, frozen, reinforced_model=frozen)


def loss_of(world, method: str, weights=None, **knobs):
    batch, model, reference = world
    parsed = parse_method(method)
    components = {
        section: kind(**knobs) if number == 0 else kind()
        for number, (section, kind) in enumerate(parsed.sections.items())
    }
    composition = compose(parsed, components, **(weights or {}))
    counts = composition.counts(batch)
    terms = composition.terms(model, batch, reference)
    return sum(t.weight * t.term.total / counts[t.term.part][t.term.over] for t in terms.values())


def gradient_of(world, method: str, weights=None, **knobs):
    _, model, _ = world
    return torch.autograd.grad(loss_of(world, method, weights, **knobs), model.lm_head.weight)[0]


@pytest.mark.parametrize("name", PAIRS)
def test_every_pair_gives_finite_terms_and_gradients(name, world):
    batch, model, _ = world
    loss = loss_of(world, name)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert torch.isfinite(loss)
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)
    assert max(g.abs().max() for g in gradients) > 0


@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_regularizer_stacks(name, world):
    _, model, _ = world
    model.set_attn_implementation("eager")
    plain = loss_of(world, "NPO+FT")
    weights = {"L1": "alpha", "GAO": "rho"}
    stacked = loss_of(world, f"NPO+FT+{name}")
    assert torch.isfinite(stacked)
    assert stacked > plain or REGULARIZERS[name]().adds_gradient
    parsed = parse_method(f"NPO+FT+{name}")
    zero = {weights.get(name, "weight"): 0.0}
    off = compose(
        parsed, {s: kind(**zero) if s == f"unlearn.{name}" else kind() for s, kind in parsed.sections.items()}
    )
    assert set(off.terms(model, world[0], world[2])) == {"npo", "retain_nll"}
    assert not off.adds_gradient


@pytest.mark.parametrize("registry", [FORGET, RETAIN, REGULARIZERS], ids=lambda r: r.kind)
def test_everything_says_its_formula_and_cost(registry):
    for name, kind in registry.items():
        if name != "origin":
            assert "Formula: " in kind.__doc__ and "Cost: " in kind.__doc__, name


@pytest.mark.parametrize(
    "method, knobs, same", [("WGA", {"beta": 0.0}, "GA"), ("SatImp", {"beta1": 0.0, "beta2": 0.0}, "GA")]
)
def test_a_special_case_is_the_other_method(method, knobs, same, world):
    torch.testing.assert_close(gradient_of(world, method, **knobs), gradient_of(world, same))


def test_satimp_without_importance_is_wga(world):
    torch.testing.assert_close(
        gradient_of(world, "SatImp", beta1=2.0, beta2=0.0), gradient_of(world, "WGA", beta=2.0)
    )


def test_wga_descends_on_the_probability(world):
    batch, model, _ = world
    part = batch["forget"]
    p = torch.exp(-token_nll(logits(model, part), part["labels"])).mean()
    torch.testing.assert_close(gradient_of(world, "WGA"), torch.autograd.grad(p, model.lm_head.weight)[0])


def test_simnpo_with_small_beta_has_the_gradient_of_ascent_on_row_means(world):
    batch, model, _ = world
    part = batch["forget"]
    counts = (part["labels"][:, 1:] != -100).sum(-1)
    wanted = torch.autograd.grad(
        -(row_nll(logits(model, part), part["labels"]) / counts).mean(), model.lm_head.weight
    )[0]
    found = gradient_of(world, "SimNPO", beta=1e-3)
    assert (found - wanted).norm() < 5e-3 * wanted.norm()


def test_simnpo_and_the_token_weighted_need_no_reference():
    for name in ("SimNPO", "WGA", "SatImp", "GA", "ME", "CEU", "PDU", "FLAT", "CL", "RL"):
        assert FORGET[name]().needs == frozenset(), name


def test_dpo_between_equal_answers_has_no_gradient_and_swapping_flips_it(world):
    batch, model, reference = world
    same = ({**batch, "alternate": batch["forget"]}, model, reference)
    reference.logprobs["alternate"], kept = reference.logprobs["forget"], reference.logprobs["alternate"]
    assert gradient_of(same, "DPO").abs().max() < 1e-7
    assert loss_of(same, "DPO").item() == pytest.approx(2 / 0.1 * math.log(2), rel=1e-6)
    reference.logprobs["alternate"] = kept
    first = {name: {key: value[:1] for key, value in batch[name].items()} for name in ("forget", "alternate")}
    forward = loss_of((first, model, reference), "DPO", scale="textbook").item()
    swapped = GoldenReference(
        {"forget": reference.logprobs["alternate"], "alternate": reference.logprobs["forget"]}, None
    )
    backward = loss_of(
        ({"forget": first["alternate"], "alternate": first["forget"]}, model, swapped),
        "DPO",
        scale="textbook",
    ).item()
    assert math.exp(-forward) + math.exp(-backward) == pytest.approx(1, rel=1e-5)


def test_undial_teaches_the_initial_model_itself_when_beta_is_0(world):
    batch, model, _ = world
    own = (batch, model, GoldenReference({}, copy.deepcopy(model)))
    assert gradient_of(own, "UNDIAL", beta=0.0).abs().max() < 1e-6
    torch.testing.assert_close(
        gradient_of(own, "UNDIAL", beta=1e9), gradient_of(own, "CEU", skip=0), rtol=1e-4, atol=1e-7
    )


def test_undial_ignores_what_is_not_labelled(world):
    batch, model, reference = world
    before = loss_of(world, "UNDIAL").item()
    ids = batch["forget"]["input_ids"].clone()
    ids[batch["forget"]["attention_mask"] == 0] = 5
    assert loss_of(
        ({**batch, "forget": {**batch["forget"], "input_ids": ids}}, model, reference), "UNDIAL"
    ).item() == pytest.approx(before)


def test_ceu_pushes_the_answers_logit_by_exactly_p(world):
    batch, model, _ = world
    scores, targets = shifted(logits(model, batch["forget"]), batch["forget"]["labels"])
    scores = scores.detach().requires_grad_()
    answer = torch.nn.functional.one_hot(targets, scores.shape[-1]).bool()
    teacher = scores.detach().masked_fill(answer, -math.inf).softmax(-1)
    gradient = torch.autograd.grad(-(teacher * scores.log_softmax(-1)).sum(), scores)[0]
    torch.testing.assert_close(gradient[answer], scores.softmax(-1)[answer])


def test_maximum_entropy_is_bounded_and_zero_only_for_the_uniform(world):
    batch, model, reference = world
    size = model.config.vocab_size
    assert 0 < loss_of(world, "ME").item() < math.log(size)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    for form in ("model_uniform", "uniform_model"):
        assert loss_of(world, "ME", form=form).item() == pytest.approx(0, abs=1e-5)


def test_jensun_is_bounded_by_log_2(world):
    batch, model, reference = world
    assert 0 < loss_of(world, "JensUn").item() <= math.log(2)
    with torch.no_grad():
        model.lm_head.weight.mul_(1000)
    assert 0 <= loss_of(world, "JensUn").item() <= math.log(2) + 1e-6


@pytest.mark.parametrize("divergence", ["tv", "kl", "pearson", "js"])
def test_flat_raises_the_template_and_lowers_the_answer(divergence):
    from unlearnkit.unlearn.objectives.flat import DIVERGENCES

    good, bad = (torch.tensor(0.4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    up, down = torch.autograd.grad(DIVERGENCES[divergence](good, bad), (good, bad))
    assert up < 0 < down


def test_adding_a_constant_to_all_logits_changes_pdu_not_but_raw_logits_npo(world):
    batch, model, reference = world

    class Shifted(torch.nn.Module):
        def forward(self, **inputs):
            out = model(**inputs)
            out.logits = out.logits + 3.0
            return out

    moved = (batch, Shifted(), reference)
    assert loss_of(moved, "PDU", dual=0.0).item() == pytest.approx(
        loss_of(world, "PDU", dual=0.0).item(), rel=1e-5
    )
    assert loss_of(moved, "NPO", reduction="rows").item() == pytest.approx(
        loss_of(world, "NPO").item(), rel=1e-5
    )
    assert (
        abs(
            loss_of(moved, "NPO", reduction="raw_logits").item()
            - loss_of(world, "NPO", reduction="raw_logits").item()
        )
        > 0.1
    )


def test_forget_kl_is_zero_at_the_start_and_capped(world):
    batch, model, _ = world
    own = (batch, model, GoldenReference({}, copy.deepcopy(model)))
    assert abs(loss_of(own, "KL").item()) < 1e-6
    assert gradient_of(own, "KL").abs().max() < 1e-6
    assert abs(loss_of(own, "KL", form="seed_ce").item()) > 0.1
    assert loss_of(world, "KL").item() < 0 <= loss_of(world, "KL", cap=1e-9).item() + 1e-8


def test_the_task_vector_of_alpha_0_is_the_identity_and_nothing_to_subtract_is_an_error(golden_models):
    from unlearnkit.core.files import UserError

    start, reinforced = (model.state_dict() for model in golden_models)
    for name, tensor in TV(alpha=0.0).edit(start, reinforced).items():
        assert torch.equal(tensor, start[name])
    mirrored = TV(alpha=1.0).edit(start, reinforced)
    torch.testing.assert_close(
        mirrored["lm_head.weight"], 2 * start["lm_head.weight"] - reinforced["lm_head.weight"]
    )
    with pytest.raises(UserError, match="nothing to subtract"):
        TV().edit(start, start)
    with pytest.raises(UserError, match="another architecture"):
        TV().edit(start, {"other": torch.ones(1)})


def test_who_is_harry_potter_never_raises_a_logit():
    start, reinforced = torch.randn(5, 9), torch.randn(5, 9)
    assert (damped(start, reinforced, 2.0) <= start).all()
    assert torch.equal(damped(start, reinforced, 0.0), start)
    assert torch.equal(damped(start, start, 3.0), start)


def test_ilu_has_the_gradient_of_its_definition():
    """Two layers, l(θ) differentiated by hand in both forms."""
    from unlearnkit.unlearn.objectives.regularizers import ILU

    torch.manual_seed(0)
    table, head = (torch.randn(7, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = (
                torch.nn.Parameter(table.detach().clone()),
                torch.nn.Parameter(head.detach().clone()),
            )

        def forward(self, input_ids, attention_mask=None, use_cache=False):
            return type("Out", (), {"logits": torch.tanh(self.table[input_ids]) @ self.head.T})

    model = Model()
    ids = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 6]])
    part = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

    def nll(a, b):
        scores = (torch.tanh(a[ids]) @ b.T)[:, :-1].reshape(-1, 7)
        return torch.nn.functional.cross_entropy(scores, ids[:, 1:].reshape(-1))

    ga, gb = torch.autograd.grad(nll(table, head), (table, head), create_graph=True)
    forms = {
        "elementwise": (table * ga).pow(2).sum() + (head * gb).pow(2).sum(),
        "scalar": ((table * ga).sum() + (head * gb).sum()) ** 2,
    }
    ones = torch.ones((), dtype=torch.float64, requires_grad=True)
    by_w = torch.autograd.grad(nll(ones * table, ones * head), ones)[0] ** 2
    torch.testing.assert_close(by_w, forms["scalar"])
    for form, wanted in forms.items():
        term = ILU(form=form).terms(model, {"environment": part}, None)["invariance"]
        torch.testing.assert_close(term.total / 2, wanted.detach(), rtol=1e-5, atol=1e-7)
        found = torch.autograd.grad(term.total / 2, model.table)[0]
        torch.testing.assert_close(
            found, torch.autograd.grad(wanted, table, retain_graph=True)[0], rtol=1e-4, atol=1e-6
        )


def test_answer_preservation_prefers_the_answer(world):
    batch, model, reference = world
    same = ({**batch, "retain_alternate": batch["retain"]}, model, reference)
    assert loss_of(same, "AP").item() == pytest.approx(math.log(2) / 0.1, rel=1e-6)
    assert gradient_of(same, "AP").abs().max() < 1e-6


def test_a_prompt_costs_no_logits(golden_batches, golden_models, monkeypatch):
    model, seen = golden_models[0], []
    part = golden_batches["forget"]
    whole = shifted(logits(model, part), part["labels"])
    answer_scores(model, part)  # the first call tries what the model does
    model.lm_head.register_forward_hook(lambda module, args, out: seen.append(tuple(out.shape)))
    kept = answer_scores(model, part)
    labelled, vocabulary = (part["labels"][:, 1:] != -100).sum().item(), model.config.vocab_size
    assert [shape for shape in seen if shape[-1] == vocabulary] == [(labelled, vocabulary)]
    assert torch.equal(kept[1], whole[1])
    torch.testing.assert_close(kept[0], whole[0], rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(type(model), "_supports_logits_to_keep", lambda self: False)
    assert torch.equal(answer_scores(model, part)[0], whole[0])


def test_bf16_weights_are_scored_in_float32(golden_batches, golden_models):
    scores, _ = answer_scores(golden_models[0].bfloat16(), golden_batches["forget"])
    assert scores.dtype == torch.float32


def test_logits_of_the_reference_model_are_computed_once_per_row(golden_batches, golden_models):
    _, frozen = golden_models
    part = golden_batches["retain"]
    asked = []
    answer_scores(frozen, part)  # the first call tries what the model does
    # The head scores labelled tokens alone, [N, V], whatever lines the rows share.
    frozen.lm_head.register_forward_hook(
        lambda module, args, out: asked.append(len(out)) if out.dim() == 2 else None
    )
    tokens = (part["labels"][:, 1:] != -100).sum(1)
    chosen = [0, 1], [1, 2], [3, 0, 2]
    rows = [{key: value[lines] for key, value in part.items()} for lines in chosen]
    reference = ReferenceModel({}, frozen, budget=10**9)
    found = [reference.answer_logits("retain", row) for row in rows]
    assert asked == [tokens[lines].sum() for lines in ([0, 1], [2], [3])]
    assert reference.initial_answers.bytes == sum(
        s.numel() * 4 for s in reference.initial_answers.kept.values()
    )
    plain = ReferenceModel({}, frozen, budget=0)
    for row, scores in zip(rows, found):
        torch.testing.assert_close(plain.answer_logits("retain", row), scores, rtol=1e-5, atol=1e-5)
    assert plain.initial_answers.bytes == 0
    assert asked[3:] == [tokens[lines].sum() for lines in chosen]
    with torch.no_grad():
        torch.testing.assert_close(answer_logits(frozen, rows[2]), found[2], rtol=1e-5, atol=1e-5)
