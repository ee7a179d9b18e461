"""Rules on the engine: what FSDP2 and DeepSpeed cannot do, and requests of the launcher that are refused."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from ....model.load.engine import engine_errors, precision_error, resolve_engine
from ....model.settings.run_settings import Settings
from ....optim import WA, Sophia
from ....unlearn.gradients import Sum


@dataclass(frozen=True)
class Refusal:
    """What is refused with an engine that shares out weights, gradients or optimizer state.

    Args:
        engines: The engines that refuse it.
        feature: Its name in the table of docs/launchers.md.
        key: The key that asks for it.
        is_asked: Whether settings ask for it.
        reason: Why, and what to do.
        example: Flags that ask for it.
    """

    engines: tuple[str, ...]
    feature: str
    key: str
    is_asked: Callable[[Settings], bool]
    reason: str
    example: tuple[str, ...]


ZERO, SHARDED = ("zero2", "zero3"), ("fsdp2", "zero3")
ALL = ("fsdp2", "zero2", "zero3")

REFUSALS = (
    Refusal(
        SHARDED,
        "exact second derivatives (GP, CR with mode exact; ILU)",
        "unlearn.flat.GP.mode",
        lambda settings: settings.needs_double_backward,
        "sharded weights have no double backward; take overall.engine ddp, or with FSDP2 mode differences",
        ("--unlearn.flatness", "GP", "--unlearn.flat.GP.mode", "exact"),
    ),
    Refusal(
        SHARDED,
        "losses on the weights themselves (L1 and other regularizers)",
        "unlearn.unlearn_method",
        lambda settings: any(part.on_weights for _, _, part in settings.composition.active),
        "a loss of the weights bypasses the passes in which sharded weights are gathered; take overall.engine"
        " ddp",
        ("--unlearn.unlearn_method", "NPO+FT+L1"),
    ),
    Refusal(
        ALL,
        "edits (TV, WHP)",
        "unlearn.unlearn_method",
        lambda settings: settings.method.edits,
        "an edit holds two whole models; take overall.engine ddp",
        ("--unlearn.unlearn_method", "TV"),
    ),
    Refusal(
        ALL,
        "benchmarks at the end of the run",
        "benchmarks.suite",
        lambda settings: bool(settings.benchmark_tasks),
        "the harness runs on whole models; leave it out and measure the saved model by run_benchmarks.py",
        ("--benchmarks.suite", "smoke"),
    ),
    Refusal(
        ALL,
        "the best evaluated model of a LoRA run",
        "evaluate.best",
        lambda settings: bool(
            settings.evaluate.every
            and settings.evaluate.best != "none"
            and settings.unlearn.use_lora
            and settings.unlearn.save_adapter != "only"
        ),
        "merging needs a copy of the model; set unlearn.save_adapter only, or evaluate.best none",
        ("--unlearn.use_lora", "true", "--evaluate.every", "2 steps"),
    ),
    Refusal(
        ALL,
        "a base in 4 bits",
        "unlearn.lora.quantize",
        lambda settings: settings.is_quantized,
        "weights in 4 bits are not sharded; take overall.engine ddp",
        tuple(
            "--unlearn.unlearn_method NPO+FT --unlearn.use_lora true --unlearn.lora.quantize nf4"
            " --unlearn.save_adapter only".split()
        ),
    ),
    Refusal(
        ALL,
        "AdamW in 8 bits",
        "unlearn.optimizer",
        lambda settings: bool(getattr(settings.optimizer, "package", "")),
        "its states in 8 bits are not sharded, and AdamW's are; take AdamW, or overall.engine ddp",
        ("--unlearn.optimizer", "AdamW8bit"),
    ),
    Refusal(
        ALL,
        "training from scratch",
        "overall.random_init",
        lambda settings: settings.overall.random_init,
        "weights are drawn whole; take overall.engine ddp, or save a model of random weights first",
        ("--overall.random_init", "true"),
    ),
    Refusal(
        ZERO,
        "masks; frozen weights are the same to the bit",
        "unlearn.mask_path",
        lambda settings: bool(settings.unlearn.mask_path),
        "DeepSpeed's optimizer steps flat parts of many weights, in which a mask cannot hold back the decay;"
        " take overall.engine fsdp2",
        ("--unlearn.mask_path", "mask.pt"),
    ),
    Refusal(
        ("zero3",),
        "combiners",
        "unlearn.combiner",
        lambda settings: not isinstance(settings.combiner, Sum),
        "ZeRO-3 has no gradient of one side alone; take overall.engine zero2 or fsdp2",
        ("--unlearn.combiner", "pcgrad"),
    ),
    Refusal(
        ("zero3",),
        "flatness: SAM, RS, GP by differences",
        "unlearn.flatness",
        lambda settings: settings.flatness is not None and not isinstance(settings.flatness, WA),
        "ZeRO-3 has no gradient at moved weights; take overall.engine zero2 or fsdp2",
        ("--unlearn.flatness", "SAM"),
    ),
    Refusal(
        ("zero3",),
        "weight averaging",
        "unlearn.flatness",
        lambda settings: isinstance(settings.flatness, WA),
        "ZeRO-3 has no whole weights to take a mean of; take overall.engine zero2 or fsdp2",
        ("--unlearn.flatness", "WA"),
    ),
    Refusal(
        ZERO,
        "GAO, signs by row and by window",
        "unlearn.unlearn_method",
        lambda settings: settings.composition.adds_gradient,
        "its backward passes for single texts would enter DeepSpeed's sums; take overall.engine fsdp2",
        ("--unlearn.unlearn_method", "GAO", "--dataset.paraphrases", "paraphrases.jsonl"),
    ),
    Refusal(
        ZERO,
        "Sophia",
        "unlearn.optimizer",
        lambda settings: isinstance(settings.optimizer, Sophia),
        "its curvature has a value for each weight, and DeepSpeed steps flat parts; take overall.engine"
        " fsdp2",
        ("--unlearn.optimizer", "Sophia"),
    ),
    Refusal(
        ZERO,
        "weights in bf16",
        "overall.precision",
        lambda settings: settings.overall.precision == "bf16_pure",
        "DeepSpeed would keep fp32 weights beside them, which is another training; take bf16",
        ("--overall.precision", "bf16_pure"),
    ),
    Refusal(
        ("zero3",),
        "adapters saved as they are",
        "unlearn.save_adapter",
        lambda settings: settings.unlearn.use_lora and settings.unlearn.save_adapter != "none",
        "ZeRO-3 shares adapters too, and saves them merged alone; set it to none, or take overall.engine"
        " zero2 or fsdp2",
        ("--unlearn.use_lora", "true", "--unlearn.save_adapter", "beside"),
    ),
)


def launcher_errors(settings: Settings) -> list[str]:
    overall = settings.overall
    found = engine_errors(overall.engine, os.environ)
    if mixed := precision_error(overall.precision, os.environ):
        found.append(mixed)
    if not found:
        engine = resolve_engine(overall.engine, os.environ)
        found += [
            f"{refusal.key}: {refusal.reason}"
            for refusal in REFUSALS
            if engine in refusal.engines and refusal.is_asked(settings)
        ]
    return found
