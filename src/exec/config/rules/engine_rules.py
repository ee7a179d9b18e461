"""Rules on the engine: what sharded weights cannot do, and requests of the launcher that cannot be met."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from ....model.load.engine import engine_errors, precision_error, wants_fsdp2
from ....model.settings.run_settings import Settings


@dataclass(frozen=True)
class Refusal:
    """What is refused with sharded weights (FSDP2).

    Args:
        feature: Its name in the table of docs/launchers.md.
        key: The key that asks for it.
        is_asked: Whether settings ask for it.
        reason: Why, and what to do.
        example: Flags that ask for it.
    """

    feature: str
    key: str
    is_asked: Callable[[Settings], bool]
    reason: str
    example: tuple[str, ...]


REFUSALS = (
    Refusal(
        "exact second derivatives (GP, CR with mode exact; ILU)",
        "unlearn.flat.GP.mode",
        lambda settings: settings.needs_double_backward,
        "FSDP2 has no double backward; take mode differences, or overall.engine ddp",
        ("--unlearn.flatness", "GP", "--unlearn.flat.GP.mode", "exact"),
    ),
    Refusal(
        "losses on the weights themselves (L1 and other regularizers)",
        "unlearn.unlearn_method",
        lambda settings: any(part.on_weights for _, _, part in settings.composition.active),
        "a loss of the weights bypasses the passes in which FSDP2 sums gradients; take overall.engine ddp",
        ("--unlearn.unlearn_method", "NPO+FT+L1"),
    ),
    Refusal(
        "edits (TV, WHP)",
        "unlearn.unlearn_method",
        lambda settings: settings.method.edits,
        "an edit holds two whole models; take overall.engine ddp",
        ("--unlearn.unlearn_method", "TV"),
    ),
    Refusal(
        "benchmarks at the end of the run",
        "benchmarks.suite",
        lambda settings: bool(settings.benchmark_tasks),
        "the harness runs on whole models; leave it out and measure the saved model by run_benchmarks.py",
        ("--benchmarks.suite", "smoke"),
    ),
    Refusal(
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
        "AdamW in 8 bits",
        "unlearn.optimizer",
        lambda settings: bool(getattr(settings.optimizer, "package", "")),
        "its states in 8 bits are not sharded, and AdamW's are; take AdamW, or overall.engine ddp",
        ("--unlearn.optimizer", "AdamW8bit"),
    ),
    Refusal(
        "training from scratch",
        "overall.random_init",
        lambda settings: settings.overall.random_init,
        "weights are drawn whole; take overall.engine ddp, or save a model of random weights first",
        ("--overall.random_init", "true"),
    ),
)


def launcher_errors(settings: Settings) -> list[str]:
    overall = settings.overall
    found = engine_errors(overall.engine, os.environ)
    if mixed := precision_error(overall.precision, os.environ):
        found.append(mixed)
    if not found and wants_fsdp2(overall.engine, os.environ):
        found += [f"{refusal.key}: {refusal.reason}" for refusal in REFUSALS if refusal.is_asked(settings)]
    return found
