"""The way through a run: rows -> model -> objective -> training -> evaluation -> run folder."""

import copy
import logging
import os
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PrinterCallback

from core.encoding import Encoded, Template
from core.files import UserError
from core.generation import pad_id
from dataset import load_evaluation, load_rows
from dataset.collate import Collator
from dataset.pairs import EpochSampler, Pairs
from loggers import LOGGERS, Place, RunLogger
from loggers.base import Results
from metrics.engine import select
from model.checkpoints import StepCheckpoints, drop_broken, newest_checkpoint, step_of
from model.environment import environment
from model.evaluate import check_original, evaluate, evaluate_cached
from model.loading import (
    add_lora,
    choose_device,
    choose_precision,
    load_model,
    load_tokenizer,
    merge_lora,
    model_fingerprint,
    swallowed_share,
    train_only,
)
from model.masks import load_mask
from model.progress import TrainingBar
from model.readers import check_readers
from model.reference import make_reference
from model.rows import choose_forget_rows, training_rows
from model.settings import Settings
from model.training import make_stepping, needs_double_backward, training_arguments
from unlearn import Composition, compose
from unlearn.edits.reinforce import Reinforce
from unlearn.mask import WeightMask
from unlearn.trainer import UnlearnTrainer

log = logging.getLogger(__name__)

SWALLOWED_TOO_MUCH = 0.5
PATIENCE = timedelta(hours=24)
"""How long other processes wait while the first measures the start model."""


@dataclass(frozen=True)
class Outcome:
    """What a run found. `before` is None when it was not asked for, `folder` when the logger keeps
    nothing."""

    before: Results | None
    after: Results
    folder: Path | None
    train_seconds: float
    is_main: bool = True
    """False on all but the first of several processes, which have measured nothing."""


@dataclass(frozen=True)
class Rows:
    """The tokenised training parts (`forget`, `retain`) and the row sets to measure."""

    training: dict[str, list[Encoded]]
    evaluation: dict[str, list[dict]]


class Unlearn:
    """One run of one method on one model.

    `run()` reads from top to bottom; each step takes and returns values, and nothing is kept on the object
    but the settings.
    """

    def __init__(self, settings: Settings):
        self.settings = settings

    def run(self) -> Outcome:
        """Do what the settings say. UserError for what the user can mend; then no result was written."""
        start, settings = time.time(), self.settings
        resume = settings.unlearn.resume_path is not None
        logger = self.logger()
        logger.check(resume)
        tokenizer = load_tokenizer(settings.overall.tokenizer_name or settings.overall.model_name)
        check_original(settings, tokenizer)
        if process_state(settings).is_main_process:
            check_readers(settings, select(settings.metric_names))
        composition = compose(
            settings.method, settings.components, settings.unlearn.forget_weight, settings.unlearn.gamma
        )
        rows = self.rows(tokenizer, composition)
        model, trains = self.model(), settings.method.trains
        mask = load_mask(settings, model) if trains else None
        composition.check(model)
        trained = composition.trained(model)
        with logger.open(settings.resolved(), resume):
            before = self.before(model, tokenizer, rows, logger) if trains else None
            reinforced, making = (
                self.reinforced(model, tokenizer, rows) if settings.method.edits else (None, 0.0)
            )
            train_only(model, trained)
            model, training = self.unlearned(model, reinforced, mask, tokenizer, rows, composition, logger)
            if trains:
                logger.model(model, tokenizer)
            after = self.after(model, tokenizer, rows)
            logger.evaluation("", after)
            logger.environment(
                environment(settings, process_state(settings).num_processes, start, making + training)
            )
        is_main = process_state(settings).is_main_process
        return Outcome(before, after, logger.folder, making + training, is_main)

    def rows(self, tokenizer, composition: Composition) -> Rows:
        """Read and tokenise every row that the run needs; errors in the data show here, before anything is
        written."""
        data = self.settings.dataset
        chosen, rest = choose_forget_rows(
            load_rows(data.forget_dataset_name, data.folder), data.forget_ratio, data.dataset_seed
        )
        limit = self.settings.evaluate.rows or None
        sets = load_evaluation(data.forget_dataset_name, data.folder, chosen)
        evaluation = {name: table[:limit] for name, table in sets.items()}
        parts = composition.parts | ({"forget"} if self.settings.method.edits else set())
        template = Template(tokenizer, data.template, data.tags)
        training = training_rows(self.settings, template, parts, composition.alternates, chosen, rest)
        return Rows(training, evaluation)

    def logger(self) -> RunLogger:
        """The run's logger; of several processes only the first keeps anything."""
        settings, state = self.settings, process_state(self.settings)
        kind = settings.overall.logger if state.is_main_process else "none"
        wandb = settings.wandb_logger
        return LOGGERS[kind](
            Place(*run_place(settings), settings.logger.overwrite, wandb.project, wandb.mode)
        )

    def model(self):
        """The start model on its device, with a warning where its precision cannot hold the updates."""
        overall, unlearn = self.settings.overall, self.settings.unlearn
        device = choose_device(overall.device, process_state(self.settings).local_process_index)
        precision = choose_precision(overall.precision, device)
        model = load_model(overall.model_name, precision, device, overall.random_init, overall.seed)
        if needs_double_backward(self.settings):
            model.set_attn_implementation("eager")
        check_budget(model.config, self.settings.evaluate)
        share = swallowed_share(model, unlearn.lr)
        if share > SWALLOWED_TOO_MUCH:
            log.warning(
                "overall.precision bf16_pure: a step of unlearn.lr %g rounds away for %.0f %% of the weights;"
                " use bf16 (fp32 weights, bf16 arithmetic) or a higher lr",
                unlearn.lr,
                100 * share,
            )
        return model

    def before(self, model, tokenizer, rows: Rows, logger: RunLogger) -> Results | None:
        """Results of the start model, from the cache when they are there."""
        if not self.settings.evaluate.before or not process_state(self.settings).is_main_process:
            return None
        results = evaluate_cached(
            model, tokenizer, rows.evaluation, self.settings, "measuring the start model"
        )
        logger.evaluation("before", results)
        return results

    def after(self, model, tokenizer, rows: Rows) -> Results:
        """Results of the run's model, measured by the first process."""
        if not process_state(self.settings).is_main_process:
            return Results({})
        return evaluate(model, tokenizer, rows.evaluation, self.settings, "measuring")

    def reinforced(self, model, tokenizer, rows: Rows) -> tuple[Any, float]:
        """The model that knows the forget rows even better, frozen, and the seconds its making took: the one
        that was named, or a copy of the start model trained on them."""
        path = self.settings.components[f"unlearn.{self.settings.method.forget}"].reinforced
        if path:
            precision = choose_precision(self.settings.overall.precision, model.device.type)
            named = load_model(path, precision, str(model.device)).requires_grad_(False)
            if model_fingerprint(named) == model_fingerprint(model):
                raise UserError(
                    f"unlearn.{self.settings.method.forget}.reinforced: {path} equals the start model: it"
                    " knows nothing better"
                )
            return named, 0.0
        forget = Rows({"forget": rows.training["forget"]}, {})
        trained, seconds = self.train(copy.deepcopy(model), tokenizer, forget, Composition(Reinforce(), None))
        return trained.eval().requires_grad_(False), seconds

    def unlearned(
        self, model, reinforced, mask, tokenizer, rows: Rows, composition: Composition, logger: RunLogger
    ) -> tuple[Any, float]:
        """The model after training or editing, and the seconds that took."""
        if composition.parts:
            return self.train(model, tokenizer, rows, composition, logger, reinforced, mask)
        if reinforced is not None:
            model.load_state_dict(composition.forget.edit(model.state_dict(), reinforced.state_dict()))
        return model, 0.0

    def train(
        self,
        model,
        tokenizer,
        rows: Rows,
        composition: Composition,
        logger: RunLogger | None = None,
        reinforced=None,
        mask: WeightMask | None = None,
    ) -> tuple[Any, float]:
        """Train in place; returns the plain model and the seconds it took, reference values included. Without
        a logger the training leaves nothing and cannot be resumed."""
        start = time.time()
        overall, unlearn, data = self.settings.overall, self.settings.unlearn, self.settings.dataset
        if unlearn.use_lora:
            model = add_lora(model, self.settings.lora, overall.seed, composition.trained(model))
        precision = choose_precision(overall.precision, model.device.type)
        reference = make_reference(
            model,
            tokenizer,
            composition,
            rows.training,
            overall.cache,
            self.settings.evaluate.batch_tokens,
            precision,
            int(overall.reference_cache_gb * 1e9),
            reinforced,
        )
        steps_folder = checkpoints_folder(self.settings) if logger else overall.cache / "trainer"
        if self.settings.logger.tensorboard:
            os.environ["TENSORBOARD_LOGGING_DIR"] = str(steps_folder.parent / "tensorboard")
        kept = self.settings if logger else without_checkpoints(self.settings)
        arguments = training_arguments(
            kept,
            precision,
            model.device.type,
            steps_folder,
            process_state(self.settings).num_processes,
            int(PATIENCE.total_seconds()),
        )
        pairs = Pairs(rows.training, data.dataset_seed)
        at_once = data.batch_size * arguments.world_size
        group_size = at_once * unlearn.gradient_accumulation_steps if data.group_by_length else 0
        sampler = EpochSampler(pairs, overall.seed, group_size, at_once if arguments.world_size > 1 else 1)
        row_ids = {part: [row.id for row in encoded] for part, encoded in pairs.parts.items()}
        bar = TrainingBar(self.settings.method.name if logger else "reinforcing", overall.quiet)
        trainer = UnlearnTrainer(
            model,
            arguments,
            pairs,
            sampler,
            composition,
            reference,
            Collator(pad_id(tokenizer)),
            row_ids,
            logger.step if logger else lambda record: None,
            [bar, StepCheckpoints()],
            make_stepping(kept, mask),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.run(self.going_on(steps_folder, logger) if logger else None)
        return merge_lora(model), time.time() - start

    def going_on(self, steps_folder: Path, logger: RunLogger) -> str | None:
        """The step checkpoint to go on from, with the log cut back to it; None for a fresh start."""
        if self.settings.unlearn.resume_path is None:
            return None
        state = process_state(self.settings)
        found = [newest_checkpoint(steps_folder)] if state.is_main_process else [None]
        if state.is_main_process:
            drop_broken(steps_folder)
            logger.rewind(step_of(found[0]) if found[0] else 0)
        if state.num_processes > 1:
            broadcast_object_list(found)
        return str(found[0]) if found[0] else None


def check_budget(config, evaluation) -> None:
    """UserError when answers may grow longer than what the model can read."""
    context, turns = (
        getattr(config, "max_position_embeddings", None),
        evaluation.rounds + 1 if evaluation.decoding == "more" else 1,
    )
    if context and turns * evaluation.max_new_tokens >= context:
        often = f" in {turns} turns" if turns > 1 else ""
        raise UserError(
            f"evaluate.max_new_tokens {evaluation.max_new_tokens}{often}: the model's context is {context} "
            "tokens, prompt and answer together; lower it"
        )


def process_state(settings: Settings) -> PartialState:
    """Which process of how many this is (one, unless a launcher started several)."""
    return PartialState(cpu=choose_device(settings.overall.device) == "cpu", timeout=PATIENCE)


def without_checkpoints(settings: Settings) -> Settings:
    """The same settings for a training run that leaves nothing and is taken in plain steps."""
    return replace(
        settings,
        unlearn=replace(settings.unlearn, save_steps=0),
        logger=replace(settings.logger, tensorboard=False),
    )


def run_place(settings: Settings) -> tuple[str, str]:
    """Root and name of the run folder, the same on every process."""
    resume_path = settings.unlearn.resume_path
    if resume_path and resume_path != "auto":
        return str(Path(resume_path).parent), Path(resume_path).name
    return settings.json_logger.root, settings.logger.name or default_name(settings)


def checkpoints_folder(settings: Settings) -> Path:
    """Where the Trainer may write, the same on every process; out of the way when the run is to leave
    nothing."""
    if settings.overall.logger == "none":
        return settings.overall.cache / "trainer"
    return Path(*run_place(settings)).expanduser() / "checkpoints"


def default_name(settings: Settings) -> str:
    stamp = start_stamp(process_state(settings).num_processes)
    return f"{settings.method.name}-{settings.dataset.forget_dataset_name}-{stamp}"


@cache
def start_stamp(processes: int) -> str:
    """The time at which this program first asked; of several processes the first decides for all."""
    stamps = [datetime.now().strftime("%Y%m%d-%H%M%S")]
    if processes > 1:
        broadcast_object_list(stamps)
    return stamps[0]
