"""Models whose weights several processes share (FSDP2, ZeRO-3): copied, merged and gathered for saving."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ...core.sharding import is_sharded, reshard, shard_like, whole_state, written
from ...core.zero import gathered_zero, start_passes, stop_passes
from ...unlearn.base import add_up


def another_model(model, load: Callable[[], Any] | None = None) -> Any:
    """A second model like `model`: a copy, or loaded once more, as sharded weights must be."""
    if is_sharded(model) and load:
        return load()
    return copy.deepcopy(model)


def whole_model(model, keep: bool = True) -> Any:
    """A model to save: sharded weights gathered on the CPU, tensor by tensor, for the processes that `keep`
    it; None for the others. All processes must call. A whole model is returned as it is."""
    if not is_sharded(model):
        return model
    state = whole_state(model, keep)
    if not keep:
        return None
    config = copy.copy(model.config)
    config.distributed_config = None
    with torch.device("meta"):
        found = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    found.load_state_dict(state, assign=True)
    found.tie_weights()
    found.generation_config = model.generation_config
    return found.eval()


def merge_sharded(model) -> Any:
    """Merge adapters into sharded weights, which peft's `merge_and_unload` cannot add whole updates to."""
    from peft.tuners.lora import LoraLayer

    reshard(model)
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        weight = layer.get_base_layer().weight
        adapters = [p for name, p in layer.named_parameters() if not name.startswith("base_layer.")]
        with torch.no_grad(), gathered_zero(adapters):
            update = add_up(layer.get_delta_weight(name) for name in layer.active_adapters)
            written(weight).add_(shard_like(update.to(weight.dtype), weight))
    # Hooks of ZeRO-3 were put around the adapters too.
    plan = stop_passes(model)
    merged = model.unload()
    if plan:
        start_passes(merged, plan)
    return merged
