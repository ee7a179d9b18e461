"""AdamW in the forms that transformers' Trainer builds."""

from dataclasses import dataclass
from typing import ClassVar

from ..core.registry import Registry

OPTIMIZERS = Registry("optimizer")


@OPTIMIZERS.register("AdamW", "adamw_torch_fused")
@dataclass(frozen=True)
class AdamW:
    """AdamW by PyTorch (its fused kernels), with `unlearn.weight_decay` and `unlearn.adam_beta2`.

    Cost: two copies of the trained weights."""

    trainer_name: ClassVar[str] = "adamw_torch_fused"
    """Name of the optimizer in `TrainingArguments.optim`."""
    package: ClassVar[str] = ""
    """Package that it needs beside PyTorch."""
    state_bytes: ClassVar[float] = 8.0
    """Bytes of state per trained float32 weight."""


@OPTIMIZERS.register("AdamW8bit", "adamw_bnb_8bit", "adamw_8bit")
@dataclass(frozen=True)
class AdamW8bit(AdamW):
    """AdamW by bitsandbytes with 8-bit state (Dettmers et al., arXiv:2110.02861), quantised in blocks of 256.
    Embeddings, and weights of fewer than 4,096 elements, keep 32-bit state.

    Cost: half a copy of the trained weights (embeddings: two copies)."""

    trainer_name: ClassVar[str] = "adamw_bnb_8bit"
    package: ClassVar[str] = "bitsandbytes"
    state_bytes: ClassVar[float] = 2.0 + 8 / 256


@OPTIMIZERS.register("PagedAdamW8bit", "paged_adamw_8bit")
@dataclass(frozen=True)
class PagedAdamW8bit(AdamW8bit):
    """AdamW8bit whose state moves to the host's memory where the GPU is short of it (NVIDIA's unified
    memory). On a CPU it is AdamW8bit.

    Cost: half a copy of the trained weights (embeddings: two copies), which may lie in the host's memory."""

    trainer_name: ClassVar[str] = "paged_adamw_8bit"
