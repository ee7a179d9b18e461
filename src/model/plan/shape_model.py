"""A model without memory: its parameters and passes have shapes and no values."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from ...unlearn import Composition
from ...unlearn.blocks import blocks, first_blocks
from ...unlearn.passes.joint_pass import takes_masks
from ..load.adapters import base_of, is_adapter
from ..load.loading import (
    add_lora,
    autocast_context,
    from_hub_or_folder,
    loading_of,
    resolve_precision,
    train_only,
    weight_dtype,
)
from ..settings.run_settings import Settings

HEAP_LIMIT = 2**25
"""Bytes from which on the C library maps memory for a tensor, and gives it back when the tensor is gone:
glibc's largest threshold, which it takes up once tensors of that size were freed."""


@dataclass(frozen=True)
class Pass:
    """One pass over a part of a micro-batch.

    Args:
        rows: rows of the batch.
        width: padded tokens of each.
        depth: decoder blocks that run; None is all, and the head.
        packed: do lines hold several rows, under a mask of their own?
    """

    rows: int
    width: int
    depth: int | None = None
    packed: bool = False

    @property
    def tokens(self) -> int:
        return self.rows * self.width


@dataclass(frozen=True)
class PassCost:
    """What a pass with gradient costs.

    Args:
        saved: bytes of activations kept for the backward pass.
        flops: of forward and backward.
        forward_flops: of the forward alone.
        block: bytes of activations of one block, which a recomputed block needs again.
        on_heap: bytes of activations in tensors below `HEAP_LIMIT`.
    """

    saved: int
    flops: int
    forward_flops: int
    block: int = 0
    on_heap: int = 0

    def __add__(self, other: "PassCost") -> "PassCost":
        return PassCost(
            self.saved + other.saved,
            self.flops + other.flops,
            self.forward_flops + other.forward_flops,
            max(self.block, other.block),
            self.on_heap + other.on_heap,
        )


class ShapeModel:
    """The model of a run, with LoRA where it is trained, as shapes alone.

    Args:
        settings: of the run.
        composition: decides which parameters are trained.
    """

    def __init__(self, settings: Settings, composition: Composition):
        overall = settings.overall
        self.settings, self.mode = settings, FakeTensorMode(allow_non_fake_inputs=True)
        self.precision = resolve_precision(overall.precision, "cuda" if uses_gpu(settings) else "cpu")
        loading = loading_of(overall)
        name = base_of(overall.model_name, loading.base_model)
        self.config = from_hub_or_folder(AutoConfig.from_pretrained, name, loading)
        self.saved_dtype = self.config.dtype  # building the model writes its own into the config
        options: dict[str, Any] = {"dtype": weight_dtype(self.precision)}
        if settings.needs_double_backward:
            options["attn_implementation"] = "eager"
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                self.config, trust_remote_code=overall.trust_remote_code, **options
            )
        composition.check(model)
        linear = _quantizable(model)
        embeddings = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
        chosen = composition.trained(model)
        if settings.unlearn.use_lora and settings.method.trains:
            with torch.device("meta"):
                model = add_lora(model, settings.lora, overall.seed, chosen)
        else:
            train_only(model, chosen if settings.method.trains else ())
        self.model = model.train()
        self._make_fake()
        self.linear = [module.weight for module in linear]
        self.embeddings = {id(module.weight) for module in embeddings}
        self.trains_some = chosen is not None

    def _make_fake(self) -> None:
        """Give every weight the device of a CPU, still without memory: meta tensors cannot be computed
        with."""
        made: dict[int, torch.nn.Parameter] = {}
        with self.mode:
            for module in self.model.modules():
                for name, p in module._parameters.items():
                    if p is not None and id(p) not in made:
                        empty = torch.empty(p.shape, dtype=p.dtype)
                        made[id(p)] = torch.nn.Parameter(empty, requires_grad=p.requires_grad)
                    if p is not None:
                        module._parameters[name] = made[id(p)]
                for name, buffer in module._buffers.items():
                    if buffer is not None:
                        module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)

    @property
    def trained(self) -> list[torch.Tensor]:
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def mapped(self) -> list[torch.Tensor]:
        """The frozen weights that a CPU run reads as they are from a mapped file. Drawn, merged, converted
        and 4-bit weights are the run's own memory."""
        overall = self.settings.overall
        as_saved = self.saved_dtype == weight_dtype(self.precision)
        if uses_gpu(self.settings) or overall.random_init or is_adapter(overall.model_name) or not as_saved:
            return []
        frozen = {id(p): p for p in self.model.parameters() if not p.requires_grad}
        if self.settings.is_quantized:
            frozen = {key: p for key, p in frozen.items() if key not in set(map(id, self.linear))}
        return list(frozen.values())

    @property
    def adapted(self) -> list[torch.Tensor]:
        """The frozen weights that have adapters."""
        layers: list[Any] = [module for module in self.model.modules() if hasattr(module, "lora_A")]
        return [layer.base_layer.weight for layer in layers]

    @property
    def depth(self) -> int:
        return len(blocks(self.model))

    @property
    def vocabulary(self) -> int:
        return self.config.get_text_config().vocab_size

    @property
    def packs(self) -> bool:
        """Do the parts that a loss scores share a pass? (That its rows leave each other alone is taken for
        granted.)"""
        return takes_masks(self.model.config)

    def cost(self, run: Pass) -> PassCost:
        """What a pass costs. Where all blocks are alike and all or none of their weights are trained, two
        short passes stand for the whole one."""
        depth = run.depth or self.depth
        if depth <= 2 or self.trains_some or not self._blocks_are_alike():
            cost = self._cost_of(replace(run, depth=depth))
            return replace(cost, block=cost.saved // depth)
        one, two = (self._cost_of(replace(run, depth=count)) for count in (1, 2))
        more = depth - 1
        block = two.saved - one.saved
        saved = one.saved + more * block
        on_heap = one.on_heap + more * (two.on_heap - one.on_heap)
        if self.settings.unlearn.gradient_checkpointing:
            # A block keeps its input alone; one at a time is computed again.
            states = run.tokens * self.config.get_text_config().hidden_size * self._activation_bytes
            saved = one.saved - block + depth * states
            on_heap = saved if states < HEAP_LIMIT else 0
        return PassCost(
            saved,
            one.flops + more * (two.flops - one.flops),
            one.forward_flops + more * (two.forward_flops - one.forward_flops),
            block,
            on_heap,
        )

    @property
    def _activation_bytes(self) -> int:
        return 4 if self.precision == "fp32" else 2

    def _blocks_are_alike(self) -> bool:
        shapes = [
            [(name, tuple(p.shape), p.requires_grad) for name, p in block.named_parameters()]
            for block in blocks(self.model)
        ]
        return all(shape == shapes[0] for shape in shapes)

    def _cost_of(self, run: Pass) -> PassCost:
        """Count what a pass of this depth keeps and computes."""
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage
            return tensor

        with self._shapes(run) as inputs:
            owned = {p.untyped_storage()._cdata for p in self.model.parameters()}
            with (
                FlopCounterMode(display=False) as forward,
                torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
                autocast_context("cpu", self.precision),
            ):
                out = self.model(**inputs, use_cache=False, logits_to_keep=1).logits
            backward = FlopCounterMode(display=False)
            if out.requires_grad:
                with backward:
                    out.float().sum().backward()
            for p in self.model.parameters():
                p.grad = None
        sizes = [storage.nbytes() for key, storage in kept.items() if key not in owned]
        flops, on_heap = forward.get_total_flops(), sum(size for size in sizes if size < HEAP_LIMIT)
        return PassCost(sum(sizes), flops + backward.get_total_flops(), flops, on_heap=on_heap)

    @contextmanager
    def _shapes(self, run: Pass) -> Iterator[dict[str, torch.Tensor]]:
        assert run.depth is not None
        with self.mode, first_blocks(self.model, run.depth):
            ids = torch.zeros(run.rows, run.width, dtype=torch.long)
            if not run.packed:
                yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                return
            mask = torch.ones(run.rows, 1, run.width, run.width, dtype=torch.bool)
            yield {"input_ids": ids, "position_ids": ids, "attention_mask": mask}


def _quantizable(model) -> list[torch.nn.Linear]:
    """The linear layers that a 4-bit base quantises: all but the language-model head."""
    head = model.get_output_embeddings()
    return [
        module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head
    ]


def uses_gpu(settings: Settings) -> bool:
    return settings.overall.device != "cpu" and torch.cuda.is_available()
