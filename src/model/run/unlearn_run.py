"""The steps of a run: rows -> model -> objective -> training -> evaluation -> run folder."""

import copy
import itertools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.encoding import Encoded, Template
from ...core.files import UserError, reading_once
from ...core.generation import learned_positions
from ...core.sharing import Share
from ...dataset import ForgetSet, load_evaluation, load_rows
from ...dataset.neutral_texts import ROWS as NEUTRAL_TEXTS
from ...dataset.neutral_texts import load_neutral_texts
from ...loggers import LOGGERS, RunLocation, RunLogger
from ...loggers.logger import Results
from ...metrics.pii_few_shot import few_shot_sets
from ...metrics.spec import select
from ...unlearn import Composition
from ...unlearn.base import Edit
from ...unlearn.edits.reinforce import Reinforce
from ..benchmarks.benchmark_runner import (
    BenchmarkRun,
    check_benchmarks,
    merge_benchmarks,
    run_in_memory,
    run_initial_model,
)
from ..evaluation import Occasion, check_original, evaluate, evaluate_cached, template_of
from ..judges import check_judges
from ..load.loading import (
    initial_tokenizer,
    load_initial,
    load_model,
    load_quantized,
    lost_update_fraction,
    model_fingerprint,
    resolve_precision,
    train_only,
)
from ..load.sharded import whole_model
from ..masks.mask_making import load_mask
from ..settings.run_settings import Settings
from ..training_data import (
    RequestedParts,
    check_network,
    choose_forget_rows,
    part_fingerprint,
    part_sources,
    training_rows,
)
from .checkpoints import drop_everything, drop_left_by_kill
from .environment import environment, weight_count
from .places import process_state, run_place, share_of
from .progress import activity
from .run_report import write_run_report
from .training_metrics import check_rows, metrics_while_training, warn_of_unfit_task

log = logging.getLogger(__name__)

LOST_UPDATE_LIMIT = 0.5
KNOWN = 0.25
"""Probability per token of an answer, below which a model hardly knows it."""


@dataclass(frozen=True)
class Outcome:
    """What a run found. `before` is None when it was not asked for, `folder` when the logger keeps
    nothing."""

    before: Results | None
    after: Results
    folder: Path | None
    train_seconds: float
    model: Any
    """The run's model: trained or edited, or as it was loaded."""
    tokenizer: Any
    is_main: bool = True
    """False on all but the first of several processes, which have measured nothing."""
    training: dict[str, Any] = field(default_factory=dict)
    """Configured and done epochs and steps; empty where no step was taken."""
    best: dict[str, Any] = field(default_factory=dict)
    """Content of best.json; empty where no best was chosen."""
    report: Path | None = None
    """The run's report.html; None where there is none."""


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Args:
        model: the plain model, adapters merged.
        seconds: time of the training, reference values included, evaluations while training left out.
        record: configured and done epochs and steps, and how it ended; section `training` of
            environment.json. Empty where nothing was trained.
        best: content of best.json; empty where no best was chosen.
    """

    model: Any
    seconds: float
    record: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """The tokenised training parts (`forget`, `retain`), the row sets to measure, and what the rows of each
    training part come from."""

    training: dict[str, list[Encoded]]
    evaluation: dict[str, list[dict]]
    sources: dict[str, str]


@dataclass(frozen=True)
class Prepared:
    """What is ready before a model is loaded: whatever can be wrong with it has been reported by then."""

    tokenizer: Any
    composition: Composition
    rows: Rows
    logger: RunLogger


class Unlearn:
    """One run of one method on one model.

    `run()` reads from top to bottom; each step takes and returns values, and nothing is kept on the object
    but the settings.
    """

    def __init__(self, settings: Settings):
        self.settings = settings

    def run(self) -> Outcome:
        """Do what the settings say.

        Returns:
            The results before and after, the model, and the run folder.

        Raises:
            UserError: for what the user can mend; then no result was written.
        """
        start, settings = time.time(), self.settings
        with activity("reading tokenizer and rows", settings.overall.quiet):
            prepared = self.prepared()
        logger, rows, composition = prepared.logger, prepared.rows, prepared.composition
        model, trains = self.model(), settings.method.trains
        weights = weight_count(model)
        check_positions(model, prepared.tokenizer, rows, settings)
        mask = load_mask(settings, model) if trains else None
        composition.check(model)
        trained = composition.trained(model)
        with logger.open(settings.resolved(), settings.unlearn.resume_path is not None):
            before = self.before(model, prepared) if trains else None
            reinforced, making = self.reinforced(model, prepared) if settings.method.edits else (None, 0.0)
            train_only(model, trained)
            trained_model = self.unlearned(model, prepared, reinforced, mask)
            model, seconds = trained_model.model, making + trained_model.seconds
            if trains and settings.unlearn.save_adapter != "only":
                with activity("saving the model", settings.overall.quiet):
                    logger.model(whole_model(model, keep=self.share.is_main), prepared.tokenizer)
            after = self.after(model, prepared, before)
            logger.evaluation("", after)
            processes = process_state(settings).num_processes
            facts = environment(settings, processes, start, seconds, trained_model.record)
            facts |= {"weights": weights, "data": _data_facts(rows)}
            report = write_run_report(settings, logger, facts)
            logger.environment(facts)
            if trains and logger.folder:
                drop_everything(logger.folder / "checkpoints")
        is_main = process_state(settings).is_main_process
        return Outcome(
            before,
            after,
            logger.folder,
            seconds,
            model,
            prepared.tokenizer,
            is_main,
            trained_model.record,
            trained_model.best,
            report,
        )

    @property
    def share(self) -> Share:
        """The part of this process in the rows that are measured."""
        return share_of(self.settings)

    def prepared(self) -> Prepared:
        """Logger, tokenizer, objectives and rows, each checked before anything is written."""
        settings = self.settings
        logger = self.logger()
        if logger.folder:
            drop_left_by_kill(logger.folder)
        logger.check(settings.unlearn.resume_path is not None)
        composition = settings.composition
        check_network(settings, composition.parts)
        tokenizer = initial_tokenizer(settings.overall)
        check_original(settings, tokenizer)
        if process_state(settings).is_main_process:
            check_judges(settings, select(settings.metric_names))
            check_benchmarks(settings, tokenizer)
        with reading_once():
            rows = self.rows(tokenizer, composition)
        check_rows(settings, rows.evaluation, rows.training)
        warn_of_unfit_task(settings, rows.evaluation)
        return Prepared(tokenizer, composition, rows, logger)

    def rows(self, tokenizer, composition: Composition) -> Rows:
        """Read and tokenise every row that the run needs."""
        data = self.settings.dataset
        chosen, rest = choose_forget_rows(
            load_rows(data.forget_dataset_name, data.folder, data.column_names),
            data.forget_ratio,
            data.dataset_seed,
        )
        limit = self.settings.evaluate.rows or None
        forget = ForgetSet(
            data.forget_dataset_name, data.folder, chosen, data.column_names, data.retain_dataset_name
        )
        sets = load_evaluation(forget)
        if self.settings.evaluate.neutral_text:
            sets[NEUTRAL_TEXTS] = load_neutral_texts(self.settings.evaluate.neutral_text, data.folder)
        measured = [*self.settings.metric_names, *metrics_while_training(self.settings)]
        sets |= few_shot_sets(sets, measured)
        evaluation = {name: table[:limit] for name, table in sets.items()}
        parts = composition.parts | ({"forget"} if self.settings.method.edits else set())
        template = Template(tokenizer, data.template, data.tags)
        wanted = RequestedParts(parts, composition.alternates, chosen, rest)
        training = training_rows(self.settings, template, wanted)
        return Rows(training, evaluation, part_sources(self.settings, wanted))

    def logger(self) -> RunLogger:
        """The run's logger; of several processes only the first keeps anything."""
        settings, state = self.settings, process_state(self.settings)
        kind = settings.overall.logger if state.is_main_process else "none"
        wandb = settings.wandb_logger
        return LOGGERS[kind](
            RunLocation(
                *run_place(settings),
                settings.logger.overwrite,
                not settings.method.trains,
                wandb.project,
                wandb.mode,
                settings.logger.tensorboard,
            )
        )

    def model(self):
        """The initial model on its device, with a warning where its precision cannot hold the updates."""
        overall, unlearn = self.settings.overall, self.settings.unlearn
        rank = process_state(self.settings).local_process_index
        if self.settings.is_quantized:
            model = load_quantized(overall, rank)
        else:
            model = load_initial(overall, rank, shardable=True)
        if self.settings.needs_double_backward:
            # Fused attention kernels have no second derivative.
            model.set_attn_implementation("eager")
        check_budget(model.config, self.settings.evaluate)
        share = lost_update_fraction(model, unlearn.lr)
        if share > LOST_UPDATE_LIMIT:
            log.warning(
                "overall.precision bf16_pure: a step of unlearn.lr %g rounds away for %.0f %% of the weights;"
                " use bf16 (fp32 weights, bf16 arithmetic) or a higher lr",
                unlearn.lr,
                100 * share,
            )
        return model

    def before(self, model, prepared: Prepared) -> Results | None:
        """Results of the initial model, from the cache when they are there."""
        if not self.settings.evaluate.before:
            return None
        tokenizer, rows = prepared.tokenizer, prepared.rows.evaluation
        occasion = Occasion("measuring the initial model", self.share, "meanwhile")
        results = evaluate_cached(model, tokenizer, rows, self.settings, occasion)
        if not self.share.is_main:
            return None
        if self.settings.benchmark_tasks:
            results = merge_benchmarks(results, run_initial_model(model, tokenizer, self.settings))
        prepared.logger.evaluation("before", results)
        warn_of_unknown_rows(results.metrics, self.settings)
        return results

    def after(self, model, prepared: Prepared, before: Results | None) -> Results:
        """Results of the run's model, for the first process; `before`: of the initial model."""
        tokenizer, folder = prepared.tokenizer, prepared.logger.folder
        passes = "meanwhile" if self.settings.method.trains else "always"
        if self.settings.is_quantized:
            # Adapters that are not merged are no part of the fingerprint that names kept passes.
            passes = "never"
        occasion = Occasion("measuring", self.share, passes, before)
        results = evaluate(model, tokenizer, prepared.rows.evaluation, self.settings, occasion)
        if not self.share.is_main or not self.settings.benchmark_tasks:
            return results
        found = run_in_memory(model, tokenizer, self.settings, BenchmarkRun("benchmarks", folder))
        # A run that does not train measures the initial model itself.
        initial = (before.metrics if before else {}) if self.settings.method.trains else None
        return merge_benchmarks(results, found, initial)

    def reinforced(self, model, prepared: Prepared) -> tuple[Any, float]:
        """A frozen model that knows the forget rows even better, and the seconds its making took: the one
        that was named, or a copy of the initial model trained on them."""
        from .training import Training

        settings = self.settings
        path = settings.components[f"unlearn.{settings.method.forget}"].reinforced
        if path:
            precision = resolve_precision(settings.overall.precision, model.device.type)
            with activity(f"loading {path}", settings.overall.quiet):
                named = load_model(path, precision, str(model.device)).requires_grad_(False)
            if model_fingerprint(named) == model_fingerprint(model):
                raise UserError(
                    f"unlearn.{settings.method.forget}.reinforced: {path} equals the initial model: it knows"
                    " nothing better"
                )
            return named, 0.0
        forget = {"forget": prepared.rows.training["forget"]}
        learning = Composition(Reinforce(), None)
        training = Training(settings, copy.deepcopy(model), prepared.tokenizer, forget, learning)
        trained = training.run()
        return trained.model.eval().requires_grad_(False), trained.seconds

    def unlearned(self, model, prepared: Prepared, reinforced, mask) -> Trained:
        """The model after training or editing, and what is to be said about that."""
        composition = prepared.composition
        if composition.parts:
            # The Trainer takes a second to load, which a run that only measures need not wait for.
            with activity("loading what training needs", self.settings.overall.quiet):
                from .training import Training

            return Training(
                self.settings,
                model,
                prepared.tokenizer,
                prepared.rows.training,
                composition,
                prepared.logger,
                reinforced,
                mask,
                prepared.rows.evaluation,
            ).run()
        if isinstance(composition.forget, Edit):
            model.load_state_dict(composition.forget.edit(model.state_dict(), reinforced.state_dict()))
        return Trained(model, 0.0)


def _data_facts(rows: Rows) -> dict[str, dict[str, Any]]:
    """Part -> how many rows it has, in how many texts where a row has several, what they come from, and their
    fingerprint."""
    found: dict[str, dict[str, Any]] = {}
    for part, encoded in rows.training.items():
        facts: dict[str, Any] = {"rows": len(encoded)}
        if any(isinstance(row, list) for row in encoded):
            facts["texts"] = sum(map(len, encoded))  # type: ignore[arg-type]
        source = rows.sources.get(part)
        found[part] = (
            facts | ({"from": source} if source else {}) | {"fingerprint": part_fingerprint(encoded)}
        )
    return found


def warn_of_unknown_rows(before: Mapping[str, float | None], settings: Settings) -> None:
    """Warn where the initial model does not know what it is to forget: then every method looks perfect."""
    known = before.get("forget/prob")
    if settings.method.forget and known is not None and known < KNOWN:
        log.warning(
            "%s does not know the forget rows: it gives their answers a probability of %.2g per token, and a"
            " model that has learned them nearly 1. There is little to forget, and figures of forgetting mean"
            " little; was it fine-tuned on these rows (finetune_model.py)?",
            settings.overall.model_name,
            known,
        )


def check_positions(model, tokenizer, rows: Rows, settings: Settings) -> None:
    """UserError naming the first row that a model with a table of positions has too few of: it would fail in
    the middle of the run."""
    context = learned_positions(model)
    if context is None:
        return
    for part, encoded in rows.training.items():
        for row in itertools.chain.from_iterable(r if isinstance(r, list) else [r] for r in encoded):
            if len(row.input_ids) > context:
                raise UserError(
                    f"{part} row {row.id!r} has {len(row.input_ids)} tokens, and the model has learned"
                    f" {context} positions; shorten the row"
                )
    template, budget = template_of(settings, tokenizer), settings.evaluate.max_new_tokens
    for name, table in rows.evaluation.items():
        for row in table:
            asked = template.prompt_ids(row["question"]) if "question" in row else ()
            tokens = len(asked or template.text_ids(row.get("prompt", "")))
            if tokens + budget > context:
                raise UserError(
                    f"row {row['id']!r} ({name}): its prompt of {tokens} tokens and evaluate.max_new_tokens"
                    f" {budget} exceed the {context} positions that the model has learned; lower that key, or"
                    " shorten the row"
                )


def check_budget(config, evaluation) -> None:
    """UserError when answers may grow longer than what the model can read."""
    context = getattr(config, "max_position_embeddings", None)
    turns = evaluation.rounds + 1 if evaluation.decoding == "more" else 1
    if context and turns * evaluation.max_new_tokens >= context:
        often = f" in {turns} turns" if turns > 1 else ""
        raise UserError(
            f"evaluate.max_new_tokens {evaluation.max_new_tokens}{often}: the model's context is {context} "
            "tokens, prompt and answer together; lower it"
        )
