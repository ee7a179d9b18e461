"""One training: the reference, the Trainer with its arguments, how a step is taken, and where an interrupted
run goes on."""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import PrinterCallback, TrainingArguments

from ...core.encoding import Encoded
from ...core.files import fingerprint
from ...core.generation import pad_id
from ...dataset.collate import Collator
from ...dataset.pairs import EpochSampler, Pairs
from ...loggers import RunLogger
from ...optim import WA, Averaging, Landscape, Sophia, SophiaG, drawn_nll
from ...unlearn import Composition
from ...unlearn.gradients import Sum
from ...unlearn.mask import WeightMask
from ...unlearn.step.step_options import StepOptions
from ...unlearn.step.trainer import UnlearnTrainer
from ..load.adapters import set_base_name
from ..load.loading import add_lora, choose_precision, merge_lora, model_fingerprint
from ..reference import make_reference
from ..settings.run_settings import Settings
from .checkpoints import drop_all_but, newest_checkpoint, step_of
from .places import PROCESS_TIMEOUT, checkpoints_folder, process_state
from .training_callbacks import StepCheckpoints, TrainingProgress


def train(
    settings: Settings,
    model,
    tokenizer,
    rows: Mapping[str, list[Encoded]],
    composition: Composition,
    logger: RunLogger | None = None,
    reinforced=None,
    mask: WeightMask | None = None,
) -> tuple[Any, float]:
    """Train in place on the parts of `rows`; returns the plain model and the seconds it took, reference
    values included. Without a logger the training leaves nothing and cannot be resumed."""
    start = time.time()
    overall, unlearn, data = settings.overall, settings.unlearn, settings.dataset
    resumable = logger and (unlearn.save_steps or unlearn.resume_path)
    origins = _origins(model, rows) if resumable else {}
    if unlearn.use_lora:
        model = add_lora(model, settings.lora, overall.seed, composition.trained(model))
    precision = choose_precision(overall.precision, model.device.type)
    reference = make_reference(
        model,
        tokenizer,
        composition,
        rows,
        overall.cache,
        settings.evaluate.batch_tokens,
        precision,
        int(overall.reference_cache_gb * 1e9),
        reinforced,
    )
    steps_folder = checkpoints_folder(settings) if logger else overall.cache / "trainer"
    if settings.logger.tensorboard:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(steps_folder.parent / "tensorboard")
    kept = settings if logger else _without_checkpoints(settings)
    arguments = training_arguments(
        kept,
        precision,
        model.device.type,
        steps_folder,
        process_state(settings).num_processes,
        int(PROCESS_TIMEOUT.total_seconds()),
    )
    pairs = Pairs(rows, data.dataset_seed)
    at_once = data.batch_size * arguments.world_size
    group_size = at_once * unlearn.gradient_accumulation_steps if data.group_by_length else 0
    sampler = EpochSampler(pairs, overall.seed, group_size, at_once if arguments.world_size > 1 else 1)
    title = f"training with {settings.method.name}" if logger else "training the reinforced model"
    training_progress = TrainingProgress(title, overall.quiet)
    trainer = UnlearnTrainer(
        model,
        arguments,
        pairs,
        sampler,
        composition,
        reference,
        Collator(pad_id(tokenizer)),
        {part: [row.id for row in encoded] for part, encoded in pairs.parts.items()},
        logger.step if logger else lambda record: None,
        [training_progress, StepCheckpoints()],
        make_step_options(kept, mask),
        origins,
    )
    trainer.remove_callback(PrinterCallback)
    with training_progress:
        trainer.run(_checkpoint_to_go_on_from(settings, steps_folder, logger) if logger else None)
    if logger and unlearn.save_adapter != "none":
        set_base_name(model, overall)
        logger.adapter(model, tokenizer, instead=unlearn.save_adapter == "only")
    return merge_lora(model), time.time() - start


def _origins(model, rows: Mapping[str, list]) -> dict[str, str]:
    """Fingerprints of what a run begins with, and must begin with again to go on: the initial model, which is
    the reference too, and the tokenised rows, in which the template shows."""
    flat = lambda part: [row for one in part for row in (one if isinstance(one, list) else [one])]
    tokens = {
        f"{part} rows (or template)": fingerprint([(row.id, row.fingerprint) for row in flat(encoded)])
        for part, encoded in rows.items()
    }
    return {"initial model": model_fingerprint(model), **tokens}


def _without_checkpoints(settings: Settings) -> Settings:
    """The same settings for a training that leaves nothing and is taken in plain steps."""
    return replace(
        settings,
        unlearn=replace(settings.unlearn, save_steps=0),
        logger=replace(settings.logger, tensorboard=False),
    )


def _checkpoint_to_go_on_from(settings: Settings, steps_folder: Path, logger: RunLogger) -> str | None:
    """The newest whole step checkpoint, with the log cut back to it; None for a fresh start."""
    if settings.unlearn.resume_path is None:
        return None
    state = process_state(settings)
    found = [newest_checkpoint(steps_folder)] if state.is_main_process else [None]
    if state.is_main_process:
        drop_all_but(steps_folder, found[0])
        logger.rewind(step_of(found[0]) if found[0] else 0)
    if state.num_processes > 1:
        broadcast_object_list(found)
    return str(found[0]) if found[0] else None


def training_arguments(
    settings: Settings, precision: str, device: str, steps_folder: Path, processes: int, patience_seconds: int
) -> TrainingArguments:
    """The Trainer's arguments. `patience_seconds`: how long processes wait for each other."""
    unlearn, overall = settings.unlearn, settings.overall
    return TrainingArguments(
        output_dir=str(steps_folder),
        num_train_epochs=unlearn.num_epochs,
        max_steps=unlearn.max_steps,
        per_device_train_batch_size=settings.dataset.batch_size,
        gradient_accumulation_steps=unlearn.gradient_accumulation_steps,
        learning_rate=unlearn.lr,
        # transformers' plain `constant` has no warmup and would ignore warmup_ratio.
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(unlearn.scheduler, unlearn.scheduler),
        warmup_steps=unlearn.warmup_ratio,
        weight_decay=unlearn.weight_decay,
        adam_beta2=unlearn.adam_beta2,
        max_grad_norm=unlearn.max_grad_norm,
        seed=overall.seed,
        bf16=precision == "bf16",
        activation_checkpointing=unlearn.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=device == "cpu",
        # The Trainer writes this into the model's config, which is saved; our own passes ask for no cache.
        use_cache=True,
        ddp_timeout=patience_seconds,
        ddp_backend="gloo" if device == "cpu" and processes > 1 else None,
        dataloader_pin_memory=device != "cpu",
        remove_unused_columns=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if unlearn.save_steps else "no",
        save_steps=unlearn.save_steps or 500,
        report_to=["tensorboard"] if settings.logger.tensorboard else [],
        disable_tqdm=True,
    )


def make_step_options(settings: Settings, mask=None) -> StepOptions:
    """The optimizer, flatness wrapper, averaging and mask of a run. A wrapper of radius 0 is left out: it
    would change nothing. A side of weight 0 can still hold regularizers, whose weight is 1."""
    averages = isinstance(settings.flatness, WA)
    flattens = settings.flatness is not None and not averages and settings.flatness.rho > 0
    second_order = isinstance(settings.optimizer, Sophia)
    return StepOptions(
        make_optimizer=(
            (lambda groups: SophiaG(groups, settings.unlearn.lr, plan=settings.optimizer))
            if second_order
            else None
        ),
        flatten=_flatten(settings.flatness, settings.overall.seed) if flattens else None,
        curvature=(
            Curvature(settings.optimizer) if second_order and settings.optimizer.hessian == "gnb" else None
        ),
        averaging=Averaging(settings.flatness) if isinstance(settings.flatness, WA) else None,
        mask=mask,
        combiner=None if isinstance(settings.combiner, Sum) else settings.combiner,
        weights=(settings.unlearn.forget_weight or 1.0, settings.unlearn.gamma or 1.0),
    )


def _flatten(wrapper, seed: int):
    def flatten(weights, gradient, total, curvature, restrict, step):
        return wrapper.gradient(Landscape(weights, gradient, total, curvature, restrict, step, seed))

    return flatten


class Curvature:
    """When and on what Sophia's curvature is estimated."""

    drawn_nll = staticmethod(drawn_nll)

    def __init__(self, plan: Sophia):
        self.every, self.parts = plan.every, plan.parts()
