"""What a training run needs beside model and rows: the Trainer's arguments, and how a step is taken."""

from pathlib import Path

from transformers import TrainingArguments

from model.settings import Settings
from optim import WA, Averaging, Landscape, Sophia, SophiaG, drawn_nll
from unlearn.gradients import Sum
from unlearn.trainer import Stepping


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
        lr_scheduler_type=unlearn.scheduler,
        warmup_steps=unlearn.warmup_ratio,
        weight_decay=unlearn.weight_decay,
        adam_beta2=unlearn.adam_beta2,
        max_grad_norm=unlearn.max_grad_norm,
        seed=overall.seed,
        bf16=precision == "bf16",
        activation_checkpointing=unlearn.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=device == "cpu",
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


def make_stepping(settings: Settings, mask=None) -> Stepping:
    """The optimizer, flatness wrapper, averaging and mask of a run. A wrapper of radius 0 is left out: it
    would change nothing. A side of weight 0 can still hold regularizers, whose weight is 1."""
    averages = isinstance(settings.flatness, WA)
    flattens = settings.flatness is not None and not averages and settings.flatness.rho > 0
    second_order = isinstance(settings.optimizer, Sophia)
    return Stepping(
        make_optimizer=(
            (lambda groups: SophiaG(groups, settings.unlearn.lr, plan=settings.optimizer))
            if second_order
            else None
        ),
        flatten=_flatten(settings.flatness, settings.overall.seed) if flattens else None,
        curvature=(
            Curvature(settings.optimizer) if second_order and settings.optimizer.hessian == "gnb" else None
        ),
        averaging=Averaging(settings.flatness) if averages else None,
        mask=mask,
        combiner=None if isinstance(settings.combiner, Sum) else settings.combiner,
        weights=(settings.unlearn.forget_weight or 1.0, settings.unlearn.gamma or 1.0),
    )


def needs_double_backward(settings: Settings) -> bool:
    """Does something differentiate a gradient? Then attention must be computed in the plain way."""
    exact = getattr(settings.flatness, "mode", "") == "exact"
    return exact or any("double_backward" in objective.needs for objective in settings.components.values())


def _flatten(wrapper, seed: int):
    def flatten(weights, gradient, total, curvature, restrict, step):
        return wrapper.gradient(Landscape(weights, gradient, total, curvature, restrict, step, seed))

    return flatten


class Curvature:
    """When and on what Sophia's curvature is estimated."""

    drawn_nll = staticmethod(drawn_nll)

    def __init__(self, plan: Sophia):
        self.every, self.parts = plan.every, plan.parts()
