"""What one optimizer step is made of: loss, sides under a mask, curvature, and the mean of the weights."""

import pytest
import torch
import torch.nn.functional as F
from tiny import few_steps, random_llama

from unlearnkit.optim import FLATNESS, Landscape
from unlearnkit.optim.sharpness import norm, unit
from unlearnkit.unlearn.mask import WeightMask
from unlearnkit.unlearn.scoring import answer_logits, answer_nll


@pytest.fixture
def start(tokenizer):
    """The tiny model as it is before the step."""
    return random_llama(tokenizer)


@pytest.fixture
def mask(tiny_model):
    return WeightMask(
        {name: torch.rand(p.shape) < 0.5 for name, p in tiny_model.named_parameters()}, tiny_model
    )


def gradient(loss, model) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def close(ours, theirs) -> None:
    """Equal within a thousandth of their length."""
    assert norm([a - b for a, b in zip(ours, theirs)]) < 1e-3 * norm(theirs)


def test_the_loss_is_the_sum_of_the_sides_by_their_weights(start, tiny_model, tokenizer, tmp_path):
    seen = few_steps(
        tiny_model,
        tokenizer,
        tmp_path,
        unlearn__unlearn_method="GA+FT",
        unlearn__forget_weight=0.3,
        unlearn__gamma=2,
        unlearn__max_grad_norm=0,
        unlearn__max_steps=1,
    )
    forget, retain = (answer_nll(start, part).mean() for part in seen.parts.values())
    wanted = 2 * retain - 0.3 * forget
    assert seen.records[0]["loss"] == pytest.approx(wanted.item(), rel=1e-5)
    close(seen.gradients[0], gradient(wanted, start))


def test_the_sides_are_masked_before_they_are_combined(start, tiny_model, mask, tokenizer, tmp_path):
    """A side at length 1 is another one when frozen weights count to its length."""
    seen = few_steps(
        tiny_model,
        tokenizer,
        tmp_path,
        mask,
        unlearn__unlearn_method="GA+FT",
        unlearn__combiner="ngdiff",
        unlearn__max_grad_norm=0,
        unlearn__max_steps=1,
    )
    weights = list(tiny_model.parameters())
    forget, retain = (
        unit(mask.apply(weights, gradient(answer_nll(start, part).mean(), start)))
        for part in seen.parts.values()
    )
    close(seen.gradients[0], [r - f for f, r in zip(forget, retain)])


@pytest.mark.parametrize("name, rho", [("SAM", 1.0), ("RS", 0.1)])
def test_a_flatness_wrapper_moves_selected_weights_only(
    name, rho, start, tiny_model, mask, tokenizer, tmp_path
):
    seen = few_steps(
        tiny_model,
        tokenizer,
        tmp_path,
        mask,
        unlearn__unlearn_method="GA",
        unlearn__flatness=name,
        unlearn__max_grad_norm=0,
        unlearn__max_steps=1,
        **{f"unlearn__flat__{name}__rho": rho},
    )
    restrict = lambda vector: mask.apply(list(tiny_model.parameters()), vector)
    masked = lambda: restrict(gradient(-answer_nll(start, seen.parts["forget"]).mean(), start))
    landscape = Landscape(list(start.parameters()), masked, lambda g: g, lambda v: v, restrict, 0, 0)
    close(seen.gradients[0], FLATNESS[name](rho=rho).gradient(landscape))


def test_curvature_is_the_squared_gradient_of_the_mean_loss(
    start, tiny_model, tokenizer, tmp_path, monkeypatch
):
    """Of labels that are not drawn here, so that it can be computed again; over all tokens of a step of two
    micro-batches."""
    likeliest = lambda scores, generator=None: F.cross_entropy(scores, scores.argmax(-1), reduction="sum")
    monkeypatch.setattr("unlearnkit.unlearn.step.trainer.drawn_nll", likeliest)
    seen = few_steps(
        tiny_model,
        tokenizer,
        tmp_path,
        unlearn__unlearn_method="GA+FT",
        unlearn__optimizer="Sophia",
        unlearn__gradient_accumulation_steps=2,
        unlearn__max_steps=1,
        dataset__batch_size=2,
    )
    scores = answer_logits(start, seen.parts["retain"])
    g = gradient(likeliest(scores) / len(scores), start)
    close([seen.optimizer.state[p]["h"] for p in tiny_model.parameters()], [(1 - 0.95) * x**2 for x in g])
    assert seen.optimizer.param_groups[0]["batch_tokens"] == len(scores)


def test_the_trained_model_is_the_mean_of_the_weights_that_count(tiny_model, tokenizer, tmp_path):
    seen = few_steps(
        tiny_model,
        tokenizer,
        tmp_path,
        unlearn__unlearn_method="GA+FT+WA",
        unlearn__flat__WA__start=2,
        unlearn__flat__WA__every=1,
        unlearn__max_steps=3,
    )
    for weight, second, third in zip(tiny_model.parameters(), *seen.weights[2:]):
        assert not torch.equal(second, third)
        torch.testing.assert_close(weight.detach(), (second + third) / 2)
