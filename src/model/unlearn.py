"""The way through a run: rows -> model -> objective -> training -> evaluation -> run folder."""

import logging
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import PrinterCallback, TrainingArguments

from core.encoding import Encoded, Template
from core.files import UserError
from core.generation import pad_id
from dataset import load_evaluation, load_rows
from dataset.collate import Collator
from dataset.pairs import EpochSampler, Pairs
from loggers import LOGGERS, RunLogger
from loggers.base import Results
from model.evaluate import evaluate, evaluate_cached
from model.loading import choose_device, choose_precision, load_model, load_tokenizer, swallowed_share
from model.progress import TrainingBar
from model.reference import make_reference
from model.settings import Settings
from unlearn import Composition, compose
from unlearn.trainer import UnlearnTrainer

log = logging.getLogger(__name__)

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "scipy", "rouge_score")
SWALLOWED_TOO_MUCH = 0.5


@dataclass(frozen=True)
class Outcome:
    """What a run found. `before` is None when it was not asked for, `folder` when the logger keeps nothing."""

    before: Results | None
    after: Results
    folder: Path | None
    train_seconds: float
    seconds: float


@dataclass(frozen=True)
class Rows:
    """The tokenised training parts (`forget`, `retain`) and the row sets to measure."""

    training: dict[str, list[Encoded]]
    evaluation: dict[str, list[dict]]


class Unlearn:
    """One run of one method on one model.

    `run()` reads from top to bottom; each step takes and returns values, and nothing is kept on the object but the settings.
    """

    def __init__(self, settings: Settings):
        self.settings = settings

    def run(self) -> Outcome:
        """Do what the settings say. UserError for what the user can mend; then no result was written."""
        start = time.time()
        settings = self.settings
        tokenizer = load_tokenizer(settings.overall.tokenizer_name or settings.overall.model_name)
        composition = compose(settings.method, settings.components, settings.unlearn.forget_weight, settings.unlearn.gamma)
        rows = self.rows(tokenizer, composition)
        logger = self.logger()
        with logger.open(settings.resolved()):
            model = self.model()
            before = self.before(model, tokenizer, rows, logger)
            train_seconds = self.train(model, tokenizer, rows, composition, logger) if composition.parts else 0.0
            if composition.parts:
                logger.model(model, tokenizer)
            after = self.after(model, tokenizer, rows)
            logger.evaluation("", after)
            logger.environment(self.environment(start, train_seconds))
        return Outcome(before, after, logger.folder, train_seconds, time.time() - start)

    def rows(self, tokenizer, composition: Composition) -> Rows:
        """Read and tokenise every row that the run needs; errors in the data show here, before anything is written."""
        data = self.settings.dataset
        folder = Path(data.data_dir).expanduser() if data.data_dir else None
        evaluation = load_evaluation(data.forget_dataset_name, folder)
        chosen, rest = choose_forget_rows(load_rows(data.forget_dataset_name, folder), data.forget_ratio, data.dataset_seed)
        texts = {"forget": chosen}
        if "retain" in composition.parts:
            texts["retain"] = rest if data.self_retain else load_rows(data.retain_dataset_name, folder)
            if not texts["retain"]:
                raise UserError("dataset.self_retain: forget_ratio leaves no forget row to retain; lower it")
        template = Template(tokenizer, data.template)
        training = {part: [template.encode(row, data.max_length) for row in texts[part]] for part in sorted(composition.parts)}
        return Rows(training, evaluation)

    def logger(self) -> RunLogger:
        """The run's logger; of several processes only the first keeps anything."""
        name = self.settings.logger.name or default_name(self.settings)
        kind = self.settings.overall.logger if process_state(self.settings).is_main_process else "none"
        return LOGGERS[kind](self.settings.json_logger.root, name, self.settings.logger.overwrite)

    def model(self):
        """The start model on its device, with a warning where its precision cannot hold the updates."""
        overall, unlearn = self.settings.overall, self.settings.unlearn
        device = choose_device(overall.device, process_state(self.settings).local_process_index)
        precision = choose_precision(overall.precision, device)
        model = load_model(overall.model_name, precision, device, overall.random_init, overall.seed)
        share = swallowed_share(model, unlearn.lr)
        if share > SWALLOWED_TOO_MUCH:
            log.warning("overall.precision bf16_pure: a step of unlearn.lr %g rounds away for %.0f %% of the weights; "
                        "use bf16 (fp32 weights, bf16 arithmetic) or a higher lr", unlearn.lr, 100 * share)
        return model

    def before(self, model, tokenizer, rows: Rows, logger: RunLogger) -> Results | None:
        """Results of the start model, from the cache when they are there."""
        if not self.settings.evaluate.before or not process_state(self.settings).is_main_process:
            return None
        results = evaluate_cached(model, tokenizer, rows.evaluation, self.settings, "measuring the start model")
        logger.evaluation("before", results)
        return results

    def after(self, model, tokenizer, rows: Rows) -> Results:
        """Results of the run's model, measured by the first process."""
        if not process_state(self.settings).is_main_process:
            return Results({})
        return evaluate(model, tokenizer, rows.evaluation, self.settings, "measuring")

    def train(self, model, tokenizer, rows: Rows, composition: Composition, logger: RunLogger) -> float:
        """Train in place; returns the seconds it took, reference values included."""
        start = time.time()
        overall, unlearn, data = self.settings.overall, self.settings.unlearn, self.settings.dataset
        precision = choose_precision(overall.precision, model.device.type)
        reference = make_reference(model, composition.needs, rows.training, composition.parts, pad_id(tokenizer),
                                   Path(overall.cache_dir), self.settings.evaluate.batch_tokens, precision)
        arguments = self.training_arguments(precision, model.device.type)
        pairs = Pairs(rows.training, data.dataset_seed)
        step_rows = data.batch_size * unlearn.gradient_accumulation_steps * arguments.world_size
        trainer = UnlearnTrainer(
            model, arguments, pairs, EpochSampler(pairs, overall.seed, step_rows if data.group_by_length else 0), composition,
            reference, Collator(pad_id(tokenizer)), {part: [row.id for row in encoded] for part, encoded in rows.training.items()},
            logger.step, [TrainingBar(self.settings.method.name, overall.quiet)])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return time.time() - start

    def training_arguments(self, precision: str, device: str) -> TrainingArguments:
        unlearn, overall = self.settings.unlearn, self.settings.overall
        return TrainingArguments(
            output_dir=str(Path(overall.cache_dir) / "trainer"), num_train_epochs=unlearn.num_epochs, max_steps=unlearn.max_steps,
            per_device_train_batch_size=self.settings.dataset.batch_size,
            gradient_accumulation_steps=unlearn.gradient_accumulation_steps, learning_rate=unlearn.lr,
            weight_decay=unlearn.weight_decay, adam_beta2=unlearn.adam_beta2, max_grad_norm=unlearn.max_grad_norm,
            lr_scheduler_type=unlearn.scheduler, warmup_steps=unlearn.warmup_ratio, bf16=precision == "bf16",
            use_cpu=device == "cpu",
            ddp_backend="gloo" if device == "cpu" and process_state(self.settings).num_processes > 1 else None, seed=overall.seed, save_strategy="no", eval_strategy="no", logging_strategy="steps",
            logging_steps=1, logging_nan_inf_filter=False, report_to=[], disable_tqdm=True, remove_unused_columns=False,
            dataloader_pin_memory=device != "cpu",
        )

    def environment(self, start: float, train_seconds: float) -> dict:
        """What a reader needs to trust and to repeat the run."""
        world = process_state(self.settings).num_processes
        data, unlearn = self.settings.dataset, self.settings.unlearn
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return {
            "command": sys.argv, "started": datetime.fromtimestamp(start, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - start, 1), "train_seconds": round(train_seconds, 1),
            "python": platform.python_version(), "packages": {name: version(name) for name in PACKAGES},
            "git_commit": git_commit(), "platform": platform.platform(), "gpus": gpus, "threads": torch.get_num_threads(),
            "processes": world, "seed": self.settings.overall.seed,
            "effective_batch_size": data.batch_size * unlearn.gradient_accumulation_steps * world,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "peak_gpu_memory_mb": torch.cuda.max_memory_allocated() // 2**20 if gpus else None,
        }


def process_state(settings: Settings) -> PartialState:
    """Which process of how many this is (one, unless a launcher started several)."""
    return PartialState(cpu=choose_device(settings.overall.device) == "cpu")


def choose_forget_rows(rows: Sequence[dict], ratio: float, seed: int) -> tuple[list[dict], list[dict]]:
    """The rows to forget, a seeded choice in their old order, and the rest. `ratio` is a share up to 1, a count above."""
    count = min(len(rows), max(1, round(ratio * len(rows)) if ratio <= 1 else int(ratio)))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = set(order[:count])
    return [row for i, row in enumerate(rows) if i in chosen], [row for i, row in enumerate(rows) if i not in chosen]


def default_name(settings: Settings) -> str:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{settings.method.name}-{settings.dataset.forget_dataset_name}-{stamp}"


def git_commit() -> str | None:
    """The commit this code is at, with `+` when files differ from it; None outside a repository."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout

    try:
        return git("rev-parse", "--short", "HEAD").strip() + ("+" if git("status", "--porcelain", "-uno").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None
