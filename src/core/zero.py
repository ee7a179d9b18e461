"""DeepSpeed's ZeRO: what a run asks of it, and weights of which each process holds a part (stage 3).

Stage 2 shares gradients and optimizer state, and leaves weights whole. Stage 3 shares weights too: such a
parameter is empty between passes (`ds_tensor` is this process's part, `ds_shape` its shape), and hooks of an
engine gather it for each pass. A model that is not being trained has an engine without an optimizer for
that."""

import contextlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from .files import UserError

PASSES = "zero_passes"
"""Attribute of a module: the engine whose hooks gather its weights while it is not trained."""


@dataclass(frozen=True)
class ZeroPlan:
    """What DeepSpeed shares over processes.

    Args:
        stage: 2 (gradients, optimizer state) or 3 (weights too).
        offload_optimizer: optimizer state stays in CPU memory, and is updated there.
        offload_weights: parts of weights stay in CPU memory (stage 3).
    """

    stage: int
    offload_optimizer: bool = False
    offload_weights: bool = False

    def config(self, max_grad_norm: float = 0.0) -> dict[str, Any]:
        """DeepSpeed's config."""
        zero: dict[str, Any] = {"stage": self.stage}
        if self.stage == 3:
            # DeepSpeed keeps weights below this size whole; here every weight is shared.
            zero["stage3_param_persistence_threshold"] = 0
        if self.offload_optimizer:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        if self.offload_weights:
            zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        return {
            # The trainer divides losses and decides when a step ends; DeepSpeed counts nothing.
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": max_grad_norm,
            "zero_optimization": zero,
            # Its own AdamW for the CPU would be compiled at the start, and rounds differently.
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": None,
        }


def is_installed() -> bool:
    return importlib.util.find_spec("deepspeed") is not None


def import_deepspeed(device: str) -> Any:
    """The library, for this kind of device and with the process group that there is."""
    if not is_installed():
        raise UserError("overall.engine: DeepSpeed is not installed; pip install 'unlearnkit[deepspeed]'")
    if device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed  # pyright: ignore[reportMissingImports]

    deepspeed.init_distributed(dist_backend="gloo" if device == "cpu" else "nccl")
    return deepspeed


def is_zero_part(tensor: Any) -> bool:
    """Is it a parameter of which each process holds a part?"""
    return hasattr(tensor, "ds_tensor")


def has_zero_parts(model: Module) -> bool:
    return any(map(is_zero_part, model.parameters()))


@contextlib.contextmanager
def loading_in_parts(plan: ZeroPlan) -> Iterator[None]:
    """A block in which transformers loads a model in parts: no process ever holds it whole."""
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    # transformers asks this object, of which it keeps a weak reference, in many places; models that are
    # loaded later are whole.
    config = HfDeepSpeedConfig(plan.config())
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del config


def start_passes(model: Module, plan: ZeroPlan) -> None:
    """Let a model in parts be called: its weights are gathered block by block."""
    device = next(model.parameters()).device.type
    engine, *_ = import_deepspeed(device).initialize(model=model, config=plan.config())
    model.__dict__[PASSES] = (engine, plan)


def stop_passes(model: Module) -> ZeroPlan | None:
    """Remove what `start_passes` put into a model, whatever wraps it now; the plan that it was given."""
    plan = None
    for module in model.modules():
        if found := module.__dict__.pop(PASSES, None):
            engine, plan = found
            engine.destroy()
    return plan


def gathered_zero(parameters: Iterable[Any]) -> contextlib.AbstractContextManager:
    """A context in which parameters in parts are whole, to be read; it does nothing for others. All processes
    must enter."""
    if not (held := [parameter for parameter in parameters if is_zero_part(parameter)]):
        return contextlib.nullcontext()
    import deepspeed  # pyright: ignore[reportMissingImports]

    return deepspeed.zero.GatheredParameters(held)


def whole_zero(parameter: Any) -> Tensor:
    """A copy of the whole values of a parameter in parts; all processes must call."""
    with gathered_zero([parameter]):
        return parameter.detach().clone()


def part_like(values: Tensor, parameter: Any) -> Tensor:
    """This process's part of whole `values`, laid out as the parameter is: flat, the last part filled up with
    zeros."""
    part = parameter.ds_tensor
    start = torch.distributed.get_rank() * part.numel()
    own = values.reshape(-1)[start : start + part.numel()].to(part.device, part.dtype)
    return torch.nn.functional.pad(own, (0, part.numel() - own.numel()))
