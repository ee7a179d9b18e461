"""DeepSpeed's engine under the Trainer.

The Trainer decides when a step ends and what its loss is divided by; DeepSpeed is told so for every backward,
and neither counts micro-batches nor scales anything. Its optimizer clips and steps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from ...core.sharding import shard_like
from ...core.zero import ZeroPlan, import_deepspeed, stop_passes

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state of a weight, beside the count of its steps."""


class ZeroEngine:
    """A model whose gradients and optimizer state, and at stage 3 weights, are shared over processes.

    Args:
        model: the model, whole (stage 2) or in parts (stage 3).
        optimizer: AdamW of its trained weights, which DeepSpeed takes over.
        plan: what is shared.
        max_grad_norm: the norm to which a step's gradient is clipped; 0 for none.
    """

    def __init__(self, model: Module, optimizer: Optimizer, plan: ZeroPlan, max_grad_norm: float):
        stop_passes(model)
        device = next(model.parameters()).device.type
        self.deepspeed: Any
        self.deepspeed, *_ = import_deepspeed(device).initialize(
            model=model, optimizer=optimizer, config=plan.config(max_grad_norm)
        )
        self.stage = plan.stage

    @property
    def _zero(self) -> Any:
        return self.deepspeed.optimizer

    def backward(self, loss: Tensor, ends_step: bool) -> None:
        """Add the gradient of a loss, the mean over processes, to the step's sum."""
        self.deepspeed.set_gradient_accumulation_boundary(ends_step)
        self._zero.clear_backward_seen_flag()
        # DeepSpeed hooks this to the output of its own forward pass, which ends autocast, and which losses of
        # several passes, or of a part of one, do not go through.
        handle = loss.register_hook(lambda _: self.deepspeed._backward_prologue())
        self.deepspeed.backward(loss, scale_wrt_gas=False)
        handle.remove()

    def hand_over(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        """End a step with whole gradients, the same on every process, added to its sum. Pairs of a weight and
        its gradient."""
        # The gradient of this product is the gradient itself, and goes the way of every other.
        self.backward(torch.stack([(weight * gradient).sum() for weight, gradient in pairs]).sum(), True)

    def norm(self) -> Tensor:
        """The norm of the step's gradient before it is clipped; not a number where it is not finite."""
        from deepspeed.runtime.utils import combine_grad_norm_groups  # pyright: ignore[reportMissingImports]

        if self.stage == 2:
            return torch.as_tensor(self._zero.scaled_global_norm())
        return torch.as_tensor(combine_grad_norm_groups(self._zero._get_norm_groups()))

    def step(self) -> None:
        self.deepspeed.step()

    def whole_states(self, weights: Sequence[Any]) -> list[dict[str, Tensor]]:
        """AdamW's whole state of each weight, on the CPU; none before the first step. All processes must
        call."""
        from deepspeed.utils import safe_get_full_optimizer_state  # pyright: ignore[reportMissingImports]

        if not (held := self._zero.optimizer.state):
            return []
        self._link_states()
        step = next(iter(held.values()))["step"].cpu()
        return [
            {
                "step": step.clone(),
                **{key: safe_get_full_optimizer_state(weight, key).cpu() for key in MOMENTS},
            }
            for weight in weights
        ]

    def load_states(self, weights: Sequence[Any], states: Sequence[dict[str, Tensor]]) -> None:
        """Take over AdamW's whole states."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state  # pyright: ignore[reportMissingImports]

        optimizer = self._zero.optimizer
        for flat in self._flat_parts():
            step = states[0]["step"].to(flat.device, torch.float32).clone()
            optimizer.state[flat] = {"step": step, **{key: torch.zeros_like(flat) for key in MOMENTS}}
        self._link_states()
        for weight, state in zip(weights, states):
            for key in MOMENTS:
                if self.stage == 3:
                    safe_set_local_optimizer_state(weight, shard_like(state[key], weight), key)
                else:
                    safe_set_full_optimizer_state(weight, state[key].to(weight.device), key)

    def _link_states(self) -> None:
        """Let DeepSpeed find the states of single weights in its flat parts (stage 2)."""
        # It does so once, after the step of its first group of weights, when the others have no state yet.
        if self.stage == 2:
            self._zero._hp_optimizer_states_linked = False
            self._zero._lazy_init_hp_params_optimizer_state()

    def _flat_parts(self) -> list[Tensor]:
        """The parts of weights that the optimizer of this process steps."""
        zero = self._zero
        return zero.single_partition_of_fp32_groups if self.stage == 2 else zero.fp32_partitioned_groups_flat

    def end(self) -> None:
        """Release gradients and optimizer state; the model stays as it is."""
        self.deepspeed.destroy()


class ZeroOptimizer(Optimizer):
    """What the Trainer steps, schedules and saves: an AdamW of whole weights and states, while the one inside
    DeepSpeed holds flat parts. Made before the engine takes the weights out of `inner`."""

    def __init__(self, inner: Optimizer):
        self.inner = inner
        self.engine: ZeroEngine | None = None
        super().__init__([dict(group) for group in inner.param_groups], {})

    def step(self, closure=None):
        assert self.engine
        for ours, theirs in zip(self.param_groups, self.inner.param_groups):
            theirs["lr"] = ours["lr"]
        self.engine.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """A step of DeepSpeed has done so."""

    def state_dict(self) -> dict[str, Any]:
        """The state of an AdamW of whole weights; all processes must call."""
        state = super().state_dict()
        if self.engine and (found := self.engine.whole_states(self._weights())):
            state["state"] = dict(enumerate(found))
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of an AdamW of whole weights."""
        super().load_state_dict(state_dict | {"state": {}})
        if self.engine and state_dict["state"]:
            numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
            self.engine.load_states(self._weights(), [state_dict["state"][n] for n in numbers])

    def _weights(self) -> list[Any]:
        return [weight for group in self.param_groups for weight in group["params"]]
