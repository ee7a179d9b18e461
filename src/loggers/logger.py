"""Contract of a logger: a context manager around one run.

with logger.open(config):           # refuses or prepares, before any heavy work
    logger.evaluation("before", results)
    logger.step({...})              # once per optimizer step
    logger.model(model, tokenizer)
    logger.evaluation("", results)  # "" is the final one
    logger.environment({...})       # its presence marks a complete run
    logger.report(path)             # drawn from all of these
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.registry import Registry

LOGGERS = Registry("logger")

NO_TERMS = frozenset(
    "step epoch loss grad_norm learning_rate tokens tokens_per_second forget_norm retain_norm direction_norm"
    " cosine along_forget along_retain conflict tensors_in_conflict".split()
)
"""What a record of a step holds beside the loss terms."""


@dataclass(frozen=True)
class Results:
    """An evaluation as plain values.

    Args:
        metrics: Metric key -> number or None.
        detail: Metric key -> {n, interval, unscored, reason, and further figures of some metrics}.
        samples: Row set -> one dict per row.
        judge: Name of a judging language model, with its counts of requests and tokens; empty without one.
    """

    metrics: dict[str, float | None]
    detail: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: dict[str, list[dict]] = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunLocation:
    """Place of a run.

    Args:
        root: Folder of all runs.
        name: Name of the run, and of its folder in `root`.
        overwrite: Whether an earlier run of that name is removed.
        redo: Whether an interrupted run of that name and of the same settings is done again in its place, as
            an evaluation is, whose finished texts are in the cache.
        project: Project on Weights & Biases.
        mode: offline or online, of Weights & Biases.
        tensorboard: Whether TensorBoard events are written too.
    """

    root: str
    name: str
    overwrite: bool = False
    redo: bool = False
    project: str = "unlearning"
    mode: str = "offline"
    tensorboard: bool = False


class RunLogger(ABC):
    """Base of all loggers.

    Attributes:
        folder: Folder of the run; None where nothing is written.
    """

    folder: Path | None = None

    def __init__(self, place: RunLocation):
        self.place = place

    @abstractmethod
    def open(self, config: dict, resume: bool = False) -> AbstractContextManager:
        """Start a run, or resume the interrupted one of that name.

        Args:
            config: Resolved settings, as they are written to config.json.
            resume: Whether to resume.

        Returns:
            A context for the run.

        Raises:
            UserError: The place is taken or cannot be written, or the interrupted run had other settings.
        """

    @abstractmethod
    def check(self, resume: bool = False) -> None:
        """UserError where `open` would refuse the place, before any heavy work."""

    @abstractmethod
    def rewind(self, step: int) -> None:
        """Remove the records and evaluations after `step`, from which the run resumes; -1 removes all."""

    @abstractmethod
    def step(self, record: dict) -> None:
        """Write the record of an optimizer step: name -> number, `step` among them."""

    @abstractmethod
    def history(self, record: dict) -> None:
        """Write an evaluation while training: step, epoch, metrics, and what the rules of the run read."""

    def read_history(self) -> list[dict]:
        """The evaluations that a resumed run begins with."""
        return []

    @abstractmethod
    def best(self, facts: dict, model=None, tokenizer=None) -> None:
        """Write how the best evaluated step was chosen, and its model where that is not the final one."""

    @abstractmethod
    def evaluation(self, stage: str, results: Results) -> None:
        """Write the results of a stage: `before` (the initial model) or "" (the final model)."""

    @abstractmethod
    def model(self, model, tokenizer) -> None:
        """Save the final model in Hugging Face format."""

    @abstractmethod
    def adapter(self, model, tokenizer, instead: bool) -> None:
        """Save the LoRA adapter of a model, beside the final model or `instead` of it."""

    @abstractmethod
    def environment(self, facts: dict) -> None:
        """Write versions, hardware and times: the run is complete."""

    def report(self, path: Path) -> None:  # noqa: B027  (most loggers have nothing to do)
        """Take the report of the run, an HTML file in its folder, after everything else."""
