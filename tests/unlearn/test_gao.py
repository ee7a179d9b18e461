"""GAO against golden numbers, and what its definition promises."""

import contextlib
import json
import math
import random

import pytest
import torch
from conftest import GOLDEN

from unlearnkit.core.files import UserError
from unlearnkit.core.likelihood import row_nll
from unlearnkit.model.reference import ReferenceModel
from unlearnkit.unlearn import compose, parse_method
from unlearnkit.unlearn.base import Step
from unlearnkit.unlearn.gradients.agreement import (
    Agreement,
    always_passes,
    as_agreed,
    needed,
    null_rate,
    set_aside,
)
from unlearnkit.unlearn.objectives.gao import GAO
from unlearnkit.unlearn.scoring import answer_nll, logits

OBJECTIVES = GOLDEN / "objectives"
GRADIENTS = json.loads((OBJECTIVES / "inputs/gradients.json").read_text())["gao"]
AGREED = json.loads((OBJECTIVES / "expected/gradient_combination.json").read_text())["expected"]["gao"]
GAO_ENTRY = json.loads((OBJECTIVES / "expected/objectives.json").read_text())["gao"]
PARAPHRASES = json.loads((OBJECTIVES / "inputs/batches.json").read_text())["paraphrases"]["batch"]


def stream(gradients: list[list[torch.Tensor]]) -> Agreement:
    """The agreement after some texts' gradients, each a list of tensors."""
    agreement = Agreement(gradients[0])
    for number, gradient in enumerate(gradients, 1):
        for place, tensor in enumerate(gradient):
            agreement.add(place, tensor)
        agreement.texts = number
    return agreement


def agreed(gradients, tau, clip=1.0, scaled=False) -> list[torch.Tensor]:
    return [value for value, *_ in stream(gradients).agreed(tau, clip, scaled)]


def stacked(gradients, tau, clip=1.0):
    """The definition, with all gradients at hand."""
    found = []
    for several in zip(*gradients):
        g = torch.stack(several)
        found.append(torch.where(g.sign().mean(0).abs() > tau, g.mean(0), 0.0).clamp(-clip, clip))
    return found


def drawn(seed, count, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [
        [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes or ((5, 4), (7,))]
        for _ in range(count)
    ]


# --- The rule -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", GRADIENTS["taus"])
def test_golden_vectors_and_masks(tau):
    names = list(GRADIENTS["theta"])
    agreement = stream(
        [[torch.tensor(g[name], dtype=torch.float64) for name in names] for g in GRADIENTS["gradients"]]
    )
    expected = AGREED[str(tau)]
    for place, (name, (value, *_)) in enumerate(zip(names, agreement.agreed(tau, 1.0))):
        assert torch.allclose(
            value, torch.tensor(expected["v"][name], dtype=torch.float64), rtol=0, atol=1e-12
        )
        assert agreement.passing(place, tau).tolist() == expected["mask"][name]


@pytest.mark.parametrize("count", [2, 4, 8, 16])
@pytest.mark.parametrize("tau", [0.1, 0.5, 0.8])
def test_streaming_equals_stacked_exactly_for_powers_of_two(count, tau):
    """Sums of numbers with few bits have no rounding, so that the order of the sum cannot show."""
    gradients = [[(64 * t).round() / 64 for t in g] for g in drawn(count, count)]
    assert all(torch.equal(a, b) for a, b in zip(agreed(gradients, tau), stacked(gradients, tau)))


@pytest.mark.parametrize("count", [3, 5, 6, 7, 10])
def test_streaming_equals_stacked_to_rounding(count):
    gradients = drawn(count, count)
    for tau in (0.1, 0.34, 0.8):
        assert all(
            torch.allclose(a, b, rtol=1e-14, atol=1e-16)
            for a, b in zip(agreed(gradients, tau), stacked(gradients, tau))
        )


def test_identical_gradients_pass_wherever_they_are_not_zero():
    one = [torch.tensor([0.5, 0.0, -2.0, 0.25])]
    assert torch.equal(agreed([one] * 6, 0.9)[0], torch.tensor([0.5, 0.0, -1.0, 0.25]))


def test_opposite_gradients_give_nothing():
    g = drawn(0, 1)[0]
    assert all((v == 0).all() for v in agreed([g, [-t for t in g]], 0.1))


def test_two_texts_keep_the_mean_where_their_signs_are_equal():
    a, b = drawn(3, 2)
    for value, x, y in zip(agreed([a, b], 0.1), a, b):
        assert torch.equal(value, torch.where(x * y > 0, (x + y) / 2, 0.0).clamp(-1, 1))


def test_without_agreement_the_clipped_mean():
    gradients = drawn(1, 5)
    for value, *several in zip(agreed(gradients, None, 0.3), *gradients):
        assert torch.allclose(value, torch.stack(several).mean(0).clamp(-0.3, 0.3))


def test_an_odd_number_above_one_over_tau_always_passes():
    for texts, tau, ones in (
        (3, 0.1, True),
        (5, 0.1, True),
        (5, 0.2, False),
        (6, 0.1, False),
        (9, 0.1, True),
        (11, 0.1, False),
    ):
        assert always_passes(tau, texts) == ones
        passing = stream(drawn(texts, texts)).passing(0, tau)
        assert passing.all() or not ones


def test_the_threshold_is_strict_and_exact():
    """|C| / K = tau does not pass, whatever floating point makes of tau x K."""
    assert needed(0.5, 4) == 3
    assert needed(0.1, 10) == 2
    assert needed(0.7, 10) == 8
    assert needed(0.1, 30) == 4
    assert needed(0.3, 10) == 4
    for texts in range(1, 60):
        for count in range(texts):
            assert needed(count / texts, texts) == count + 1


@pytest.mark.parametrize(
    "texts, tau, rate",
    [
        (2, 0.5, 0.5),
        (3, 0.5, 0.25),
        (4, 0.1, 0.625),
        (5, 0.3, 0.375),
        (6, 0.1, 0.688),
        (6, 0.8, 0.031),
        (8, 0.3, 0.289),
        (8, 0.5, 0.070),
        (10, 0.67, 0.021),
        (16, 0.3, 0.210),
        (32, 0.1, 0.597),
        (32, 0.8, 0.0),
    ],
)
def test_the_null_rate_is_that_of_coin_flips(texts, tau, rate):
    assert null_rate(tau, texts) == pytest.approx(rate, abs=6e-4)
    signs = torch.randint(0, 2, (texts, 20000), generator=torch.Generator().manual_seed(texts)) * 2.0 - 1
    assert stream([[row] for row in signs]).passing(0, tau).double().mean().item() == pytest.approx(
        rate, abs=0.015
    )


def test_the_and_mask_divides_by_the_share_that_passes():
    gradients = drawn(5, 4)
    for place, (plain, scaled) in enumerate(
        zip(agreed(gradients, 0.6, 9.0), agreed(gradients, 0.6, 9.0, True))
    ):
        share = stream(gradients).passing(place, 0.6).double().mean()
        assert torch.allclose(scaled, (plain / share).clamp(-9, 9))


# --- On a model ---------------------------------------------------------------------------------------------


@pytest.fixture
def models(golden_models):
    """In float64, where an almost-zero gradient keeps its sign."""
    return tuple(model.double() for model in golden_models)


def part_of(rows) -> dict[str, torch.Tensor]:
    return {key: torch.tensor(value) for key, value in rows.items()} | {
        "index": torch.arange(len(rows["labels"]))
    }


def paraphrases(**changes):
    part = part_of(PARAPHRASES) | changes
    return part | {"owner": torch.zeros(len(part["labels"]), dtype=torch.long)}


def step_of(model, batches, rows=None, weights=None) -> Step:
    weights = [p for p in model.parameters() if p.requires_grad] if weights is None else weights
    rows = rows or sum(len(batch["forget"]["labels"]) for batch in batches)
    return Step(model, batches, weights, rows, contextlib.nullcontext, lambda value: value)


def gradient_of_a_step(models, batch, gao: GAO, npo: dict, weights=()) -> None:
    """Leave in `.grad` what one optimizer step of GAO with NPO and FT would be taken along."""
    model, frozen = models
    parsed = parse_method("GAO")
    components = {
        section: kind(**npo) if section == "unlearn.NPO" else kind()
        for section, kind in parsed.sections.items()
    }
    composition = compose(parsed, components | {"unlearn.GAO": gao})
    with torch.no_grad():
        logprobs = {"forget": -row_nll(logits(frozen, batch["forget"]), batch["forget"]["labels"])}
    counts = composition.counts(batch)
    terms = composition.terms(model, batch, ReferenceModel(logprobs, frozen))
    sum(t.weight * t.term.total / counts[t.term.part][t.term.over] for t in terms.values()).backward()
    for extra in composition.extra_gradients(step_of(model, [batch])):
        for weight, vector in zip(model.parameters(), extra.vector):
            weight.grad += vector


def check_gradient(model, expected, tolerance):
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
    assert norm.item() == pytest.approx(expected["grad_norm"], rel=tolerance)
    for name, values in expected["grad"].items():
        ours = model.get_parameter(name).grad.flatten()[: len(values)]
        assert (ours - torch.tensor(values, dtype=torch.float64)).abs().max() <= tolerance * max(
            map(abs, values)
        ), name


@pytest.mark.parametrize("scope", ["sample", "window"])
def test_golden_gradient(scope, models, golden_batches):
    """One row: both scopes are one."""
    batch = {
        "forget": golden_batches["forget_first"],
        "retain": golden_batches["retain"],
        "paraphrases": paraphrases(),
    }
    params = GAO_ENTRY["params"]
    gradient_of_a_step(
        models, batch, GAO(tau=params["tau"], rho=params["rho"], scope=scope), {"beta": params["beta"]}
    )
    check_gradient(models[0], GAO_ENTRY["expected"], 1e-5)


def test_golden_gradient_of_the_released_code(models, golden_batches):
    """Everything counts: prompts, padding to 512 tokens, and NPO on the mean over the batch with beta 1."""
    part = paraphrases()
    short = 512 - part["labels"].shape[1]
    padded = {key: torch.nn.functional.pad(part[key], (0, short)) for key in ("input_ids", "attention_mask")}
    batch = {
        "forget": golden_batches["forget_first"],
        "retain": golden_batches["retain"],
        "paraphrases": part | padded | {"labels": padded["input_ids"]},
    }
    gradient_of_a_step(models, batch, GAO(), {"beta": 1.0, "reduction": "batch_mean"})
    check_gradient(models[0], GAO_ENTRY["legacy"]["Ignore"], 1e-5)


def several(model, rows=3, seed=0, most=4):
    """A batch of random rows with 2 to `most` paraphrases each."""
    rng, vocabulary = random.Random(seed), model.config.vocab_size

    def part(count):
        lengths = [rng.randint(5, 9) for _ in range(count)]
        ids = torch.tensor([[rng.randrange(3, vocabulary) for _ in range(9)] for _ in lengths])
        mask = torch.tensor([[int(k < n) for k in range(9)] for n in lengths])
        labels = torch.where((mask == 1) & (torch.arange(9) >= 3), ids, -100)
        return {
            "input_ids": ids * mask,
            "attention_mask": mask,
            "labels": labels,
            "index": torch.arange(count),
        }

    counts = [rng.randint(2, most) for _ in range(rows)]
    owner = torch.tensor([row for row, count in enumerate(counts) for _ in range(count)])
    return {"forget": part(rows), "paraphrases": part(len(owner)) | {"owner": owner}}


def one_by_one(model, batch, tau, clip, rho):
    """The definition for scope sample: every gradient kept."""
    weights, rows = list(model.parameters()), []
    for row in range(len(batch["forget"]["labels"])):
        gradients = []
        for line in (batch["paraphrases"]["owner"] == row).nonzero()[:, 0].tolist():
            text = {key: value[line : line + 1] for key, value in batch["paraphrases"].items()}
            gradients.append(torch.autograd.grad(answer_nll(model, text).mean(), weights))
        rows.append(stacked(gradients, tau, clip))
    return [-rho * torch.stack(v).mean(0) for v in zip(*rows)]


@pytest.mark.parametrize("knobs", [{}, {"tau": 0.6, "clip": 0.01, "rho": 2.0}])
def test_a_step_of_several_rows_is_the_mean_of_what_each_agrees_on(models, knobs):
    model, batch = models[0], several(models[0])
    gao = GAO(**knobs)
    found = gao.extra_gradient(step_of(model, [batch]))
    for ours, theirs in zip(found.vector, one_by_one(model, batch, gao.tau, gao.clip, gao.rho)):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
        assert not ours.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert 0 < found.stats["gao_density"] <= 1
    assert found.stats["gao_norm"] > 0


@pytest.mark.parametrize("scope", ["sample", "window"])
def test_it_does_not_depend_on_how_a_step_is_split(models, scope):
    model = models[0]
    whole = several(model, rows=4, most=3)
    gao = GAO(scope=scope, K=3, tau=0.4)
    pieces = []
    for row in range(4):
        lines = whole["paraphrases"]["owner"] == row
        pieces.append(
            {
                "forget": {k: v[row : row + 1] for k, v in whole["forget"].items()},
                "paraphrases": (
                    {k: v[lines] for k, v in whole["paraphrases"].items()}
                    | {"owner": 0 * lines.nonzero()[:, 0]}
                ),
            }
        )
    together, apart = (gao.extra_gradient(step_of(model, batches)) for batches in ([whole], pieces))
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(together.vector, apart.vector))
    assert together.stats == pytest.approx(apart.stats)


def test_window_scope_compares_the_mean_gradients_of_each_turn(models):
    model, rows = models[0], 3
    batch = several(model, rows, most=2)
    weights = list(model.parameters())
    turns = [list(range(turn, 2 * rows, 2)) for turn in range(2)]
    gradients = []
    for lines in turns:
        texts = [{k: v[line : line + 1] for k, v in batch["paraphrases"].items()} for line in lines]
        gradients.append(
            torch.autograd.grad(sum(answer_nll(model, text).mean() for text in texts) / rows, weights)
        )
    found = GAO(scope="window", K=2, rho=1.0).extra_gradient(step_of(model, [batch]))
    for ours, theirs in zip(found.vector, stacked(gradients, 0.1)):
        assert torch.allclose(ours, -theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scope", ["sample", "window"])
def test_rows_with_fewer_than_two_paraphrases(models, scope):
    """They add nothing and are counted; in scope sample they stay in the mean."""
    model = models[0]
    batch = several(model, 2, most=2)
    first = batch["paraphrases"]["owner"] == 0
    lone = batch | {"paraphrases": {k: v[first] for k, v in batch["paraphrases"].items()}}
    found = GAO(scope=scope).extra_gradient(step_of(model, [lone]))
    assert found.stats["gao_rows_left_out"] == 1
    if scope == "window":
        three = lone | {"paraphrases": {k: torch.cat([v, v[:1]]) for k, v in lone["paraphrases"].items()}}
        three["paraphrases"]["owner"] = torch.tensor([0] * int(first.sum()) + [1])
        with_a_single_one = GAO(scope=scope).extra_gradient(step_of(model, [three]))
        assert with_a_single_one.stats["gao_rows_left_out"] == 1
        assert all(torch.equal(a, b) for a, b in zip(found.vector, with_a_single_one.vector))
    else:
        alone = GAO().extra_gradient(
            step_of(model, [lone | {"forget": {k: v[:1] for k, v in batch["forget"].items()}}])
        )
        assert all(torch.allclose(2 * a, b) for a, b in zip(found.vector, alone.vector))
    nothing = batch | {"paraphrases": {k: v[:0] for k, v in batch["paraphrases"].items()}}
    assert all((v == 0).all() for v in GAO(scope=scope).extra_gradient(step_of(model, [nothing])).vector)


def test_the_finite_difference_of_the_surrogate(models):
    """-rho <theta, v>, v held and made of gradients kept one by one, changes along any way as the direction
    says."""
    model, batch = models[0], several(models[0])
    weights = list(model.parameters())
    held = one_by_one(model, batch, 0.1, 1.0, 0.5)
    direction = GAO(rho=0.5).extra_gradient(step_of(model, [batch])).vector
    way = [torch.randn_like(p) for p in weights]
    value = lambda: sum((p * h).sum().item() for p, h in zip(weights, held))
    before, step = value(), 1e-3
    with torch.no_grad():
        for p, w in zip(weights, way):
            p += step * w
    assert (value() - before) / step == pytest.approx(
        sum((d * w).sum().item() for d, w in zip(direction, way)), rel=1e-6
    )


def test_one_step_along_it_makes_the_paraphrases_less_likely(models):
    model, batch = models[0], several(models[0])
    loss = lambda: answer_nll(model, batch["paraphrases"]).mean().item()
    before = loss()
    direction = GAO().extra_gradient(step_of(model, [batch])).vector
    with torch.no_grad():
        for p, d in zip(model.parameters(), direction):
            p -= 1e-3 * d
    assert loss() > before


def test_gradients_that_were_there_stay(models):
    model, batch = models[0], several(models[0])
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    GAO(scope="sample").extra_gradient(step_of(model, [batch]))
    GAO(scope="window").extra_gradient(step_of(model, [batch]))
    assert all((p.grad == 7).all() for p in model.parameters())


def test_frozen_weights_have_no_part(models):
    model, batch = models[0], several(models[0])
    trained = [model.lm_head.weight]
    for p in model.parameters():
        p.requires_grad_(p is trained[0])
    found = GAO().extra_gradient(step_of(model, [batch], weights=trained))
    assert len(found.vector) == 1
    assert found.vector[0].shape == trained[0].shape
    assert (found.vector[0] != 0).any()


def test_a_backward_hands_gradients_on_one_by_one():
    w, u = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    w.grad, taken = torch.full((3,), 5.0), {}
    with set_aside([w, u]), as_agreed([w, u], lambda place, g: taken.update({place: g.clone()})):
        (2 * w.sum() + 3 * u.sum()).backward()
        assert w.grad is None
        assert u.grad is None
    assert taken[0].tolist() == [2, 2, 2]
    assert taken[1].tolist() == [3, 3]
    assert w.grad.tolist() == [5, 5, 5]
    assert u.grad is None


def test_a_gradient_that_is_no_number_is_refused(models):
    model, batch = models[0], several(models[0])
    with torch.no_grad():
        model.lm_head.weight[0, 0] = math.inf
    with pytest.raises(UserError, match="gradient of a paraphrase is not finite"):
        GAO().extra_gradient(step_of(model, [batch]))


# --- Its name -----------------------------------------------------------------------------------------------


def test_the_bare_name_and_what_may_be_changed():
    assert parse_method("GAO") == parse_method("NPO+FT+GAO") == parse_method("gao")
    assert parse_method("GAO+KL").retain == "KL"
    assert parse_method("GAO+KL").forget == "NPO"
    assert parse_method("GAO+SAM").name == "NPO+FT+GAO+SAM"
    assert parse_method("SimNPO+FT+GAO").forget == "SimNPO"
    assert parse_method("FT+GAO").forget is None
    with pytest.raises(UserError, match="one too many"):
        parse_method("GAO+FT+KL")


def test_a_weight_of_zero_reads_no_paraphrases():
    parsed = parse_method("GAO")
    composition = compose(
        parsed, {s: kind() for s, kind in parsed.sections.items()} | {"unlearn.GAO": GAO(rho=0.0)}
    )
    assert composition.parts == {"forget", "retain"}
    assert not composition.adds_gradient
