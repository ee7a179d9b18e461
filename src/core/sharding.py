"""Weights of which every process holds a part: FSDP2, by `torch.distributed.fsdp.fully_shard`, or DeepSpeed's
ZeRO-3 (see `zero`), which trains but does no work in weight space.

A sharded weight of FSDP2 is a DTensor. Work in weight space (masks, combiners, optimizers) runs on the parts
as on whole tensors, element by element. A sum over elements is a sum over processes too, and `item()` of a
DTensor gives the part of one process without a word: every such number goes through `whole`.

Each forward pass gathers weights, so all processes must make the same passes in the same order. Training
does; for work in which each process has passes of its own there is `lockstep`.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from .zero import has_zero_parts, is_zero_part, part_like, whole_zero


def is_part(tensor: Any) -> bool:
    """Is it a tensor of FSDP2, of which each process has a part?"""
    # Loading DTensor takes a second, which a run of one process need not wait for: where there is one, it is
    # loaded.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def fsdp_modules(model: Module) -> list[Any]:
    """The modules whose weights are gathered together; none of a whole model."""
    module = sys.modules.get("torch.distributed.fsdp")
    return [found for found in model.modules() if module and isinstance(found, module.FSDPModule)]


def is_sharded(model: Module) -> bool:
    return bool(fsdp_modules(model)) or has_zero_parts(model)


def weight_mb(model: Module) -> float:
    """Memory of the weights that this process holds between passes, MB."""
    return sum(local(p).numel() * p.element_size() for p in model.parameters()) / 2**20


def whole(tensor: Any) -> Tensor:
    """The values of a tensor of which each process has a part, on every process; all must call. Any other
    tensor as it is."""
    if is_zero_part(tensor):
        return whole_zero(tensor)
    return tensor.full_tensor() if is_part(tensor) else tensor


def local(tensor: Any) -> Tensor:
    """The part of this process; any other tensor as it is."""
    if is_zero_part(tensor):
        return tensor.ds_tensor
    return tensor.to_local() if is_part(tensor) else tensor


def shard_like(values: Tensor, weight: Any) -> Tensor:
    """The part of this process in whole `values`, laid out as `weight` is; nothing is sent. Of a whole weight
    the values as they are."""
    if is_zero_part(weight):
        return part_like(values, weight)
    if not is_part(weight):
        return values
    from torch.distributed.tensor import DTensor

    part = values.to(weight.device)
    for dim, placement in enumerate(weight.placements):
        if placement.is_shard():
            size, rank = weight.device_mesh.size(dim), weight.device_mesh.get_local_rank(dim)
            pieces = part.chunk(size, placement.dim)
            empty = part.narrow(placement.dim, 0, 0)
            part = pieces[rank] if rank < len(pieces) else empty
    return DTensor.from_local(
        part.contiguous(),
        weight.device_mesh,
        weight.placements,
        run_check=False,
        shape=weight.shape,
        stride=weight.stride(),
    )


@torch.no_grad()
def assign(weight: Tensor, values: Tensor) -> None:
    """Give a weight, sharded or whole, the whole `values`."""
    written(weight).copy_(shard_like(values.to(weight.device, weight.dtype), weight))


def gathered(tree: Any, keep: bool = True) -> Any:
    """A tree of dicts and lists with every sharded tensor whole and on the CPU, tensor by tensor; all
    processes must call. Those that do not `keep` them get empty ones."""
    if isinstance(tree, dict):
        return {key: gathered(value, keep) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(gathered(value, keep) for value in tree)
    if not is_part(tree) and not is_zero_part(tree):
        return tree
    values = whole(tree).detach()
    return values.cpu() if keep else values.new_empty(0)


def whole_state(model: Module, keep: bool = True) -> dict[str, Tensor]:
    """`state_dict` of a model with whole tensors; empty for processes that do not `keep` it."""
    # Parts of ZeRO-3 are known by their parameters alone.
    state = gathered(dict(model.state_dict(keep_vars=True)), keep)
    return state if keep else {}


def reshard(model: Module) -> None:
    """Drop gathered weights, after sharded ones were changed in place: the next pass gathers them anew."""
    for module in fsdp_modules(model):
        module.reshard()


@contextlib.contextmanager
def lockstep(model: Any) -> Iterator[None]:
    """A block in which each process makes forward passes of its own through `model`, any number of them.

    A process that is done makes empty passes until the last one is done too. Within the block processes must
    not communicate otherwise. It does nothing for a whole model."""
    if model is None or not is_sharded(model):
        yield
        return

    device = local(next(model.parameters())).device

    def announce(*_) -> None:
        any_process(True, device)

    # First: the hook that gathers the model's own weights must find all processes at the same pass.
    handle = model.register_forward_pre_hook(announce, prepend=True)
    try:
        yield
    finally:
        handle.remove()
        token = torch.zeros(1, 1, dtype=torch.long, device=device)
        while any_process(False, device):
            with torch.no_grad():
                model(input_ids=token, use_cache=False)
        reshard(model)


def any_process(here: bool, device: torch.device | str) -> bool:
    """Is it so in any process? All must call; of one process, its own answer."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return here
    flag = torch.tensor(float(here), device=device)
    torch.distributed.all_reduce(flag)
    return flag.item() > 0


@contextlib.contextmanager
def exchanged(model: Module, weights: Iterable[tuple[Parameter, Tensor]]) -> Iterator[None]:
    """Give parameters of a model other values for the duration of the context, laid out as they are.

    Whole parameters point to the other values; sharded ones are overwritten and restored, since what is
    gathered is their own memory."""
    pairs = list(weights)
    sharded = any(is_part(p) or is_zero_part(p) for p, _ in pairs)
    swap = _overwrite if sharded else _point_to
    live = swap(pairs)
    _forget_copies(model, sharded)
    try:
        yield
    finally:
        swap([(p, values) for (p, _), values in zip(pairs, live)])
        _forget_copies(model, sharded)


def _point_to(pairs: list[tuple[Parameter, Tensor]]) -> list[Tensor]:
    live = [p.data for p, _ in pairs]
    for p, values in pairs:
        p.data = values
    return live


@torch.no_grad()
def _overwrite(pairs: list[tuple[Parameter, Tensor]]) -> list[Tensor]:
    live = [own_values(p) for p, _ in pairs]
    for p, values in pairs:
        written(p).copy_(values)
    return live


def own_values(weight: Any) -> Tensor:
    """A copy of a weight, or of its part, for `exchanged`."""
    return written(weight).detach().clone()


def written(weight: Any) -> Tensor:
    """The tensor to write to: of a part of ZeRO-3, what lies behind the empty parameter."""
    return weight.ds_tensor if is_zero_part(weight) else weight


def whole_shape(weight: Any) -> torch.Size:
    return weight.ds_shape if is_zero_part(weight) else weight.shape


def _forget_copies(model: Module, sharded: bool) -> None:
    # Autocast caches the bf16 copy of a weight by parameter.
    torch.clear_autocast_cache()
    if sharded:
        reshard(model)
