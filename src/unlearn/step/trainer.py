"""The training loop: transformers' Trainer with our loss, our row order and means over the whole accumulation
window.

One optimizer step: forward and backward of each micro-batch, every term divided by its count over all
micro-batches of the step and all processes; then the Trainer clips, steps and logs. Nothing of its loop is
copied here.

A flatness wrapper asks for the forget gradient at moved weights, and a combiner for one gradient of each
side: then the sides are differentiated apart, processes do not communicate within the step, and the gradients
of the whole step are summed over processes, masked and combined at its end. The extra gradient of an
objective is made there too, before masking and combining.

Sharded weights (FSDP2) come from `model.load`; the Trainer takes such a model as it is. Their step
checkpoints hold whole tensors, so that a run resumes on any number of processes."""

import contextlib
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.optimizer import AcceleratedOptimizer
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ...core.files import UserError, fingerprint
from ...core.freed_memory import release_freed_memory
from ...core.sharding import any_process, gathered, is_sharded, shard_like, whole, whole_state
from ...core.zero import start_passes
from ...optim import Landscape, SophiaG, drawn_nll
from ..base import Counts, Reference, Step, add_up
from ..composition import Composition, WeightedTerm
from ..gradients import diagnosis
from ..scoring import answer_logits
from .callbacks import SetEpochCallback, WeightAveragingCallback
from .derivatives import RandomState
from .gradient_sync import ShardedGradients, is_finite, make_gradients, sum_over_processes
from .sharded_checkpoint import keep_whole_state, load_whole_weights, saving_allowed
from .step_options import StepOptions
from .window import Batch, Window, is_filler
from .zero_engine import ZeroEngine, ZeroOptimizer

OWN_STATE = "unlearn_state.pt"
"""File of a step checkpoint with the state of objectives and of weight averaging."""

UNREADABLE = (
    *(RuntimeError, ValueError, KeyError, TypeError, OSError, EOFError),
    *(pickle.UnpicklingError, SafetensorError),
)
"""What torch, safetensors and the Trainer raise over broken files."""


@contextlib.contextmanager
def clear_load_errors(place: Path | str | None) -> Iterator[None]:
    """UserError when a file of a step checkpoint cannot be read."""
    try:
        yield
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"unlearn.resume_path: {place} cannot be read ({reason}); remove that step's folder to go on from"
            " the step before, or start anew with logger.overwrite true"
        ) from None


@dataclass(frozen=True)
class TrainingJob:
    """What is trained: rows in their order, the objective, and the reference model's part in it."""

    pairs: Any
    """Items to train on; `parts` maps a part's name to its rows, each with an `id`."""
    sampler: Any
    """The order of an epoch, by `set_epoch`."""
    collate: Callable
    """Items to a batch of named parts."""
    composition: Composition
    reference: Reference | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints, by name, of what the run begins with: a step checkpoint of others is refused."""


class UnlearnTrainer(Trainer):
    """Trains a composition of objectives on batches of named parts.

    Args:
        model: the model, trained in place.
        args: the Trainer's arguments.
        job: rows, objective, reference.
        options: optimizer, flatness wrapper, mask, combiner, averaging.
        on_step: called by the first process with one record per optimizer step: every term by name (means
            over the step's rows), the loss, learning rate, gradient norm and tokens per second.
    """

    model: Module

    def __init__(
        self,
        model,
        args: TrainingArguments,
        job: TrainingJob,
        options: StepOptions = StepOptions(),
        on_step: Callable[[dict], None] = lambda record: None,
    ):
        self.job, self.options, self.on_step = job, options, on_step
        self.composition = job.composition
        self.combiner_state: dict[str, list[Tensor]] = {}
        self.sharded = is_sharded(model)
        self.zero: ZeroEngine | None = None
        self.window = Window()
        self.step_tokens = 0
        self.step_rows: dict[str, list[str]] = {}
        self.step_record: dict[str, float] = {}
        self.step_start = time.perf_counter()
        with saving_allowed(args):
            super().__init__(model=model, args=args, train_dataset=job.pairs, data_collator=job.collate)
        self.gradients = make_gradients(self.accelerator, self.weights(), self.sharded)
        # DistributedDataParallel sums gradients during a backward that reaches every weight. That is not so
        # where sides are apart, nor where a loss ends at some block, nor for adapters beside sharded weights:
        # there they are summed at the step's end.
        self.reduces_manually = (
            not options.zero
            and not isinstance(self.gradients, ShardedGradients)
            and (options.splits_sides or "hidden" in job.composition.needs or self.sharded)
        )
        self.add_callback(SetEpochCallback(job.sampler))
        if options.averaging:
            self.add_callback(WeightAveragingCallback(options.averaging, self.weights))

    def pause(self, seconds: float) -> None:
        """Leave time that went into something else out of the speed of the step."""
        self.step_start += seconds

    def weights(self) -> list[Tensor]:
        """What is trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def run(self, checkpoint: str | None = None) -> None:
        """Train to the end, from a step checkpoint if one is given; one that is at the end already is only
        loaded. Leaves the model as a plain one: no wrapper, no patched forward, no optimizer state in
        memory."""
        release_freed_memory()  # of loading and of evaluating the initial model
        if checkpoint:
            self._load_own_state(checkpoint)
        if checkpoint and self._is_finished(state := self._state_of(checkpoint)):
            self.state = state
            self._load_from_checkpoint(checkpoint)
        else:
            self.train(resume_from_checkpoint=checkpoint)
        self._check_weights()
        if self.options.averaging:
            self.options.averaging.put_into(self.weights())
        if self.zero:
            self._end_zero()
        else:
            self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=False)
        self.accelerator.free_memory()
        # A frozen reference model is as large as the trained one; the Trainer's own cycles would keep it.
        self.job = replace(self.job, reference=None)
        self.optimizer = self.lr_scheduler = None
        # Merging adapters and evaluation follow, which need memory of other sizes.
        release_freed_memory()

    def _end_zero(self) -> None:
        """Leave a model without DeepSpeed's engine; one in parts can be called."""
        assert self.zero and self.options.zero
        self.zero.end()
        self.zero = self.optimizer = None
        self.model_wrapped = self.model
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if self.sharded:
            start_passes(self.model, self.options.zero)

    @staticmethod
    def _state_of(checkpoint: str) -> TrainerState:
        path = Path(checkpoint) / TRAINER_STATE_NAME
        with clear_load_errors(path):
            return TrainerState.load_from_json(str(path))

    @staticmethod
    def _is_finished(state: TrainerState) -> bool:
        # A stop rule ends a training before its last step; the state of the Trainer's control is kept.
        kept = cast(dict[str, Any], state.stateful_callbacks or {})
        control = kept.get("TrainerControl", {}).get("args", {})
        return state.global_step >= state.max_steps or control.get("should_training_stop", False)

    def create_optimizer(self, model=None):
        """The Trainer's AdamW, or Sophia with the Trainer's own choice of what decays."""
        if self.optimizer is None:
            sophia = self.options.sophia
            self.optimizer = (
                SophiaG(self._groups(), self.args.learning_rate, plan=sophia)
                if sophia
                else super().create_optimizer(model)
            )
            if self.options.mask:
                self.options.mask.mask_decay(self.optimizer)
            if self.sharded and not self.options.zero:
                keep_whole_state(self.optimizer)
        return self.optimizer

    def _wrap_model(self, model, training=True, dataloader=None):
        if not self.options.zero or self.zero:
            return super()._wrap_model(model, training, dataloader)
        # A model that is wrapped here is not wrapped by Accelerate, which gives it autocast alone.
        self.accelerator.prepare_model(self.model, device_placement=False, evaluation_mode=True)
        inner = cast(Optimizer, self.optimizer)
        self.optimizer = ZeroOptimizer(inner)
        self.zero = ZeroEngine(self.model, inner, self.options.zero, self.args.max_grad_norm)
        self.optimizer.engine = self.zero
        return self.zero.deepspeed

    def _groups(self) -> list[dict]:
        decays = set(self.get_decay_parameter_names(self.model))
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        return [
            {"params": [p for name, p in trained if name in decays], "weight_decay": self.args.weight_decay},
            {"params": [p for name, p in trained if name not in decays], "weight_decay": 0.0},
        ]

    def _save_checkpoint(self, model, trial):
        """A step checkpoint with our own state beside the Trainer's."""
        self._check_weights()
        super()._save_checkpoint(model, trial)
        averaging = self.options.averaging
        in_weight_space = {
            "averaging": averaging.state_dict() if averaging else None,
            "combiner": self.combiner_state,
        }
        state = {
            "composition": self.composition.state_dict(),
            **gathered(in_weight_space, keep=self.args.should_save),
            "mask": self.options.mask.content if self.options.mask else None,
            "origins": dict(self.job.origins),
            "rows_per_step": self._rows_per_step,
        }
        if self.args.should_save:
            folder = f"{self.args.output_dir}/{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            torch.save(state, Path(folder) / OWN_STATE)

    def _load_own_state(self, checkpoint: str) -> None:
        with clear_load_errors(Path(checkpoint) / OWN_STATE):
            state = torch.load(Path(checkpoint) / OWN_STATE, weights_only=True, map_location="cpu")
        if state["mask"] != (self.options.mask.content if self.options.mask else None):
            raise UserError(
                f"unlearn.mask_path: the mask is not the one of the interrupted run ({checkpoint}); give that"
                " one, or start anew"
            )
        origins = self.job.origins
        began = state.get("origins", origins)
        others = [name for name in {**began, **origins} if began.get(name) != origins.get(name)]
        if others:
            raise UserError(
                f"unlearn.resume_path: {checkpoint} is of a run with another {' and another '.join(others)};"
                " give what that run began with, or start anew (logger.overwrite true)"
            )
        if (rows := state.get("rows_per_step", self._rows_per_step)) != self._rows_per_step:
            raise UserError(
                f"unlearn.resume_path: {checkpoint} took {rows} rows per optimizer step, this run would"
                f" take {self._rows_per_step}; choose dataset.batch_size and"
                " unlearn.gradient_accumulation_steps so that, times"
                f" {self.args.world_size} processes, they make {rows}"
            )
        self.composition.load_state_dict(state["composition"])
        laid_out = lambda values: [shard_like(v.to(w.device), w) for v, w in zip(values, self.weights())]
        self.combiner_state = {name: laid_out(found) for name, found in state.get("combiner", {}).items()}
        if self.options.averaging and (kept := state["averaging"]):
            self.options.averaging.load_state_dict(kept | {"mean": laid_out(kept["mean"])})

    @property
    def _rows_per_step(self) -> int:
        args = self.args
        return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        with clear_load_errors(resume_from_checkpoint):
            if self.sharded and not hasattr(self.model, "peft_config"):
                load_whole_weights(self.model, Path(resume_from_checkpoint))
            else:
                super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save_optimizer_and_scheduler(self, output_dir):
        if (self.sharded or self.zero) and not self.args.should_save:
            cast(Optimizer, self.optimizer).state_dict()  # takes part in gathering it, see `create_optimizer`
        super()._save_optimizer_and_scheduler(output_dir)

    def save_model(self, output_dir=None, _internal_call=False):
        if not (self.zero and self.sharded):
            return super().save_model(output_dir, _internal_call)
        state = whole_state(self.model, keep=self.args.should_save)
        if self.args.should_save:
            self._save(output_dir, state_dict=state)

    def _defer_fsdp_gradient_reduction(self):
        # Deferring keeps the gradients of all weights whole in every process, which is what sharding avoids.
        return contextlib.nullcontext()

    def _sync_replicated_trainable_parameters(self, model):
        """Adapters are the same on every process by their seed, and their gradients are summed at the step's
        end."""

    def _load_optimizer_and_scheduler(self, checkpoint):
        with clear_load_errors(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint):
        with clear_load_errors(checkpoint):
            super()._load_rng_state(checkpoint)

    def _clip_grad_norm(self, model):
        return self.zero.norm() if self.zero else super()._clip_grad_norm(model)

    def _get_grad_norm(self, model, grad_norm=None):
        """The norm that the Trainer logs, known before the optimizer steps. UserError when it is not a finite
        number: the step would leave no weight as it was."""
        norm = self.zero.norm() if self.zero else whole(super()._get_grad_norm(model, grad_norm))
        if not torch.isfinite(torch.as_tensor(norm)):
            raise UserError(self._stopped(f"the gradient is not finite (norm {norm:g})", self.step_rows))
        return norm

    def _check_weights(self) -> None:
        """UserError when a step left weights that are not finite: they are neither kept nor measured."""
        wrong = [name for name, p in self.model.named_parameters() if not is_finite([p])]
        if any_process(bool(wrong), self.args.device):
            where = ", ".join(wrong[:3]) or "of another process"
            raise UserError(
                f"weights are not finite after step {self.state.global_step} ({where}). The run stops here;"
                " the step checkpoint before, if there is one, is kept. A lower unlearn.lr usually mends it"
            )

    def _get_train_sampler(self, train_dataset=None):
        return self.job.sampler

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The micro-batches of one optimizer step, and the counts its terms are divided by."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.step_rows = self._rows_of(batches)
        counts = self._window_counts(batches, device)
        self.step_tokens = int(sum(part["attended"] for part in counts.values()))
        return batches, counts

    def _window_counts(self, batches: list[Batch], device) -> Counts:
        window: Counts = {}
        for batch in batches:
            weight = 0 if is_filler(batch) else 1
            for part, counts in self.composition.counts(batch).items():
                sums = window.setdefault(part, {})
                for over, count in counts.items():
                    sums[over] = sums.get(over, 0) + weight * count.to(device)
        return {
            part: {over: self._all_reduce(count) for over, count in sums.items()}
            for part, sums in window.items()
        }

    def training_step(self, model, inputs, num_items_in_batch: Counts):
        """Forward and backward of one micro-batch; `num_items_in_batch` holds the counts of the whole
        step."""
        model.train()
        # DeepSpeed's forward pass would end autocast; its hooks are in the model itself.
        model = self.model if self.zero else model
        # The Trainer's annotation knows flat batches alone.
        batch, counts = cast(Batch, self._prepare_inputs(inputs)), num_items_in_batch
        if self._curvature_is_due():
            self._estimate_curvature(model, batch, counts)
        loss = (
            self._backward_per_side(model, batch, counts)
            if self.options.splits_sides
            else self._joint_backward(model, batch, counts)
        )
        self.window.batches += 1
        if self.composition.adds_gradient and not is_filler(batch):
            self.window.kept.append(batch)
        if self.accelerator.sync_gradients:
            self._end_step(counts)
        # The Trainer averages what processes report; the counts already span all of them.
        return loss.detach() * self.accelerator.num_processes

    def _joint_backward(self, model, batch: Batch, counts: dict) -> Tensor:
        """One backward for the whole loss."""
        if self.zero:
            loss = self._loss(model, batch, counts)
            ends_step = self.accelerator.sync_gradients and not self._hands_over
            # DeepSpeed takes the mean over processes.
            self.zero.backward(loss * self.accelerator.num_processes, ends_step)
            return loss
        with self.accelerator.no_sync(model) if self.reduces_manually else contextlib.nullcontext():
            loss = self._loss(model, batch, counts)
            self.accelerator.backward(loss * (1 if self.reduces_manually else self.accelerator.num_processes))
        return loss

    def _backward_per_side(self, model, batch: Batch, counts: dict) -> Tensor:
        """One gradient for each side, the forget side's by the flatness wrapper if there is one, added to the
        step's sums; where nothing combines them, to one sum. Returns the weighted loss."""
        weights, combined = self.weights(), self.options.combiner is not None
        first: list[Tensor] = []
        # A wrapper compares gradients at several places: under another dropout for each, their difference
        # would be noise.
        draws = RandomState(self.args.device)

        def forget_loss():
            draws.repeat()
            loss = self._loss(model, batch, counts, "forget", log_terms=not first)
            first.append(loss.detach())
            return loss

        with contextlib.nullcontext() if self.zero else self.accelerator.no_sync(model):
            if self.options.flatness:
                landscape = Landscape(
                    weights,
                    gradient=lambda: self._apply_mask(self.gradients.of(forget_loss(), weights)),
                    total=self.gradients.total,
                    curvature=lambda vector: self._apply_mask(
                        self.gradients.along(forget_loss(), weights, vector)
                    ),
                    apply_mask=self._apply_mask,
                    step=self.state.global_step,
                    seed=self.args.seed,
                )
                self.window.add("forget", self.options.flatness.gradient(landscape))
            elif (forget := forget_loss()).requires_grad:
                self.window.add("forget", self.gradients.of(forget, weights))
            retain = self._loss(model, batch, counts, "retain")
            if retain.requires_grad:
                self.window.add("retain" if combined else "forget", self.gradients.of(retain, weights))
        # With a combiner the terms carry no weight of their side: the combiner applies it to the gradients.
        forget_weight, retain_weight = self.options.weights if combined else (1.0, 1.0)
        return forget_weight * first[0] + retain_weight * retain

    def compute_loss_context_manager(self):
        """Autocast, where the precision asks for it."""
        # Accelerate casts in the model's own forward pass alone; the head is applied after it.
        return self.accelerator.autocast()

    def _loss(
        self, model, batch: Batch, counts: dict, side: str | None = None, log_terms: bool = True
    ) -> Tensor:
        """The share of this micro-batch in the step's loss (of one side, when it is named)."""
        with self.compute_loss_context_manager():
            terms = self.composition.terms(
                model, batch, self.job.reference, side, relative=self.options.combiner is not None
            )
        weight = 0 if is_filler(batch) else 1
        for name, t in terms.items():
            if t.term.over not in counts.get(t.term.part, {}):
                known = {part: list(overs) for part, overs in counts.items()}
                raise ValueError(
                    f"term {name}: nothing is counted as {t.term.over!r} in part {t.term.part!r}; there are"
                    f" {known}"
                )
            if counts[t.term.part][t.term.over] == 0:
                raise UserError(
                    f"the term {name} has nothing to average over at step {self.state.global_step + 1}: no"
                    f" {t.term.over} in the {t.term.part} rows"
                )
        means = {name: weight * t.term.total / counts[t.term.part][t.term.over] for name, t in terms.items()}
        loss = sum(
            (terms[name].weight * mean for name, mean in means.items()),
            torch.zeros((), device=self.args.device),
        )
        if not torch.isfinite(loss):
            raise UserError(self._not_finite(means, terms, batch))
        if log_terms:
            for name, mean in means.items():
                self.window.means[name] = self.window.means.get(name, 0) + mean.detach()
        return loss

    def _end_step(self, counts: dict) -> None:
        """Finish the step's gradient after its last micro-batch, always in this order: sum over processes,
        add extra gradients, mask, combine. The Trainer clips and steps afterwards."""
        if self.reduces_manually and not self.options.splits_sides:
            for weight in self.weights():
                weight.grad = None if weight.grad is None else self.gradients.total([weight.grad])[0]
        extra, stats = self._extra_gradient(counts)
        if self.options.splits_sides:
            stats |= self._combined(extra)
        elif extra:
            for weight, vector in zip(self.weights(), extra):
                weight.grad = (vector if weight.grad is None else weight.grad + vector).to(weight.dtype)
        if self.options.mask:
            self.options.mask.apply_to_gradients(self.weights())
        if self.zero and self._hands_over:
            held = [(weight, weight.grad) for weight in self.weights() if weight.grad is not None]
            for weight, _ in held:
                weight.grad = None
            self.zero.hand_over(held)
        if "curvature" in self.window.gradients:
            assert isinstance(self.optimizer, AcceleratedOptimizer) and self.options.sophia
            tokens = int(sum(counts[part]["tokens"] for part in self.options.sophia.parts()))
            self.optimizer.optimizer.update_curvature(self.weights(), self._step_sum("curvature"), tokens)
        means = {name: self._all_reduce(value).item() for name, value in self.window.means.items()}
        self.step_record = means | self.composition.logged() | stats
        self.window = Window()
        self.composition.after_step(means, self.state.epoch or 0.0)

    @property
    def _hands_over(self) -> bool:
        """Does DeepSpeed get a gradient at the step's end, beside or in place of those of backward passes?"""
        return self.options.splits_sides or self.composition.adds_gradient

    def _extra_gradient(self, counts: dict) -> tuple[list[Tensor], dict[str, float]]:
        """What objectives add to the forget side's gradient, summed, one tensor for each weight (none where
        there is nothing to add), and what they tell."""
        if not self.composition.adds_gradient:
            return [], {}
        batches, total = self.gradients.shared_batches(self.window.kept)
        step = Step(
            self.model,
            batches,
            self.weights(),
            int(counts["forget"]["rows"]),
            self.compute_loss_context_manager,
            total,
        )
        found = self.composition.extra_gradients(step)
        return [add_up(vectors) for vectors in zip(*(d.vector for d in found))], {
            k: v for d in found for k, v in d.stats.items()
        }

    def _step_sum(self, name: str) -> list[Tensor]:
        """A gradient summed over the step's micro-batches and over processes, 0 where the mask freezes, and
        everywhere when its side had none (PDU's retain term while its multiplier is 0; GAO's side where it
        has no term)."""
        found = self.window.gradients.get(name) or [torch.zeros_like(weight) for weight in self.weights()]
        return self._apply_mask(self.gradients.total(found))

    def _combined(self, extra: list[Tensor]) -> dict[str, float]:
        """Write the step's gradient into `.grad` from the sides' sums and what is added to the forget side;
        what there is to say about it."""
        weights, combiner = self.weights(), self.options.combiner
        direction, stats = self._step_sum("forget"), {}
        if extra:
            # An extra gradient has a weight of its own; the combiner will apply that of the forget side.
            scale = 1 / self.options.weights[0] if combiner else 1.0
            direction = [g + scale * vector for g, vector in zip(direction, self._apply_mask(extra))]
        if combiner:
            sides = direction, self._step_sum("retain")
            direction = combiner.combine(*sides, *self.options.weights, self.combiner_state)
            stats = diagnosis(*sides, direction)
        for weight, gradient in zip(weights, direction):
            weight.grad = gradient.to(weight.dtype)
        return stats

    def _apply_mask(self, vector: list[Tensor]) -> list[Tensor]:
        """A vector in weight space without what the mask freezes."""
        return self.options.mask.apply(self.weights(), vector) if self.options.mask else vector

    def _all_reduce(self, value: Tensor) -> Tensor:
        return sum_over_processes(self.accelerator, value)

    def _curvature_is_due(self) -> bool:
        sophia = self.options.sophia
        return (
            sophia is not None
            and self.options.estimates_curvature
            and self.state.global_step % sophia.every == 0
        )

    def _estimate_curvature(self, model, batch: Batch, counts: dict) -> None:
        """This micro-batch's share of the gradient of the mean NLL of labels drawn from the model itself."""
        assert self.options.sophia, "only Sophia has a curvature estimate"
        parts, weights = self.options.sophia.parts(), self.weights()
        # Other labels for each step, micro-batch and process, the same at each run.
        place = (self.args.seed, self.state.global_step, self.window.batches, self.accelerator.process_index)
        generator = torch.Generator().manual_seed(int(fingerprint(*place), 16) % 2**63)
        tokens = sum(counts[part]["tokens"] for part in parts)
        with self.accelerator.no_sync(model), self.compute_loss_context_manager():
            nll = add_up(drawn_nll(answer_logits(model, batch[part]), generator) for part in parts)
            share = (0 if is_filler(batch) else 1) * nll / tokens
            self.window.add("curvature", self.gradients.of(share, weights))

    def _not_finite(self, means: dict[str, Tensor], terms: dict[str, WeightedTerm], batch: Batch) -> str:
        parts = {term.term.part for term in terms.values()}
        values = ", ".join(f"{name} = {mean.item():g}" for name, mean in means.items())
        rows = self._rows_of([{part: batch[part] for part in sorted(parts)}])
        return self._stopped(f"the loss is not a finite number ({values})", rows)

    def _stopped(self, what: str, rows: Mapping[str, list[str]]) -> str:
        return (
            f"step {self.state.global_step + 1}: {what}; rows: {rows}. The run stops here and this step is"
            " not taken. A lower unlearn.lr or forget_weight usually mends it"
        )

    def _rows_of(self, batches: list[Batch]) -> dict[str, list[str]]:
        """The ids of a step's rows, by part; fillers have none."""
        rows: dict[str, list[str]] = {}
        for batch in batches:
            for part, held in batch.items():
                ids = [self.job.pairs.parts[part][i].id for i in held["index"].tolist() if i >= 0]
                rows[part] = rows.get(part, []) + ids
        return rows

    def log(self, logs, start_time=None):
        """Add the terms and the speed to the Trainer's record of a step, and hand it on."""
        if "loss" not in logs:
            return super().log(logs, start_time)
        logs |= self.step_record
        now = time.perf_counter()
        logs |= {
            "tokens": self.step_tokens,
            "tokens_per_second": round(self.step_tokens / (now - self.step_start), 1),
        }
        self.step_start = now
        super().log(logs, start_time)
        if self.is_world_process_zero():
            self.on_step({"step": self.state.global_step} | logs)

    def floating_point_ops(self, inputs):
        """Not counted: the Trainer's estimate reads one flat batch, and nothing here reports it."""
        return 0
