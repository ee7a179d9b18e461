"""What the settings of a training come to: clipping, weight decay, learning rate."""

import pytest
import torch
from tiny import few_steps

from unlearnkit.model.run.training import denormals_as_zero
from unlearnkit.optim.sharpness import norm


def test_the_gradient_is_clipped_to_the_norm_that_was_set(tiny_model, tokenizer, tmp_path):
    seen = few_steps(
        tiny_model,
        tokenizer,
        tmp_path,
        unlearn__unlearn_method="FT",
        unlearn__max_grad_norm=0.01,
        unlearn__max_steps=1,
    )
    assert seen.records[0]["grad_norm"] > 0.1
    assert norm(seen.gradients[0]).item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    "optimizer, options", [("AdamW", {}), ("Sophia", {"unlearn__optim__Sophia__hessian": "none"})]
)
def test_matrices_decay_beside_the_first_step_and_norms_do_not(
    optimizer, options, tiny_model, tokenizer, tmp_path
):
    """The first step of AdamW is lr g / (|g| + eps), that of Sophia without curvature lr sign(g)."""
    seen = few_steps(
        tiny_model,
        tokenizer,
        tmp_path,
        unlearn__unlearn_method="FT",
        unlearn__optimizer=optimizer,
        unlearn__weight_decay=20,
        unlearn__max_steps=1,
        **options,
    )
    eps = 1e-8 if optimizer == "AdamW" else 1e-30
    for (g,), (before, after) in zip(zip(*seen.gradients), zip(*seen.weights)):
        decayed = before * (1 - 1e-3 * 20 * (before.dim() > 1))
        torch.testing.assert_close(after, decayed - 1e-3 * g / (g.abs() + eps), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "scheduler, warmup, shares",
    [
        ("linear", 0, [1, 3 / 4, 1 / 2, 1 / 4]),
        ("linear", 0.5, [0, 1 / 2, 1, 1 / 2]),
        ("cosine", 0, [1, (2 + 2**0.5) / 4, 1 / 2, (2 - 2**0.5) / 4]),
        ("constant", 0, [1, 1, 1, 1]),
        ("constant", 0.5, [0, 1 / 2, 1, 1]),
    ],
)
def test_the_learning_rate_rises_in_the_warmup_and_falls_to_the_end(
    scheduler, warmup, shares, tiny_model, tokenizer, tmp_path
):
    seen = few_steps(
        tiny_model,
        tokenizer,
        tmp_path,
        unlearn__unlearn_method="FT",
        unlearn__scheduler=scheduler,
        unlearn__warmup_ratio=warmup,
        unlearn__max_steps=4,
    )
    assert seen.rates == pytest.approx([1e-3 * share for share in shares])


def test_numbers_too_small_for_full_precision_are_zero_while_training_alone():
    tiny = lambda: float(torch.tensor([1e-30]) * torch.tensor([1e-10]))
    before = tiny()
    with denormals_as_zero():
        assert tiny() == 0
    assert tiny() == before > 0
