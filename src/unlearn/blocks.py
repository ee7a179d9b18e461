"""The decoder blocks of a model: found, counted, and a forward pass that ends at one of them."""

import contextlib
from collections.abc import Iterator

from torch import Tensor
from torch.nn import Module, ModuleList

from ..core.files import UserError
from ..core.sparse_logits import keeps_logits
from .base import Part
from .scoring import without_dropout


def blocks(model) -> ModuleList:
    """The decoder blocks of a causal language model, under whatever wrappers (DDP, LoRA) it has."""
    owner, name = _home_of_blocks(model)
    return getattr(owner, name)


def _home_of_blocks(model) -> tuple[Module, str]:
    """The module that holds the list of blocks, and under which name."""
    for owner in model.modules():
        for name, child in owner.named_children():
            if isinstance(child, ModuleList) and len(child) > 0:
                return owner, name
    raise UserError("cannot find the decoder blocks of this model: it has no list of blocks")


def check_layer(model, layer: int, key: str) -> None:
    """UserError naming `key` when the model has no block of that number."""
    if layer >= len(blocks(model)):
        raise UserError(
            f"{key} {layer} does not exist: the model has {len(blocks(model))} blocks, counted from 0"
        )


def block_numbers(model) -> dict[str, int]:
    """Parameter name -> number of the decoder block it belongs to, for those that belong to one."""
    found = blocks(model)
    home = next(name for name, module in model.named_modules() if module is found)
    names = [name for name, _ in model.named_parameters() if name.startswith(f"{home}.")]
    return {name: int(name.removeprefix(f"{home}.").partition(".")[0]) for name in names}


@contextlib.contextmanager
def first_blocks(model, count: int) -> Iterator[Module]:
    """The model with its first `count` blocks alone, whole again afterwards; yields the last of them."""
    owner, name = _home_of_blocks(model)
    whole = getattr(owner, name)
    setattr(owner, name, whole[:count])
    try:
        yield whole[count - 1]
    finally:
        setattr(owner, name, whole)


def hidden(model, part: Part, layer: int) -> Tensor:
    """Output of block `layer` on a part, [B, T, D], from a forward pass that ends there: no later block runs,
    and the language-model head at one place only.

    The pass goes through `model` itself, so that a distributed wrapper sees it, and has no dropout: what is
    matched or steered are the activations that the model will have when it is used."""
    check_layer(model, layer, "layer")
    shortest = {"logits_to_keep": 1} if keeps_logits(model) else {}
    caught: list[Tensor] = []

    def catch(_, __, out: Tensor | tuple[Tensor, ...]) -> None:
        caught.append(out[0] if isinstance(out, tuple) else out)

    with without_dropout(model), first_blocks(model, layer + 1) as last:
        handle = last.register_forward_hook(catch)
        try:
            model(
                input_ids=part["input_ids"],
                attention_mask=part["attention_mask"],
                use_cache=False,
                **shortest,
            )
        finally:
            handle.remove()
    return caught[0]
