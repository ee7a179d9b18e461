"""Sophia, an optimizer whose step is clipped by a diagonal estimate of the curvature (Liu et al.,
arXiv:2305.14342)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from ..core.options import knob
from .adamw import OPTIMIZERS


@OPTIMIZERS.register("Sophia", "SophiaG")
@dataclass(frozen=True)
class Sophia:
    """SophiaG (arXiv:2305.14342) with a Gauss-Newton-Bartlett estimate: labels drawn from the model itself,
    every `every` steps, from the first step on. (Without an estimate every step is a sign step: the WAGLE
    family's published state.)

    Formula: θ <- θ - lr sign(m) min(|m| / (ρ n h), 1), h = mean of ĝ², ĝ = ∇NLL(labels drawn from the model),
    n tokens
    Cost: two copies of the trained weights; one more forward and backward every `every` steps."""

    beta1: float = knob(0.9, "decay of the gradient", at_least=0, below=1)
    beta2: float = knob(0.95, "decay of the curvature", at_least=0, below=1)
    rho: float = knob(0.04, "how soon a step is clipped", above=0)
    every: int = knob(10, "optimizer steps between estimates", at_least=1)
    on: str = knob(
        "retain",
        "whose curvature: of the retain rows, the forget rows or both",
        choices=("retain", "forget", "both"),
    )
    hessian: str = knob(
        "gnb",
        "gnb: the estimate; squared_grad: the squared gradient of every step (SOUL's code); none: 0, every "
        "step a sign step (WAGLE's code)",
        choices=("gnb", "squared_grad", "none"),
    )
    momentum_updates: int = knob(
        1, "times the gradient enters its mean in a step (2 is SOUL's code)", at_least=1, at_most=2
    )
    batch_tokens: int = knob(
        0, "n of the formula; 0 is the tokens of the estimate (5120 is the WAGLE family's code)", at_least=0
    )

    def parts(self) -> tuple[str, ...]:
        """Batch parts of a curvature estimate."""
        return ("forget", "retain") if self.on == "both" else (self.on,)


class SophiaG(Optimizer):
    """Sophia's update rule, with m and h in float32 or wider.

    m <- b1 m + (1 - b1) g;  w <- (1 - lr decay) w - lr sign(m) min(|m| / (rho n h), 1).
    h is 0 before the first `update_curvature`, which makes every step a sign step.

    Args:
        params: Trained weights, or parameter groups.
        lr: Learning rate.
        weight_decay: Decoupled weight decay.
        plan: Constants of the rule.
    """

    def __init__(self, params: Iterable, lr: float, weight_decay: float = 0.0, plan: Sophia = Sophia()):
        super().__init__(
            params, {"lr": lr, "weight_decay": weight_decay, "batch_tokens": plan.batch_tokens or 1}
        )
        self.plan = plan

    @torch.no_grad()
    def update_curvature(self, weights: Iterable[Tensor], gradients: Iterable[Tensor], tokens: int) -> None:
        """Add an estimate of the curvature: h <- b2 h + (1 - b2) g².

        Args:
            weights: Trained weights.
            gradients: For each weight, the gradient of the mean NLL of labels drawn from the model.
            tokens: Number of these labels, n of the update rule.
        """
        for weight, gradient in zip(weights, gradients):
            h = self._state(weight)["h"]
            h.mul_(self.plan.beta2).add_(gradient.to(h.dtype) ** 2, alpha=1 - self.plan.beta2)
        for group in self.param_groups:
            group["batch_tokens"] = self.plan.batch_tokens or tokens

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure else None
        if self.plan.hessian == "squared_grad":
            trained = [w for group in self.param_groups for w in group["params"] if w.grad is not None]
            self.update_curvature(trained, [w.grad for w in trained], 1)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step(weight, weight.grad, group)
        return loss

    def _step(self, weight: Tensor, gradient: Tensor, group: dict) -> None:
        state = self._state(weight)
        m, h = state["m"], state["h"]
        for _ in range(self.plan.momentum_updates):
            m.lerp_(gradient.to(m.dtype), 1 - self.plan.beta1)
        # 1e-15 as in Sophia's code: 0 / 0 for weights without gradient would be NaN.
        ratio = (m.abs() / (self.plan.rho * group["batch_tokens"] * h + 1e-15)).clamp_(max=1)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_((m.sign() * ratio).to(weight.dtype), alpha=-group["lr"])

    def load_state_dict(self, state_dict: dict) -> None:
        """As PyTorch's, with m and h in the precision they were saved in."""
        # PyTorch casts the state to the dtype of the weights, which may be bfloat16.
        super().load_state_dict(state_dict)
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for number, weight in zip(numbers, weights):
            if number in state_dict["state"]:
                self.state[weight] = {
                    key: value.to(weight.device).clone() for key, value in state_dict["state"][number].items()
                }

    def _state(self, weight: Tensor) -> dict[str, Tensor]:
        """m and h of a weight, initially 0."""
        state = self.state[weight]
        if not state:
            kind = torch.float64 if weight.dtype == torch.float64 else torch.float32
            state["m"], state["h"] = (torch.zeros_like(weight, dtype=kind) for _ in range(2))
        return state


def drawn_nll(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Summed NLL of labels drawn from the model's own distribution (Gauss-Newton-Bartlett estimate).

    Args:
        scores: Logits, [N, V].
        generator: Generator on the CPU.

    Returns:
        A scalar; gradients flow through the likelihood alone, not through the draw.
    """
    # Drawn on the CPU, so that a seed gives the same labels on every device.
    labels = torch.multinomial(F.softmax(scores.detach().float(), dim=-1).cpu(), 1, generator=generator)[:, 0]
    return F.cross_entropy(scores.float(), labels.to(scores.device), reduction="sum")
