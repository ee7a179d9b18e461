"""Step checkpoints of sharded weights, which hold whole tensors: the same files as those of one process."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open
from torch.nn import Module
from torch.optim import Optimizer
from transformers import TrainingArguments

from ...core.sharding import assign, gathered, reshard, shard_like


@contextlib.contextmanager
def saving_allowed(args: TrainingArguments) -> Iterator[None]:
    """Let a Trainer be made that saves step checkpoints of a sharded model."""
    # It refuses, since it would save the optimizer's state of one process; `keep_whole_state` gives that of
    # all.
    asked, args.save_only_model = args.save_only_model, True
    try:
        yield
    finally:
        args.save_only_model = asked


def keep_whole_state(optimizer: Optimizer) -> None:
    """Let `state_dict` give whole tensors, which all processes must call for, and `load_state_dict` take
    them."""
    optimizer.register_state_dict_post_hook(lambda _, state: gathered(state))
    optimizer.register_load_state_dict_pre_hook(_laid_out)


def _laid_out(optimizer: Optimizer, state: dict) -> dict:
    """The state of an optimizer with every tensor of a weight's shape laid out as the weight."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    held = {
        number: {
            name: shard_like(value, weight) if getattr(value, "shape", None) == weight.shape else value
            for name, value in state["state"][number].items()
        }
        for number, weight in zip(numbers, weights)
        if number in state["state"]
    }
    return state | {"state": held}


def load_whole_weights(model: Module, checkpoint: Path) -> None:
    """Give a sharded model the whole weights of a step checkpoint, tensor by tensor."""
    weights = dict(model.named_parameters())
    for file in sorted(checkpoint.glob("model*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dict
                assign(weights[name], tensors.get_tensor(name))
    reshard(model)
