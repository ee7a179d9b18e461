"""Evaluation while a model is trained: the history, stop rules and the best step.

The first process measures and the others wait for its decision. Nothing of the training may notice: modes,
gradients' flags and random states are put back, so that the weights of a run with `evaluate.every` are those
of a run without, to the bit.
"""

import contextlib
import copy
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy
import torch
from accelerate.utils import broadcast
from torch import Tensor
from transformers import TrainerCallback

from ...core.durations import parse_duration
from ...core.files import UserError
from ...core.sharding import assign, exchanged, gathered, local, lockstep, reshard, shard_like, whole_shape
from ...loggers import RunLogger
from ...optim import Averaging
from ...unlearn.step.step_plan import StepPlan
from ...unlearn.step.trainer import UnlearnTrainer
from ..evaluation import Occasion, evaluate
from ..load.loading import merge_lora
from ..load.sharded import whole_model
from ..settings.run_settings import Settings
from ..settings.stop_rules import BUDGETS, StopRule, stop_rules
from .best_choice import BestRule, utility
from .places import share_of
from .stopping import ReferenceKl, Snapshots, holdout_test
from .training_callbacks import TrainingProgress
from .training_metrics import metrics_while_training


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Put back, at the end, modes and gradient flags of a model and every random state."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(weight, weight.requires_grad) for weight in model.parameters()]
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for weight, flag in flags:
            weight.requires_grad_(flag)
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if gpus:
            torch.cuda.set_rng_state_all(gpus)


@dataclass(frozen=True)
class EvaluationPlan:
    """What an evaluation while training reads.

    Args:
        settings: of the run.
        tokenizer: of the run.
        rows: row sets to measure.
        steps: the steps of the training.
        best: how the best step is chosen; None keeps none.
        kl: stop rule that is a budget -> the KL to the reference model that it limits.
    """

    settings: Settings
    tokenizer: Any
    rows: dict[str, list[dict]]
    steps: StepPlan
    best: BestRule | None = None
    kl: dict[str, ReferenceKl] = field(default_factory=dict)


@dataclass
class Ending:
    """How a training ended.

    Args:
        step: optimizer step whose weights the run keeps.
        stopped: step and reason of a stop rule; empty without.
        best: content of best.json; empty where no best is chosen.
        evaluations: number of evaluations while training.
        evaluation_seconds: their time in this process.
    """

    step: int
    stopped: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    evaluations: int = 0
    evaluation_seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """Its part of section `training` of environment.json."""
        return {
            "stopped": self.stopped or None,
            "kept_step": self.step,
            "evaluations": self.evaluations,
            "evaluation_seconds": round(self.evaluation_seconds, 1),
        }


class TrainingEvaluation(TrainerCallback):
    """Measures the model at the steps of `evaluate.every`, and stops the training where a rule says so.

    Everything it decides is a function of the records of the history, so a resumed run goes on from them.

    Args:
        plan: what is measured, and how.
        model: the model that is trained, without wrappers of the Trainer.
        logger: keeps the history.
        snapshots: keeps weights.

    Attributes:
        averaging: the mean of the weights that is kept in their place; None without.
        bar: display of the training.
        on_pause: called with the seconds for which the training waited.
    """

    def __init__(self, plan: EvaluationPlan, model, logger: RunLogger, snapshots: Snapshots):
        self.plan, self.model, self.logger, self.snapshots = plan, model, logger, snapshots
        self.averaging: Averaging | None = None
        self.bar: TrainingProgress | None = None
        self.on_pause: Callable[[float], None] = lambda seconds: None
        self.rules = stop_rules(plan.settings.unlearn.stop)
        self.every = parse_duration(plan.settings.evaluate.every)
        self.records: list[dict] = logger.read_history()
        self.share = share_of(plan.settings)
        self.seconds = 0.0
        """Time spent here in this process."""

    def check_history(self) -> None:
        """UserError where a resumed run lacks what it decides by: the evaluation of the initial model, or
        weights that it may need."""
        if not self.records or self.records[0]["step"] != 0:
            absent = ["evaluations.jsonl"]
        else:
            paths = map(self.snapshots.path, sorted(self._needed()))
            absent = [str(path) for path in paths if not path.is_file()]
        if absent:
            raise UserError(
                f"unlearn.resume_path: {absent[0]} of the interrupted run is not there or not whole; start"
                " anew with logger.overwrite true"
            )

    def attach(self, trainer: UnlearnTrainer, bar: TrainingProgress) -> None:
        """Let a trainer call this, after its own callbacks."""
        self.averaging, self.bar, self.on_pause = trainer.options.averaging, bar, trainer.pause
        trainer.add_callback(self)

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self._evaluate(0)

    def on_step_end(self, args, state, control, **kwargs):
        if self.plan.steps.is_due(self.every, state.global_step):
            control.should_training_stop |= self._evaluate(state.global_step)

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.snapshots.pin(self._needed())

    def _evaluate(self, step: int) -> bool:
        """Measure the model after `step` steps on the first process. True, on every process, to stop."""
        start = time.perf_counter()
        with undisturbed(self.model), self._kept_weights():
            with lockstep(self._plain()):
                record = self._record(step) if self.share.is_main else {}
            stops, is_needed = self.share.from_main(lambda: (bool(record["stop"]), step in self._needed()))
            if is_needed:
                self._take_snapshot(step)
        if self.share.is_main:
            self.snapshots.keep(self._needed())
            self.logger.history(record)
        taken = time.perf_counter() - start
        self.seconds += taken
        self.on_pause(taken)
        return stops

    def _take_snapshot(self, step: int) -> None:
        """Keep the trained weights on the first process."""
        weights = gathered(dict(self._weights()), keep=self.share.is_main)
        if self.share.is_main:
            self.snapshots.save(step, weights)

    def _record(self, step: int) -> dict[str, Any]:
        if self.bar:
            self.bar.note(f"measuring at step {step}")
        start = time.perf_counter()
        results = evaluate(
            self._plain(), self.plan.tokenizer, self.plan.rows, self._cheap(), Occasion("measuring")
        )
        record = {
            "step": step,
            "epoch": round(float(self.plan.steps.epoch(step)), 6),
            "metrics": results.metrics,
        }
        if self.plan.best:
            record["utility"] = utility(results.samples)
            record["best"] = self.plan.best.figures(results.samples)
        record |= {name: kl.of(self._plain()) for name, kl in self.plan.kl.items()}
        if "holdout" in self.rules:
            record["holdout"] = holdout_test(results.samples)
        record["stop"] = self._reason(record)
        record["seconds"] = round(time.perf_counter() - start, 3)
        self.records.append(record)
        return record

    def _cheap(self) -> Settings:
        """The settings of an evaluation while training: its own metrics, no intervals, no display."""
        settings = self.plan.settings
        evaluation = replace(settings.evaluate, metrics=tuple(metrics_while_training(settings)), bootstrap=0)
        return replace(settings, evaluate=evaluation, overall=replace(settings.overall, quiet=True))

    def _plain(self):
        """The model itself, its adapters in place but without their wrapper."""
        return getattr(self.model, "get_base_model", lambda: self.model)()

    def _weights(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]

    def _kept_weights(self) -> contextlib.AbstractContextManager:
        """A context in which the model has the weights that would be kept if the training ended here."""
        if not (self.averaging and self.averaging.count):
            return contextlib.nullcontext()
        pairs = zip(self._weights(), self.averaging.mean)
        return exchanged(self.model, [(weight, mean.to(weight.dtype)) for (_, weight), mean in pairs])

    def _reason(self, record: dict) -> str:
        """Why the training stops at this evaluation; empty where it goes on."""
        level = self.rules.get("holdout")
        if exceeded := self._exceeded(record):
            name = exceeded[0]
            return (
                f"KL to the initial model on {BUDGETS[name]} {record[name]:.3g} > {self.rules[name].level:g}"
            )
        return self._holdout_reason(record["holdout"], level, record["step"]) if level else ""

    @staticmethod
    def _holdout_reason(found: dict, level: StopRule, step: int) -> str:
        p, forget, holdout = (found[key] for key in ("p", "forget_median", "holdout_median"))
        if p is None and step == 0:
            raise UserError(f"unlearn.stop {level}: no forget row, or no holdout row, has a finite loss")
        if p is None:
            return "no forget row, or no holdout row, has a finite loss"
        if p > level.level and step == 0:
            raise UserError(
                f"unlearn.stop {level}: to the initial model the forget rows already look like the holdout"
                f" rows (p {p:.3g}), so the run would stop before its first step; does it know them?"
            )
        if p > level.level:
            return f"forget rows look like holdout rows (p {p:.3g} > {level.level:g})"
        if forget > holdout:
            return (
                f"the loss of the forget rows has passed that of the holdout rows (median {forget:.3g} >"
                f" {holdout:.3g}, p {p:.3g}); a shorter evaluate.every stops nearer"
            )
        return ""

    def _exceeded(self, record: dict) -> list[str]:
        """The budgets that a step exceeds. A KL that is not a number (null in the history) is above every
        budget."""
        budgets = [name for name in BUDGETS if name in self.rules]
        return [
            name for name in budgets if record[name] is None or not record[name] <= self.rules[name].level
        ]

    def _valid(self) -> list[dict]:
        """Records of the steps that may be kept."""
        return [record for record in self.records if not self._exceeded(record)]

    def _needed(self) -> set[int]:
        """Steps whose weights may still be asked for: the last within the budget, and the best."""
        valid, needed = self._valid(), set[int]()
        if self.plan.kl and valid:
            needed.add(valid[-1]["step"])
        if self.plan.best and (best := self.plan.best.choose(valid)[0]):
            needed.add(best["step"])
        return needed

    def end(self, step: int) -> Ending:
        """Put the model back to the step that is kept, where that is not the last, and report. The first
        process has the history, and alone keeps the best step."""
        ending = self.share.from_main(lambda: self._ending(step))
        if ending.step != step:
            self._put_back(ending.step)
        if self.plan.best:
            self._write_best(ending)
        ending.evaluation_seconds = self.seconds
        return ending

    def _ending(self, step: int) -> Ending:
        """What the history says about a training that has taken so many steps: the last step within the KL
        budget is kept, or the best one."""
        ending, reason = Ending(step, evaluations=len(self.records)), self.records[-1]["stop"]
        if reason:
            ending.step = self._valid()[-1]["step"]
        if self.plan.best:
            ending.best = self.plan.best.report(self._valid(), ending.step)
            best = ending.best["best"]
            if best and self.plan.settings.evaluate.keep == "best":
                ending.step = best["step"]
            ending.best["kept"] = ending.step
        if reason:
            ending.stopped = {"step": step, "reason": reason, "kept_step": ending.step}
        return ending

    def _put_back(self, step: int) -> None:
        """Give every process the weights after `step` steps: all of them measure."""
        for weight, values in self._values_of(step):
            assign(weight, values)
        reshard(self.model)

    def _values_of(self, step: int) -> Iterator[tuple[torch.nn.Parameter, Tensor]]:
        """The trained weights with their whole values after `step` steps, which the first process has kept:
        on every process."""
        kept = self.snapshots.load(step) if self.share.is_main else {}
        for name, weight in self._weights():
            values = (
                kept[name] if self.share.is_main else torch.empty(whole_shape(weight), dtype=weight.dtype)
            )
            yield weight, cast(Tensor, broadcast(values.to(local(weight).device)))

    def _write_best(self, ending: Ending) -> None:
        """Write best.json, and the best model where it is not the one that is kept."""
        best = ending.best["best"]
        if best is None or best["step"] == ending.step:
            self.logger.best(ending.best)
            return
        with exchanged(self.model, [(w, shard_like(v, w)) for w, v in self._values_of(best["step"])]):
            adapter_only = self.plan.settings.unlearn.save_adapter == "only"
            lora = self.plan.settings.unlearn.use_lora
            # Merging is for good: a copy is merged, the last model keeps its adapters.
            model = merge_lora(copy.deepcopy(self.model)) if lora and not adapter_only else self.model
            saved = model if adapter_only else whole_model(model, keep=self.share.is_main)
            self.logger.best(ending.best, saved, self.plan.tokenizer)
