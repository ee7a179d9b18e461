"""The settings of one run: every section, complete and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...unlearn import Method
from ..benchmarks.suites import AUTO, NONE, tasks_of
from .benchmark_keys import Benchmarks
from .data_keys import Data
from .evaluation_keys import Evaluation, Judging
from .logger_keys import JsonLogging, Logging, WandbLogging
from .mask_keys import Masking
from .method_keys import TASKS, Lora, Unlearning
from .overall_keys import Overall
from .writing_keys import Generating, Paraphrasing, Tracing

SECTIONS = {
    "overall": Overall,
    "unlearn": Unlearning,
    "unlearn.lora": Lora,
    "dataset": Data,
    "generation": Generating,
    "traces": Tracing,
    "paraphrases": Paraphrasing,
    "mask": Masking,
    "evaluate": Evaluation,
    "judge": Judging,
    "benchmarks": Benchmarks,
    "logger": Logging,
    "logger.json": JsonLogging,
    "logger.wandb": WandbLogging,
}


@dataclass(frozen=True)
class Settings:
    """The settings of one run, complete and checked."""

    overall: Overall
    unlearn: Unlearning
    lora: Lora
    method: Method
    components: Mapping[str, Any]
    """Section (`unlearn.NPO`) -> configured objective, for those that take part."""
    optimizer: Any
    """The configured optimizer, of `unlearn.optim.<optimizer>`."""
    flatness: Any
    """The configured flatness wrapper, of `unlearn.flat.<flatness>`; None without."""
    combiner: Any
    """The configured combiner, of `unlearn.combine.<combiner>`."""
    dataset: Data
    generation: Generating
    traces: Tracing
    paraphrases: Paraphrasing
    mask: Masking
    evaluate: Evaluation
    judge: Judging
    benchmarks: Benchmarks
    logger: Logging
    json_logger: JsonLogging
    wandb_logger: WandbLogging

    @property
    def metric_names(self) -> list[str]:
        """Metrics and families to measure, `auto` resolved by the task."""
        return [
            n
            for name in self.evaluate.metrics
            for n in (TASKS[self.unlearn.task_name] if name == "auto" else [name])
        ]

    @property
    def benchmark_tasks(self) -> list[str]:
        """Tasks of lm-evaluation-harness to run, `auto` resolved by the task."""
        plan = self.benchmarks
        by_task = ["wmdp"] if self.unlearn.task_name == "wmdp" else []
        chosen = [n for name in plan.suite if name != NONE for n in (by_task if name == AUTO else [name])]
        return tasks_of(chosen, plan.tasks or ())

    @property
    def benchmarks_may_fail(self) -> bool:
        """Is a benchmark that cannot be run no reason to stop? So it is where nobody asked for it by name."""
        plan = self.benchmarks
        return plan.allow_failed or (plan.suite == (AUTO,) and not plan.tasks)

    @property
    def needs_double_backward(self) -> bool:
        """Does something differentiate a gradient? Then attention must be computed in the plain way."""
        exact = getattr(self.flatness, "mode", "") == "exact"
        return exact or any("double_backward" in kind.needs for kind in self.components.values())

    @property
    def traces_file(self) -> Path:
        """Where make_traces.py writes and runs read."""
        model = Path(self.overall.model_name).name
        return Path(
            self.dataset.traces or f"files/results/traces/{self.dataset.forget_stem}-{model}.jsonl"
        ).expanduser()

    def mask_file(self, ratio: float) -> Path:
        """`<mask.out>/<task>_<ratio>.pt`, as the WAGLE family names its files."""
        return Path(self.mask.out).expanduser() / f"{self.unlearn.task_name}_{ratio:g}.pt"

    def resolved(self) -> dict[str, Any]:
        """Every value by section, in the shape of a config file; reading it back gives the same settings."""
        tree = {
            "overall": plain(self.overall),
            "unlearn": {**plain(self.unlearn), "lora": plain(self.lora)},
            "dataset": plain(self.dataset),
            "generation": plain(self.generation),
            "traces": plain(self.traces),
            "paraphrases": plain(self.paraphrases),
            "mask": plain(self.mask),
            "evaluate": plain(self.evaluate),
            "judge": plain(self.judge),
            "benchmarks": plain(self.benchmarks),
            "logger": {
                **plain(self.logger),
                "json": plain(self.json_logger),
                "wandb": plain(self.wandb_logger),
            },
        }
        extras = {f"unlearn.optim.{self.unlearn.optimizer}": self.optimizer}
        extras[f"unlearn.combine.{self.unlearn.combiner}"] = self.combiner
        if self.flatness:
            extras[f"unlearn.flat.{self.unlearn.flatness}"] = self.flatness
        for section, component in {**self.components, **extras}.items():
            *path, last = section.split(".")
            node = tree
            for name in path:
                node = node.setdefault(name, {})
            if plain(component):
                node[last] = plain(component)
        return tree


def plain(section: Any) -> dict[str, Any]:
    """The fields of a section as JSON values, without those that do nothing."""
    values = {
        item.name: getattr(section, item.name)
        for item in fields(section)
        if not item.metadata["knob"].obsolete
    }
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
