"""The training loop: transformers' Trainer with our loss, our row order and means over the whole accumulation window.

One optimizer step: forward and backward of each micro-batch, every term divided by its count over all micro-batches of
the step and all processes; then the Trainer clips, steps and logs. Nothing of its loop is copied here.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from core.files import UserError
from core.likelihood import count_labels
from unlearn.compose import Composition, WeightedTerm


def part_counts(batch: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """What terms can be averaged over, for each part of a batch. A filler batch (see `dataset.collate`) counts for nothing."""
    weight = 0 if is_filler(batch) else 1
    return {name: {"rows": torch.tensor(weight * len(part["labels"])),
                   "tokens": weight * count_labels(part["labels"]).sum(),
                   "attended": weight * part["attention_mask"].sum()} for name, part in batch.items()}


def is_filler(batch: dict[str, dict[str, Tensor]]) -> bool:
    """True for a batch without any row of its own."""
    return any(int(part["index"][0]) < 0 for part in batch.values())


class EpochTeller(TrainerCallback):
    """Tells the sampler its epoch: the Trainer's own call does not reach it when several processes resume within one."""

    def __init__(self, sampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch + 1e-6))


class UnlearnTrainer(Trainer):
    """Trains `composition` on batches of named parts.

    `row_ids` maps a part name to the ids of its rows, for messages; `on_step` gets one record per optimizer step: every
    term by name (means over the step's rows), the loss, learning rate, gradient norm and tokens per second.
    """

    def __init__(self, model, args: TrainingArguments, pairs, sampler, composition: Composition, reference, collate,
                 row_ids: dict[str, list[str]], on_step: Callable[[dict], None], callbacks: list[TrainerCallback]):
        self.composition, self.reference, self.sampler, self.row_ids = composition, reference, sampler, row_ids
        self.on_step = on_step
        self.term_values: dict[str, Tensor] = {}
        self.step_tokens = 0
        self.step_start = time.perf_counter()
        super().__init__(model=model, args=args, train_dataset=pairs, data_collator=collate, callbacks=callbacks)
        self.add_callback(EpochTeller(sampler))

    def run(self, checkpoint: str | None = None) -> None:
        """Train to the end, from a step checkpoint if one is given; one that is at the end already is only loaded. Leaves the
        model as a plain one: no wrapper, no patched forward, no optimizer state in memory."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise UserError("FSDP and DeepSpeed are not supported yet: the loss, the reference and saving assume whole weights")
        if checkpoint and self._is_finished(checkpoint):
            self._load_from_checkpoint(checkpoint)
        else:
            self.train(resume_from_checkpoint=checkpoint)
        self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=False)
        self.accelerator.free_memory()
        self.optimizer = self.lr_scheduler = self.reference = None

    @staticmethod
    def _is_finished(checkpoint: str) -> bool:
        state = TrainerState.load_from_json(f"{checkpoint}/{TRAINER_STATE_NAME}")
        return state.global_step >= state.max_steps

    def _get_train_sampler(self, train_dataset=None):
        return self.sampler

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The micro-batches of one optimizer step, and the counts its terms are divided by."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = self._window_counts(batches, device)
        self.step_tokens = int(sum(part["attended"] for part in counts.values()))
        return batches, counts

    def _window_counts(self, batches: list[dict], device) -> dict[str, dict[str, Tensor]]:
        window: dict[str, dict[str, Tensor]] = {}
        for batch in batches:
            for part, counts in part_counts(batch).items():
                sums = window.setdefault(part, {})
                for over, count in counts.items():
                    sums[over] = sums.get(over, 0) + count.to(device)
        return {part: {over: self.accelerator.reduce(count, "sum") for over, count in sums.items()}
                for part, sums in window.items()}

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Forward and backward of one micro-batch; `num_items_in_batch` holds the counts of the whole step."""
        model.train()
        batch = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            terms = self.composition.terms(model, batch, self.reference)
        weight = 0 if is_filler(batch) else 1
        means = {name: weight * t.term.total / num_items_in_batch[t.term.part][t.term.over] for name, t in terms.items()}
        loss = sum(terms[name].weight * mean for name, mean in means.items())
        if not torch.isfinite(loss):
            raise UserError(self._not_finite(means, terms, batch))
        # Processes average their gradients and their reported losses; the counts already span all of them.
        loss = loss * self.accelerator.num_processes
        self.accelerator.backward(loss)
        self._remember(means)
        return loss.detach()

    def _not_finite(self, means: dict[str, Tensor], terms: dict[str, WeightedTerm], batch: dict) -> str:
        parts = sorted({term.term.part for term in terms.values()})
        rows = {part: [self.row_ids[part][i] for i in batch[part]["index"].tolist()] for part in parts}
        values = ", ".join(f"{name} = {mean.item():g}" for name, mean in means.items())
        return (f"the loss is not a finite number at step {self.state.global_step + 1} ({values}); rows: {rows}. "
                "The run stops here and this step is not taken. A lower unlearn.lr or forget_weight usually mends it")

    def _remember(self, means: dict[str, Tensor]) -> None:
        for name, mean in means.items():
            self.term_values[name] = self.term_values.get(name, 0) + mean.detach()

    def log(self, logs, start_time=None):
        """Add the terms and the speed to the Trainer's record of a step, and hand it on."""
        if "loss" not in logs:
            return super().log(logs, start_time)
        logs |= {name: self.accelerator.reduce(value, "sum").item() for name, value in self.term_values.items()}
        now = time.perf_counter()
        logs |= {"tokens": self.step_tokens, "tokens_per_second": round(self.step_tokens / (now - self.step_start), 1)}
        self.term_values, self.step_start = {}, now
        super().log(logs, start_time)
        if self.is_world_process_zero():
            self.on_step({"step": self.state.global_step} | logs)

    def floating_point_ops(self, inputs):
        """Not counted: the Trainer's estimate reads one flat batch, and nothing here reports it."""
        return 0
