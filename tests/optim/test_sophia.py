"""SophiaG against the official code's numbers, and its estimate against the curvature it stands for."""

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import GOLDEN

from unlearnkit.optim import Sophia, SophiaG, drawn_nll

INPUTS = json.loads((GOLDEN / "objectives/inputs/optimizer_inputs.json").read_text())
EXPECTED = json.loads((GOLDEN / "objectives/expected/optimizers.json").read_text())["expected"]["sophia"]


def tensors(table: dict) -> list[torch.Tensor]:
    return [torch.tensor(table[name], dtype=torch.float64) for name in ("w", "b")]


def golden_optimizer(**changes):
    given = INPUTS["sophia"]
    plan = Sophia(**{key: given[key] for key in ("beta1", "beta2", "rho", "batch_tokens")} | changes)
    weights = [w.requires_grad_() for w in tensors(INPUTS["params"])]
    return weights, SophiaG(weights, given["lr"], given["weight_decay"], plan)


def test_five_steps_of_the_official_code():
    weights, optimizer = golden_optimizer()
    for step, gradients in enumerate(INPUTS["grads"]):
        if str(step) in INPUTS["hessian_grads"]:
            optimizer.update_curvature(weights, tensors(INPUTS["hessian_grads"][str(step)]), tokens=1)
        for weight, gradient in zip(weights, tensors(gradients)):
            weight.grad = gradient
        optimizer.step()
        states = {
            "param": weights,
            "momentum": [optimizer.state[w]["m"] for w in weights],
            "hessian": [optimizer.state[w]["h"] for w in weights],
        }
        for name, ours in states.items():
            for mine, theirs in zip(ours, tensors(EXPECTED[step][name])):
                torch.testing.assert_close(mine.detach(), theirs, rtol=1e-9, atol=1e-12)


def test_without_curvature_every_step_is_a_sign_step():
    weights, optimizer = golden_optimizer(hessian="none")
    before = [w.detach().clone() for w in weights]
    for weight, gradient in zip(weights, tensors(INPUTS["grads"][0])):
        weight.grad = gradient
    optimizer.step()
    given = INPUTS["sophia"]
    for weight, old in zip(weights, before):
        wanted = old * (1 - given["lr"] * given["weight_decay"]) - given["lr"] * weight.grad.sign()
        torch.testing.assert_close(weight.detach(), wanted)


def test_the_gradient_enters_its_mean_once_or_as_often_as_set():
    for updates, kept in ((1, 0.9), (2, 0.81)):
        weight = torch.ones(3, requires_grad=True)
        optimizer = SophiaG([weight], 0.0, plan=Sophia(hessian="none", momentum_updates=updates))
        for _ in range(3):
            weight.grad = torch.ones(3)
            optimizer.step()
        torch.testing.assert_close(optimizer.state[weight]["m"], torch.full((3,), 1 - kept**3))


def test_the_squared_gradient_is_taken_at_every_step_when_set():
    weight = torch.ones(2, requires_grad=True)
    optimizer = SophiaG([weight], 0.0, plan=Sophia(hessian="squared_grad", beta2=0.5))
    weight.grad = torch.tensor([1.0, 2.0])
    optimizer.step()
    torch.testing.assert_close(optimizer.state[weight]["h"], torch.tensor([0.5, 2.0]))


def test_moments_are_float32_for_bf16_weights():
    weight = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    optimizer = SophiaG([weight], 1e-2)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert {moment.dtype for moment in optimizer.state[weight].values()} == {torch.float32}


def test_drawn_labels_estimate_the_fisher_diagonal():
    """For softmax logits z themselves, E[n g²] with g the gradient of the mean NLL over n drawn labels is the
    mean diagonal of diag(p) - p p^T."""
    scores = torch.tensor([[0.5, -1.0, 2.0, 0.0]]).repeat(64, 1)
    bias = torch.zeros(4, requires_grad=True)
    generator, squares, draws = torch.Generator().manual_seed(0), torch.zeros(4), 400
    for _ in range(draws):
        nll = drawn_nll(scores + bias, generator) / len(scores)
        squares += len(scores) * torch.autograd.grad(nll, bias)[0] ** 2 / draws
    p = F.softmax(scores[0], dim=-1)
    torch.testing.assert_close(squares, p * (1 - p), rtol=0.2, atol=0.01)


def test_no_coordinate_moves_further_than_the_learning_rate():
    torch.manual_seed(0)
    weight = torch.randn(100, requires_grad=True)
    optimizer = SophiaG([weight], 0.01)
    for _ in range(5):
        optimizer.update_curvature([weight], [torch.randn(100)], 10)
        weight.grad, before = torch.randn(100), weight.detach().clone()
        optimizer.step()
        assert (weight - before).abs().max() <= 0.01 + 1e-7
    ratio = optimizer.state[weight]["m"].abs() / (0.04 * 10 * optimizer.state[weight]["h"])
    assert (ratio > 1).any()
    assert (ratio < 1).any()


def test_moments_of_bf16_weights_survive_in_float32():
    weight = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    optimizer, again = SophiaG([weight], 0.1), SophiaG([weight], 0.1)
    optimizer.update_curvature([weight], [torch.full((3,), 1.2345)], 7)
    again.load_state_dict(optimizer.state_dict())
    assert again.state[weight]["h"].dtype == torch.float32
    assert torch.equal(again.state[weight]["h"], optimizer.state[weight]["h"])


def test_h_survives_its_state_dict():
    weight = torch.ones(3, requires_grad=True)
    optimizer = SophiaG([weight], 0.1)
    optimizer.update_curvature([weight], [torch.full((3,), 2.0)], 7)
    again = SophiaG([weight], 0.1)
    again.load_state_dict(optimizer.state_dict())
    torch.testing.assert_close(again.state[weight]["h"], optimizer.state[weight]["h"])
    assert again.param_groups[0]["batch_tokens"] == 7
    with pytest.raises(KeyError):
        SophiaG([weight], 0.1).state[weight]["h"]
