"""The training loop: transformers' Trainer with our loss, our row order and means over the whole accumulation window.

One optimizer step: forward and backward of each micro-batch, every term divided by its count over all micro-batches of
the step and all processes; then the Trainer clips, steps and logs. Nothing of its loop is copied here.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from core.files import UserError
from core.likelihood import count_labels
from unlearn.compose import Composition, WeightedTerm


def part_counts(batch: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """What terms can be averaged over, for each part of a batch."""
    return {name: {"rows": torch.tensor(len(part["labels"])),
                   "tokens": count_labels(part["labels"]).sum(),
                   "attended": part["attention_mask"].sum()} for name, part in batch.items()}


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
        means = {name: term.term.total / num_items_in_batch[term.term.part][term.term.over] for name, term in terms.items()}
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
