"""Flatness wrappers on losses whose gradient and Hessian are known."""

import pytest
import torch

from unlearnkit.optim import FLATNESS, WA, Averaging, Landscape
from unlearnkit.optim.sharpness import moved, norm
from unlearnkit.unlearn.method import WRAPPERS

TORCH = torch.float64
HESSIAN = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=TORCH)


def quadratic(start=(1.0, -2.0)):
    """½ θᵀHθ: gradient Hθ, Hessian H everywhere."""
    weight = torch.tensor(start, dtype=TORCH)
    return weight, Landscape(
        [weight],
        lambda: [HESSIAN @ weight],
        lambda g: g,
        lambda v: [HESSIAN @ v[0]],
        lambda v: v,
        step=3,
        seed=1,
    )


def quartic():
    """Σ θ⁴ / 4: gradient θ³, Hessian 3 diag(θ²)."""
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=TORCH)
    return weight, Landscape(
        [weight],
        lambda: [weight**3],
        lambda g: g,
        lambda v: [3 * weight**2 * v[0]],
        lambda v: v,
        step=0,
        seed=0,
    )


def test_every_name_a_method_may_end_in_is_a_wrapper():
    assert {name: FLATNESS.resolve(name) for name in WRAPPERS} == WRAPPERS
    assert set(WRAPPERS.values()) == set(FLATNESS)


@pytest.mark.parametrize("name", ["SAM", "RS", "GP", "CR"])
def test_rho_0_is_the_plain_gradient_to_the_bit(name):
    weight, landscape = quadratic()
    assert torch.equal(FLATNESS[name](rho=0.0).gradient(landscape)[0], HESSIAN @ weight)


@pytest.mark.parametrize("name", ["SAM", "RS", "GP", "CR"])
def test_the_weights_come_back_to_the_bit(name):
    weight, landscape = quartic()
    before = weight.clone()
    FLATNESS[name](rho=0.3).gradient(landscape)
    assert torch.equal(weight, before)


def test_sam_on_a_quadratic():
    weight, landscape = quadratic()
    g = HESSIAN @ weight
    wanted = g + 0.1 * HESSIAN @ g / g.norm()
    torch.testing.assert_close(FLATNESS["SAM"](rho=0.1).gradient(landscape)[0], wanted)


def test_sam_per_tensor_and_where_the_gradient_is_zero():
    one, two = torch.tensor([3.0], dtype=TORCH), torch.tensor([0.0], dtype=TORCH)
    landscape = Landscape(
        [one, two], lambda: [one.clone(), two.clone()], lambda g: g, lambda v: v, lambda v: v, 0, 0
    )
    found = FLATNESS["SAM"](rho=0.5, scope="tensor").gradient(landscape)
    torch.testing.assert_close(found, [torch.tensor([3.5], dtype=TORCH), torch.tensor([0.0], dtype=TORCH)])


def test_smoothing_is_seeded_by_the_step_and_unbiased_on_a_quadratic():
    weight, landscape = quadratic()
    wrapper = FLATNESS["RS"](rho=0.5, samples=4000)
    found = wrapper.gradient(landscape)[0]
    assert torch.equal(found, wrapper.gradient(landscape)[0])
    torch.testing.assert_close(found, HESSIAN @ weight, atol=0.05, rtol=0)
    other = Landscape(
        landscape.weights,
        landscape.gradient,
        landscape.total,
        landscape.curvature,
        landscape.apply_mask,
        step=4,
        seed=1,
    )
    assert not torch.equal(wrapper.gradient(other)[0], found)


def penalised(penalty, weight):
    """Gradient of a scalar function of the weights by automatic differentiation."""
    theta = weight.clone().requires_grad_()
    return torch.autograd.grad(penalty(theta), theta)[0]


@pytest.mark.parametrize("mode, tolerance", [("exact", 1e-9), ("differences", 2e-3)])
def test_the_gradient_penalty_has_the_gradient_of_the_norm(mode, tolerance):
    weight, landscape = quartic()
    wanted = penalised(lambda t: (t**4).sum() / 4 + 0.7 * (t**3).norm(), weight)
    found = FLATNESS["GP"](rho=0.7, mode=mode, epsilon=1e-4).gradient(landscape)[0]
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode, tolerance", [("exact", 1e-9), ("differences", 5e-3)])
def test_curvature_regularisation_has_the_gradient_of_the_change(mode, tolerance):
    weight, landscape = quartic()
    along = weight**3 / (weight**3).norm()
    wanted = penalised(lambda t: (t**4).sum() / 4 + 0.7 * ((t + 0.05 * along) ** 3 - t**3).norm(), weight)
    found = FLATNESS["CR"](rho=0.7, mu=0.05, mode=mode, epsilon=1e-4).gradient(landscape)[0]
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def test_differences_near_the_exact_form_as_they_get_shorter():
    errors = []
    for epsilon in (1e-2, 1e-3):
        weight, landscape = quartic()
        exact = FLATNESS["GP"](rho=1.0, mode="exact").gradient(landscape)[0]
        errors.append((FLATNESS["GP"](rho=1.0, epsilon=epsilon).gradient(landscape)[0] - exact).norm())
    assert errors[1] < errors[0] / 5


def test_moved_weights_are_put_back_after_an_error():
    weight = torch.ones(2)
    with pytest.raises(RuntimeError), moved([weight], [torch.ones(2)], 2.0):
        assert torch.equal(weight, torch.full((2,), 3.0))
        raise RuntimeError
    assert torch.equal(weight, torch.ones(2))


def test_the_norm_is_over_all_tensors():
    assert norm([torch.tensor([3.0]), torch.tensor([[4.0]])]) == 5


def test_averaging_is_the_mean_of_the_steps_that_count():
    averaging, weight = Averaging(WA(start=2, every=3)), torch.zeros(2)
    for step in range(1, 10):
        averaging.update(step, [weight.fill_(step)])
    assert averaging.count == 3
    again = Averaging(WA(start=2, every=3))
    again.load_state_dict(averaging.state_dict())
    again.put_into([weight])
    assert torch.equal(weight, torch.full((2,), 5.0))


def test_averaging_in_float32_keeps_what_bf16_would_round_away():
    averaging = Averaging(WA(start=1, every=1))
    for step in range(1, 1001):
        averaging.update(step, [torch.full((1,), 1.0 if step % 2 else 1.0078125, dtype=torch.bfloat16)])
    assert averaging.mean[0].dtype == torch.float32
    assert averaging.mean[0].item() == pytest.approx(1.00390625, abs=1e-6)


def test_without_a_step_that_counts_the_weights_stay():
    weight = torch.ones(1)
    Averaging(WA(start=5)).put_into([weight])
    assert weight.item() == 1
