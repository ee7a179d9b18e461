"""Settings of the model and the machine."""

from dataclasses import dataclass
from pathlib import Path

from ...core.options import knob
from ...loggers import LOGGERS

SEEDS = 2**32 - 1
"""The largest seed that every generator takes."""


@dataclass(frozen=True)
class Overall:
    """Model, device, caches."""

    model_name: str = knob("files/models/fictional/target", "initial model: a folder or a hub name")
    tokenizer_name: str | None = knob(None, "tokenizer, when it is not the model's own")
    random_init: bool = knob(
        False, "draw the weights from the seed instead of loading them (training from scratch)"
    )
    partial_weights: bool = knob(
        False, "load a model whose files lack weights (which are then random) or hold others"
    )
    base_model: str | None = knob(
        None, "base of the LoRA adapters that are named as models, in place of the one their config names"
    )
    trust_remote_code: bool = knob(
        False, "run the code that overall.model_name or its tokenizer brings: only if you know it"
    )
    logger: str = knob("json", "where results go", choices=lambda: tuple(LOGGERS))
    cache_dir: str = knob(".cache", "folder for caches; safe to delete")
    seed: int = knob(0, "seed of weights, order of rows and dropout", at_least=0, at_most=SEEDS)
    precision: str = knob(
        "auto",
        "auto is bf16 autocast over fp32 weights on a GPU that has it, else fp32; bf16_pure has bf16 weights",
        choices=("auto", "fp32", "bf16", "bf16_pure"),
    )
    reference_cache_gb: float = knob(
        1.0,
        "memory for what the initial model says about rows that come again (logits on answers, and as "
        "much again for hidden states of each block); rows beyond it are computed each time",
        at_least=0,
    )
    device: str = knob(
        "auto", "auto (first GPU, else CPU), cpu, cuda or cuda:N", pattern=r"auto|cpu|cuda(:\d+)?"
    )
    engine: str = knob(
        "auto",
        "how several processes share a model: auto as the launcher asks, else ddp; ddp has a whole model in"
        " each; fsdp2 a part of every weight; zero2 (DeepSpeed) a part of gradients and optimizer state;"
        " zero3 of weights too",
        choices=("auto", "ddp", "fsdp2", "zero2", "zero3"),
    )
    quiet: bool = knob(False, "no progress and no tables")

    @property
    def cache(self) -> Path:
        return Path(self.cache_dir).expanduser()
