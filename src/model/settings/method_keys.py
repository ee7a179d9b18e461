"""Settings of the method and its training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ...core.options import Condition, knob
from ...optim import FLATNESS, OPTIMIZERS
from ...unlearn.gradients import COMBINERS
from ...unlearn.method import method_name, method_names
from ...unlearn.published.presets import PRESETS
from .stop_rules import FORM, stop_rule_text

TASKS = {
    "fictional": ("tofu",),
    "reasoning": ("reasoning", "health", "wmdp", "tofu"),
    "tofu": ("tofu",),
    "muse": ("muse",),
    "wmdp": ("wmdp",),
    "knowundo": ("knowundo",),
    "rwku": ("rwku",),
    "lume": ("lume",),
    "copyright": ("copyright",),
    "toxic": ("toxic", "forget/prob", "retain/prob", "retain/rougeL"),
    "pii": ("pii", "forget/prob", "retain/prob", "forget/rougeL", "retain/rougeL"),
}
"""Task -> the metrics (keys or families) that `evaluate.metrics = auto` stands for."""


@dataclass(frozen=True)
class Unlearning:
    """The method and its training."""

    unlearn_method: str = knob(
        "origin",
        "what to do: origin (evaluate only), a forget objective, forget+retain, or FT "
        "(fine-tune on the retain rows); +L1 and +ILU stack on any",
        choices=method_names,
        read=method_name,
    )
    optimizer: str = knob("AdamW", "optimizer", choices=tuple(OPTIMIZERS), read=OPTIMIZERS.proper)
    flatness: str = knob(
        "none",
        "how the forget gradient is taken: at the weights (none), or around them for flat minima",
        choices=("none", *FLATNESS),
        read=lambda text: "none" if text == "none" else FLATNESS.proper(text),
    )
    combiner: str = knob(
        "sum",
        "how the gradients of the two sides become one update (pcgrad, gru, sago, ngdiff put the retain"
        " gradient first, blur the forget gradient)",
        choices=tuple(COMBINERS),
        read=COMBINERS.proper,
        only_if=("method.sides", "retain"),
    )
    published: str = knob(
        "none",
        "preset the components' switches to what a published code base computes; any other source still wins",
        choices=tuple(PRESETS),
    )
    task_name: str = knob("fictional", "chooses the metrics", choices=tuple(TASKS))
    num_epochs: int = knob(1, "passes over the forget rows (over the retain rows for FT)", at_least=1)
    max_steps: int = knob(-1, "stop after this many optimizer steps; -1 is no limit", at_least=-1, never=0)
    stop: tuple[str, ...] | None = knob(
        None,
        "stop at an evaluation (evaluate.every) where a rule says so: kl=BUDGET, KL to the initial model on"
        " retain rows above it; kl_neutral=BUDGET, the same on evaluate.neutral_text; holdout=P, losses of"
        " forget and holdout rows that do not differ at level P",
        read=stop_rule_text,
        form=FORM,
    )
    lr: float = knob(1e-4, "peak learning rate", above=0)
    weight_decay: float = knob(0.0, "decoupled weight decay", at_least=0)
    gradient_accumulation_steps: int = knob(1, "micro-batches per optimizer step", at_least=1)
    max_grad_norm: float = knob(1.0, "clip the gradient to this norm; 0 is no clipping", at_least=0)
    warmup_ratio: float = knob(
        0.0, "share of the steps over which the learning rate rises", at_least=0, below=1
    )
    scheduler: str = knob("linear", "how the learning rate falls", choices=("linear", "cosine", "constant"))
    adam_beta2: float = knob(
        0.999,
        "AdamW's decay of the squared gradient",
        above=0,
        below=1,
        only_if=("unlearn.optimizer", "AdamW", "AdamW8bit", "PagedAdamW8bit"),
    )
    forget_weight: float = knob(
        1.0, "weight of the forget objective; 0 leaves it out", at_least=0, only_if=("method.sides", "forget")
    )
    gamma: float = knob(
        1.0, "weight of the retain objective; 0 leaves it out", at_least=0, only_if=("method.sides", "retain")
    )
    p: float = knob(0.01, "a share of the WAGLE family", obsolete="nothing reads it")
    q: float = knob(0.01, "a share of the WAGLE family", obsolete="nothing reads it")
    mask_path: str | None = knob(
        None, "weight mask: only what it selects is updated (make_mask.py, download_mask.py)"
    )
    mask_missing: str = knob(
        "error",
        "how to treat parameters that are missing from the mask",
        choices=("error", "dense", "frozen"),
    )
    mask_force: bool = knob(
        False, "take a mask although its name states another ratio, or its sidecar other weights or bits"
    )
    sophia: bool = knob(False, "the WAGLE family's word for unlearn.optimizer Sophia")
    gradient_checkpointing: bool = knob(
        False, "compute activations anew in the backward pass: less memory, slower"
    )
    use_lora: bool = knob(False, "train LoRA adapters instead of all weights")
    save_adapter: str = knob(
        "none",
        "keep what LoRA trained as an adapter: beside the merged weights (folder adapter), or only it, in"
        " their place",
        choices=("none", "beside", "only"),
    )
    save_steps: int = knob(
        0, "keep a checkpoint to resume from every so many optimizer steps; 0 is none", at_least=0
    )
    resume_path: str | None = knob(
        None,
        "go on with an interrupted run: its folder, or auto (the run of logger.name if there "
        "is one to go on with, else a new one)",
    )


@dataclass(frozen=True)
class Lora:
    """LoRA adapters (with unlearn.use_lora); merged into the weights when the model is saved."""

    only_if: ClassVar[Mapping[str, Condition]] = {"*": ("unlearn.use_lora", True)}

    r: int = knob(8, "rank", at_least=1)
    alpha: float = knob(16.0, "scale: the update is alpha / r times the product", above=0)
    dropout: float = knob(0.0, "dropout before the adapters", at_least=0, below=1)
    targets: tuple[str, ...] = knob(("all-linear",), "module names to adapt, or all-linear")
    quantize: str = knob(
        "none",
        "hold the frozen weights of linear layers in 4 bits while the adapters are trained (QLoRA); needs"
        " unlearn.save_adapter only",
        choices=("none", "nf4"),
    )
