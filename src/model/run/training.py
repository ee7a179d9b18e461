"""One training: the reference, the Trainer with its arguments, how a step is taken, and where an interrupted
run goes on."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import PrinterCallback, TrainingArguments

from ...core.batching import clear_memory_errors
from ...core.encoding import CONTEXT, Encoded, Template
from ...core.files import UserError
from ...core.generation import pad_id
from ...core.sharding import lockstep, weight_mb
from ...dataset.collate import Collator
from ...dataset.neutral_texts import ROWS as NEUTRAL_TEXTS
from ...dataset.pairs import EpochSampler, Pairs
from ...loggers import RunLogger
from ...optim import WA, AdamW, Averaging, Sophia
from ...unlearn import Composition
from ...unlearn.gradients import Sum
from ...unlearn.mask import WeightMask
from ...unlearn.step.step_options import StepOptions
from ...unlearn.step.step_plan import StepPlan
from ...unlearn.step.trainer import TrainingJob, UnlearnTrainer
from ..evaluation import other_columns, template_of
from ..load.adapters import set_base_name
from ..load.engine import resolve_engine, zero_plan
from ..load.loading import add_lora, load_initial, merge_lora, model_fingerprint, resolve_precision
from ..reference import ReferenceModel, ReferenceOptions, make_reference
from ..settings.run_settings import Settings
from ..settings.stop_rules import BUDGETS, stop_rules
from ..training_data import part_fingerprint
from .best_choice import BestRule, best_figure
from .checkpoints import SNAPSHOTS, drop_all_but, newest_checkpoint, step_of
from .places import PROCESS_TIMEOUT, checkpoints_folder, process_state, share_of
from .stopping import KlOptions, ReferenceKl, Snapshots
from .termination import SaveOnTermination
from .training_callbacks import StepCheckpoints, TrainingProgress
from .training_evaluation import Ending, EvaluationPlan, TrainingEvaluation
from .training_metrics import default_figure, kl_rows_place
from .unlearn_run import Trained

SMALLER_STEP = (
    "lower dataset.batch_size and raise unlearn.gradient_accumulation_steps by as much (the step stays the"
    " same), or set unlearn.gradient_checkpointing true; --plan --memory SIZE shows what else makes it fit"
)
"""What to do where a step does not fit the memory."""


@dataclass(frozen=True)
class Training:
    """One training of a model in place, on the parts of `rows`. Without a logger it leaves nothing and cannot
    be resumed."""

    settings: Settings
    model: Any
    tokenizer: Any
    rows: Mapping[str, list[Encoded]]
    composition: Composition
    logger: RunLogger | None = None
    reinforced: Any = None
    """The model of an edit that trains."""
    mask: WeightMask | None = None
    evaluation: dict[str, list[dict]] = field(default_factory=dict)
    """Row sets that are measured while training."""

    def run(self) -> Trained:
        """Train, and return the plain model with what is to be said about the training."""
        start = time.time()
        unlearn, logger = self.settings.unlearn, self.logger
        resumable = logger and (unlearn.save_steps or unlearn.resume_path)
        origins = _origins(self.model, self.rows) if resumable else {}
        model = self._with_adapters()
        reference = self._reference(model)
        checkpoint = _resumed_checkpoint(self.settings, self._steps_folder, logger) if logger else None
        # The weights' dtype and LoRA are settled before the Trainer wraps the model.
        trainer, bar = self._trainer(model, reference, origins)
        plan = self._step_plan(trainer)
        with bar, tempfile.TemporaryDirectory() as temporary:
            measuring = self._measuring(model, plan, Path(temporary), checkpoint)
            if measuring:
                measuring.attach(trainer, bar)
            with clear_memory_errors(SMALLER_STEP, "in training"), denormals_as_zero():
                trainer.run(checkpoint)
            done = trainer.state.global_step
            if unlearn.save_adapter != "none":
                set_base_name(model, self.settings.overall)
            ending = measuring.end(done) if measuring else Ending(done)
        if logger and unlearn.save_adapter != "none":
            logger.adapter(model, self.tokenizer, instead=unlearn.save_adapter == "only")
        seconds = time.time() - start - ending.evaluation_seconds
        sharing = {
            "engine": resolve_engine(self.settings.overall.engine),
            "weight_mb_per_process": round(weight_mb(model), 3),
        }
        record = plan.record(done) | sharing | ending.record()
        return Trained(merge_lora(model), seconds, record, ending.best)

    def _step_plan(self, trainer: UnlearnTrainer) -> StepPlan:
        unlearn = self.settings.unlearn
        return StepPlan(
            len(trainer.job.pairs),
            self.settings.dataset.batch_size,
            unlearn.gradient_accumulation_steps,
            trainer.args.world_size,
            unlearn.num_epochs,
            unlearn.max_steps,
        )

    def _measuring(
        self, model, steps: StepPlan, temporary: Path, checkpoint: str | None
    ) -> TrainingEvaluation | None:
        """The evaluation while training; None where none is asked for. Called before the first step: the
        model is the reference of the KL budget."""
        if not self.logger or not self.settings.evaluate.every:
            return None
        settings = default_figure(self.settings, self.evaluation)
        snapshots = Snapshots(self._steps_folder / SNAPSHOTS if self.logger.folder else temporary)
        is_main = process_state(settings).is_main_process
        if is_main:
            snapshots.begin(step_of(Path(checkpoint)) if checkpoint else -1)
        figure, rules = best_figure(settings), stop_rules(settings.unlearn.stop)
        seed = settings.dataset.dataset_seed
        columns = other_columns(settings, self.evaluation, None)["retain_columns"]
        plan = EvaluationPlan(
            settings,
            self.tokenizer,
            self.evaluation,
            steps,
            BestRule(figure, settings.evaluate.best_floor, seed, columns) if figure else None,
            self._budgets(model, [name for name in BUDGETS if name in rules], is_main),
        )
        measuring = TrainingEvaluation(plan, model, self.logger, snapshots)
        if is_main and checkpoint:
            measuring.check_history()
        return measuring

    def _budgets(self, model, names: list[str], is_main: bool) -> dict[str, ReferenceKl]:
        """What the first process measures, in passes that all must make where they share the weights."""
        with lockstep(model):
            return {name: self._kl(model, name) for name in names if is_main}

    def _kl(self, model, rule: str) -> ReferenceKl:
        """The KL to the model as it is now that a stop rule limits: on neutral texts, or on retain rows,
        held-out ones where there are some."""
        overall, data = self.settings.overall, self.settings.dataset
        rows, template = self.rows.get("retain", []), template_of(self.settings, self.tokenizer)
        if rule == "kl_neutral":
            documents = self.evaluation[NEUTRAL_TEXTS]
            rows = [piece for row in documents for piece in template.pieces(row, data.max_length, "pieces")]
        elif kl_rows_place(self.evaluation, {}) == "evaluation":
            rows = encoded_answers(self.evaluation["retain"], template, data.max_length)
        options = KlOptions(
            pad_id(self.tokenizer),
            self.settings.evaluate.batch_tokens,
            int(overall.reference_cache_gb * 1e9),
            resolve_precision(overall.precision, model.device.type),
        )
        return ReferenceKl(model, rows, options)

    @property
    def _steps_folder(self) -> Path:
        return checkpoints_folder(self.settings) if self.logger else self.settings.overall.cache / "trainer"

    def _with_adapters(self):
        """The model with LoRA adapters, where the run trains them."""
        if not self.settings.unlearn.use_lora:
            return self.model
        trained = self.composition.trained(self.model)
        return add_lora(self.model, self.settings.lora, self.settings.overall.seed, trained)

    def _reference(self, model) -> ReferenceModel | None:
        overall = self.settings.overall
        options = ReferenceOptions(
            overall.cache,
            self.settings.evaluate.batch_tokens,
            resolve_precision(overall.precision, model.device.type),
            int(overall.reference_cache_gb * 1e9),
            overall.quiet or not self.logger,
            partial(load_initial, overall, shardable=True),
            share_of(self.settings),
        )
        reference = make_reference(model, self.tokenizer, self.composition, self.rows, options)
        if reference:
            reference.reinforced_model = self.reinforced
        return reference

    def _trainer(
        self, model, reference: ReferenceModel | None, origins: Mapping[str, str]
    ) -> tuple[UnlearnTrainer, TrainingProgress]:
        """The Trainer and the progress bar of its steps."""
        overall, unlearn, data = self.settings.overall, self.settings.unlearn, self.settings.dataset
        settings = self.settings if self.logger else _without_checkpoints(self.settings)
        arguments = training_arguments(settings, model.device.type, self._steps_folder)
        pairs = Pairs(self.rows, data.dataset_seed)
        at_once = data.batch_size * arguments.world_size
        group_size = at_once * unlearn.gradient_accumulation_steps if data.group_by_length else 0
        sampler = EpochSampler(pairs, overall.seed, group_size, at_once if arguments.world_size > 1 else 1)
        trainer = UnlearnTrainer(
            model,
            arguments,
            TrainingJob(
                pairs, sampler, Collator(pad_id(self.tokenizer)), self.composition, reference, origins
            ),
            make_step_options(settings, self.composition, self.mask),
            self.logger.step if self.logger else lambda record: None,
        )
        title = f"training with {settings.method.name}" if self.logger else "training the reinforced model"
        bar = TrainingProgress(title, overall.quiet)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(bar)
        trainer.add_callback(StepCheckpoints())
        if settings.unlearn.save_steps:
            trainer.add_callback(SaveOnTermination())
        return trainer, bar


@contextlib.contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Take numbers below 1e-38 as 0: a CPU computes with them several times slower, and a loss that has
    nothing left to do has gradients full of them."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def encoded_answers(rows: list[dict], template: Template, max_length: int) -> list[Encoded]:
    """Questions and answers of rows; those that are too long, which no evaluation scores, are left out."""
    found = []
    for row in rows:
        context = {key: row[key] for key in ("id", *CONTEXT) if key in row}
        try:
            found.append(template.encode(context | {"answer": row["answer"]}, max_length))
        except UserError:
            continue
    if not found:
        raise UserError("unlearn.stop kl: every retain row is longer than dataset.max_length; raise it")
    return found


def _origins(model, rows: Mapping[str, list]) -> dict[str, str]:
    """Fingerprints of what a run begins with, and must begin with again to go on: the initial model, which is
    the reference too, and the tokenised rows, in which the template shows."""
    tokens = {f"{part} rows (or template)": part_fingerprint(encoded) for part, encoded in rows.items()}
    return {"initial model": model_fingerprint(model), **tokens}


def _without_checkpoints(settings: Settings) -> Settings:
    """The same settings for a training that leaves nothing and is taken in plain steps."""
    return replace(
        settings,
        unlearn=replace(settings.unlearn, save_steps=0),
    )


def _resumed_checkpoint(settings: Settings, steps_folder: Path, logger: RunLogger) -> str | None:
    """The newest whole step checkpoint, with the log cut back to it; None for a fresh start."""
    if settings.unlearn.resume_path is None:
        return None
    state = process_state(settings)
    found = [newest_checkpoint(steps_folder)] if state.is_main_process else [None]
    if state.is_main_process:
        drop_all_but(steps_folder, found[0])
        logger.rewind(step_of(found[0]) if found[0] else -1)
    if state.num_processes > 1:
        broadcast_object_list(found)
    return str(found[0]) if found[0] else None


def training_arguments(settings: Settings, device: str, steps_folder: Path) -> TrainingArguments:
    """The Trainer's arguments for a run on `device` that keeps step checkpoints in `steps_folder`."""
    unlearn, overall = settings.unlearn, settings.overall
    several = process_state(settings).num_processes > 1
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
        optim=getattr(settings.optimizer, "trainer_name", AdamW.trainer_name),
        adam_beta2=unlearn.adam_beta2,
        max_grad_norm=unlearn.max_grad_norm,
        seed=overall.seed,
        bf16=resolve_precision(overall.precision, device) == "bf16",
        activation_checkpointing=unlearn.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=device == "cpu",
        # The Trainer writes this into the model's config, which is saved; our own passes ask for no cache.
        use_cache=True,
        # DeepSpeed sums over processes at each micro-batch, and refuses not to.
        accelerator_config={
            "gradient_accumulation_kwargs": {"sync_each_batch": zero_plan(overall.engine) is not None}
        },
        ddp_timeout=int(PROCESS_TIMEOUT.total_seconds()),
        # Every pass reaches every trained weight (where it does not, gradients are summed by hand), and the
        # search for others takes the head for unused where it is applied apart.
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if device == "cpu" and several else None,
        dataloader_pin_memory=device != "cpu",
        remove_unused_columns=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if unlearn.save_steps else "no",
        save_steps=unlearn.save_steps or 500,
        report_to=[],  # the run's logger has every record, under the names of its terms
        disable_tqdm=True,
    )


def make_step_options(
    settings: Settings, composition: Composition, mask: WeightMask | None = None
) -> StepOptions:
    """The optimizer, flatness wrapper, averaging, mask and combiner of a run. A wrapper of radius 0 is left
    out: it would change nothing."""
    averages = isinstance(settings.flatness, WA)
    flattens = settings.flatness is not None and not averages and settings.flatness.rho > 0
    return StepOptions(
        sophia=settings.optimizer if isinstance(settings.optimizer, Sophia) else None,
        flatness=settings.flatness if flattens else None,
        averaging=Averaging(settings.flatness) if isinstance(settings.flatness, WA) else None,
        mask=mask,
        combiner=None if isinstance(settings.combiner, Sum) else settings.combiner,
        zero=zero_plan(settings.overall.engine),
        weights=(composition.side_weight("forget"), composition.side_weight("retain")),
    )
