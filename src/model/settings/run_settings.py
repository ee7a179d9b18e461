"""The settings of one run: every section, complete and checked."""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ...metrics.spec import METRICS
from ...unlearn import Composition, Method, compose
from ..benchmarks.suites import AUTO, NONE, tasks_of
from .benchmark_keys import Benchmarks
from .data_keys import Data
from .evaluation_keys import Evaluation, Judging
from .logger_keys import JsonLogging, Logging, WandbLogging
from .mask_keys import Masking
from .method_keys import TASKS, Lora, Unlearning
from .overall_keys import Overall
from .writing_keys import Generating, Paraphrasing, Tracing


def section(name: str) -> Any:
    """A field of `Settings` that holds the section of this name in config files."""
    return field(metadata={"section": name})


@dataclass(frozen=True)
class Settings:
    """The settings of one run, complete and checked."""

    method: Method
    components: Mapping[str, Any]
    """Section (`unlearn.NPO`) -> configured objective, for those that take part."""
    optimizer: Any
    """The configured optimizer, of `unlearn.optim.<optimizer>`."""
    flatness: Any
    """The configured flatness wrapper, of `unlearn.flat.<flatness>`; None without."""
    combiner: Any
    """The configured combiner, of `unlearn.combine.<combiner>`."""
    overall: Overall = section("overall")
    unlearn: Unlearning = section("unlearn")
    lora: Lora = section("unlearn.lora")
    dataset: Data = section("dataset")
    generation: Generating = section("generation")
    traces: Tracing = section("traces")
    paraphrases: Paraphrasing = section("paraphrases")
    mask: Masking = section("mask")
    evaluate: Evaluation = section("evaluate")
    judge: Judging = section("judge")
    benchmarks: Benchmarks = section("benchmarks")
    logger: Logging = section("logger")
    json_logger: JsonLogging = section("logger.json")
    wandb_logger: WandbLogging = section("logger.wandb")

    @property
    def composition(self) -> Composition:
        """The objectives with the weights of their sides."""
        return compose(self.method, self.components, self.unlearn.forget_weight, self.unlearn.gamma)

    @property
    def metric_names(self) -> list[str]:
        """Metrics and families to measure, `auto` resolved by the task; with it the perplexity of a neutral
        text that is named."""
        neutral = ("perplexity/neutral_texts",) if self.evaluate.neutral_text else ()
        by_task = (*TASKS[self.unlearn.task_name], *neutral)
        return [n for name in self.evaluate.metrics for n in (by_task if name == "auto" else [name])]

    def asks_judge(self, keys: Sequence[str]) -> bool:
        """Whether the judge has a part in some metric: in those that are judged, and in toxicity without a
        classifier."""
        toxic = not self.evaluate.toxicity_model and any(METRICS[key].family == "toxic" for key in keys)
        return toxic or any(METRICS[key].judged for key in keys)

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
    def is_quantized(self) -> bool:
        """Are the weights below the adapters held in 4 bits?"""
        return self.unlearn.use_lora and self.method.trains and self.lora.quantize != "none"

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
        sections = {name: getattr(self, attribute) for name, attribute in ATTRIBUTES.items()}
        sections |= self.components
        sections[f"unlearn.optim.{self.unlearn.optimizer}"] = self.optimizer
        sections[f"unlearn.combine.{self.unlearn.combiner}"] = self.combiner
        if self.flatness:
            sections[f"unlearn.flat.{self.unlearn.flatness}"] = self.flatness
        tree: dict[str, Any] = {}
        for name, values in sections.items():
            *path, last = name.split(".")
            node = tree
            for part in path:
                node = node.setdefault(part, {})
            if plain(values):
                node[last] = plain(values)
        return tree


ATTRIBUTES = {item.metadata["section"]: item.name for item in fields(Settings) if "section" in item.metadata}
"""Section -> attribute of `Settings` that holds it, in the order of a config file."""
SECTIONS: dict[str, type] = {
    name: typing.get_type_hints(Settings)[attribute] for name, attribute in ATTRIBUTES.items()
}
"""Section -> class whose fields are its keys. The one list of sections."""


def plain(section: Any) -> dict[str, Any]:
    """The fields of a section as JSON values, without obsolete ones."""
    values = {
        item.name: getattr(section, item.name)
        for item in fields(section)
        if not item.metadata["knob"].obsolete
    }
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def deciding(section: Any) -> dict[str, Any]:
    """The fields of a section that decide a result: all but those of transport, and those that may change
    while a file is continued. A cache key made of them cannot miss a new key."""
    knobs = {item.name: item.metadata["knob"] for item in fields(section)}
    return {
        name: value
        for name, value in plain(section).items()
        if not (knobs[name].transport or knobs[name].resumable)
    }
