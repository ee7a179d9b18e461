"""Gradient combiners against numbers of other people's code, and what their rules promise."""

import json

import pytest
import torch
from conftest import GOLDEN

from unlearnkit.unlearn.gradients import COMBINERS, diagnosis
from unlearnkit.unlearn.gradients.combiners import dot

INPUTS = json.loads((GOLDEN / "objectives/inputs/gradients.json").read_text())
EXPECTED = json.loads((GOLDEN / "objectives/expected/gradient_combination.json").read_text())
FORGET, RETAIN = INPUTS["weights"]["gamma"], INPUTS["weights"]["alpha"]
KNOBS = {
    "pcgrad_tensor": ("pcgrad", {"scope": "tensor"}),
    "pcgrad_global": ("pcgrad", {"scope": "global"}),
    "sago": ("sago", {}),
    "sago_prefer_retain": ("sago", {"prefer_retain": True}),
    "blur_weighted": ("blur", {}),
    "ngdiff": ("ngdiff", {}),
}
VARIANTS = [
    ("sum", {}),
    ("pcgrad", {"scope": "tensor"}),
    ("pcgrad", {"scope": "global"}),
    ("gru", {}),
    ("gru", {"cos_clip": -0.5}),
    ("sago", {}),
    ("sago", {"prefer_retain": True}),
    ("blur", {}),
    ("blur", {"upper": True}),
    ("ngdiff", {}),
]


def tensors(named) -> list[torch.Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in named.values()]


def close(found, named, tolerance=1e-9):
    for ours, theirs in zip(found, tensors(named)):
        assert (ours - theirs).abs().max() <= tolerance * max(1.0, theirs.abs().max().item())


@pytest.mark.parametrize("case", INPUTS["cases"])
@pytest.mark.parametrize("key", KNOBS)
def test_golden_directions(key, case):
    name, knobs = KNOBS[key]
    f, r = (tensors(INPUTS["cases"][case][side]) for side in ("f", "r"))
    found = COMBINERS[name](**knobs).combine(f, r, FORGET, RETAIN, {})
    close(found, EXPECTED["expected"][case][key], 1e-8 if "blur" in key else 1e-9)


@pytest.mark.parametrize("case", INPUTS["cases"])
def test_golden_blur_with_a_retain_weight_of_one(case):
    f, r = (tensors(INPUTS["cases"][case][side]) for side in ("f", "r"))
    close(COMBINERS["blur"]().combine(f, r, FORGET, 1.0, {}), EXPECTED["expected"][case]["blur"], 1e-8)


@pytest.mark.parametrize("key, clip", [("gru", -1.0), ("gru_cos_clip", INPUTS["gru"]["cos_clip"])])
def test_golden_gru_over_three_steps(key, clip):
    rule, state = COMBINERS["gru"](momentum=INPUTS["gru"]["moving_avg"], cos_clip=clip), {}
    for f, r, expected in zip(INPUTS["gru"]["f"], INPUTS["gru"]["r"], EXPECTED["expected"][key]):
        close(rule.combine(tensors(f), tensors(r), 1.0, 1.0, state), expected["direction"])
        close(state["average"], expected["ema"])


def random(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes or ((4, 3), (5,))
    ]


def times(factor, gradient):
    return [factor * x for x in gradient]


def combine(name, f, r, wf=1.0, wr=1.0, **knobs):
    return COMBINERS[name](**({"momentum": 1.0} if name == "gru" else {}), **knobs).combine(f, r, wf, wr, {})


def equal(a, b):
    return all(torch.allclose(x, y, atol=1e-8) for x, y in zip(a, b))


def test_opposite_gradients():
    r = random(1)
    f = times(-2.5, r)
    nothing, plus = times(0, r), [x + y for x, y in zip(f, r)]
    assert equal(combine("gru", f, r), nothing)
    assert equal(combine("ngdiff", f, r), nothing)
    assert equal(combine("sum", f, r), plus)
    for found in (combine("pcgrad", f, r, wr=3.0), combine("sago", f, r, wr=3.0)):
        assert equal(found, times(3.0, r))
    assert equal(combine("blur", f, r), f)


def test_no_conflict_leaves_the_sum():
    f, r = (
        [torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)],
        [torch.tensor([0.5, 3.0, 0.0], dtype=torch.float64)],
    )
    assert equal(combine("pcgrad", f, r, 2.0, 3.0), combine("sum", f, r, 2.0, 3.0))
    assert equal(combine("gru", f, r), f)


def test_orthogonal_gradients():
    f, r = [torch.tensor([2.0, 0.0], dtype=torch.float64)], [torch.tensor([0.0, 3.0], dtype=torch.float64)]
    assert equal(combine("pcgrad", f, r), combine("sum", f, r))
    assert equal(combine("gru", f, r), f)
    assert equal(combine("blur", f, r, 0.7), [0.7 * f[0] + r[0]])
    assert equal(combine("blur", f, r, 1.0, 0.7, upper=True), [f[0] + 0.7 * r[0]])


@pytest.mark.parametrize("seed", range(20))
def test_what_each_rule_promises(seed):
    f, r = random(seed), random(seed + 100)
    for found in (
        combine("sago", f, r),
        combine("pcgrad", f, r),
        combine("pcgrad", f, r, scope="global"),
        combine("gru", f, r),
    ):
        assert dot(found, r) >= -1e-9
    assert all((d * y >= 0).all() for d, y in zip(combine("sago", f, r), r))
    ngdiff = combine("ngdiff", f, r)
    assert dot(ngdiff, r) >= -1e-9
    assert dot(ngdiff, f) >= -1e-9
    assert equal(ngdiff, combine("ngdiff", times(7.0, f), times(0.2, r)))
    assert dot(combine("blur", f, r, 0.6), f).item() == pytest.approx(0.6 * dot(f, f).item())
    assert dot(combine("blur", f, r, 1.0, 0.6, upper=True), r).item() == pytest.approx(0.6 * dot(r, r).item())


@pytest.mark.parametrize("name, knobs", VARIANTS)
def test_a_side_without_a_gradient_divides_by_nothing(name, knobs):
    f = random(3)
    zero = times(0, f)
    for found in (
        combine(name, f, zero, **knobs),
        combine(name, zero, f, **knobs),
        combine(name, zero, zero, **knobs),
    ):
        assert all(torch.isfinite(x).all() for x in found)
    unit = times(1 / dot(f, f).sqrt(), f)
    wanted = {"sago": f, "pcgrad": f, "gru": f, "ngdiff": unit, "sum": f, "blur": f}
    assert equal(combine(name, f, zero, **knobs), wanted[name])
    if name == "blur" and not knobs:
        assert equal(combine(name, zero, f), f)


def test_scopes_are_one_for_one_tensor_and_differ_for_two():
    one = random(5, (7,)), random(6, (7,))
    assert equal(combine("pcgrad", *one), combine("pcgrad", *one, scope="global"))
    two = [torch.tensor([1.0]), torch.tensor([3.0])], [torch.tensor([-1.0]), torch.tensor([1.0])]
    assert not equal(combine("pcgrad", *two), combine("pcgrad", *two, scope="global"))


def test_the_clip_of_gru_takes_out_less():
    f, r = [torch.tensor([-1.0, 0.1])], [torch.tensor([1.0, 0.0])]
    assert combine("gru", f, r)[0][0].item() == pytest.approx(0.0, abs=1e-6)
    assert combine("gru", f, r, cos_clip=-0.5)[0][0].item() < -0.4


def test_the_diagnosis_of_a_step():
    f, r = [torch.tensor([3.0, 0.0]), torch.tensor([1.0])], [torch.tensor([-4.0, 0.0]), torch.tensor([0.0])]
    found = diagnosis(f, r, [x + y for x, y in zip(f, r)])
    assert found["cosine"] == pytest.approx(-12 / (10**0.5 * 4))
    assert found["conflict"] == pytest.approx(1 / 3)
    assert found["tensors_in_conflict"] == 0.5
    assert found["along_retain"] == pytest.approx((3 - 4) * -4 / 16)


@pytest.mark.parametrize("scope", ["tensor", "global"])
@pytest.mark.parametrize("size", [1e-18, 1e-20, 1e-25, 1e-38, 1e-44, 1e25])
def test_pcgrad_sees_a_conflict_where_the_squares_of_the_retain_gradient_are_out_of_range(scope, size):
    """Float32 holds them from 1e-38 to 3e38."""
    r, f = [torch.tensor([size, -size])], [torch.tensor([-2.0, 1.0])]
    half = torch.tensor([-0.5, -0.5]) + r[0]  # f without what it has of r, and r
    assert torch.allclose(combine("pcgrad", f, r, scope=scope)[0], half, rtol=1e-5)
    published = combine("pcgrad", f, r, scope=scope, constant=1e-10)[0]
    assert torch.allclose(published, half if size > 1 else f[0] + r[0], rtol=1e-5)


def test_pcgrad_gives_bit_for_bit_what_its_formula_gives():
    for constant in (0.0, 1e-10):
        f, r = ([x.float() for x in random(seed)] for seed in (7, 8))
        wanted = []
        for x, y in zip(f, r):
            opposed = torch.clamp(dot([x], [y]), max=0) / (dot([y], [y]) + constant)
            wanted.append(0.3 * (x - opposed * y) + 0.7 * y)
        found = combine("pcgrad", f, r, 0.3, 0.7, constant=constant)
        assert all(torch.equal(x, y) for x, y in zip(found, wanted))


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_pcgrad_never_opposes_a_retain_gradient_however_small(scope):
    """Squares of 1e-7 vanish beside the published constant of 1e-10, which leaves the conflict as it is."""
    r = [torch.full((4,), 1e-7), torch.full((3,), 2e-7)]
    f = [torch.full((4,), -1.0), torch.tensor([-2.0, 0.5, -1.0])]
    ours, published = (combine("pcgrad", f, r, scope=scope, constant=c) for c in (0.0, 1e-10))
    assert all(dot([x], [y]) >= 0 for x, y in zip(ours, r)) or scope == "global"
    assert dot(ours, r) >= 0
    assert dot(published, r) < 0
    assert equal(combine("pcgrad", f, [torch.zeros(4), torch.zeros(3)], scope=scope), f)
