"""The contract of a logger: a context manager around one run.

with logger.open(config):          # refuses or prepares; nothing heavy has happened yet
    logger.step({...})             # once per optimizer step
    logger.evaluation("before", results)
    logger.model(model, tokenizer)
    logger.evaluation("", results) # "" is the final one
    logger.environment({...})      # last: its presence says that the run is whole
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.registry import Registry

LOGGERS = Registry("logger")


@dataclass(frozen=True)
class Results:
    """An evaluation as plain values: `metrics` name -> number or None, `detail` name -> {n, interval,
    unscored, reason}, `samples` row set -> one dict per row, `judge` the name of a language model that judged
    and what asking it took.
    """

    metrics: dict[str, float | None]
    detail: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: dict[str, list[dict]] = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunLocation:
    """Where a run goes: folder `root`/`name`, and for wandb its project and mode."""

    root: str
    name: str
    overwrite: bool = False
    project: str = "unlearning"
    mode: str = "offline"


class RunLogger:
    """Base of all loggers. `folder` is where the run lies, None when it leaves nothing."""

    folder: Path | None = None

    def __init__(self, place: RunLocation):
        self.place = place

    def open(self, config: dict, resume: bool = False) -> AbstractContextManager:
        """Start a run with its resolved settings, or go on with the interrupted one of that name. UserError
        when the place is taken or cannot be written, or the interrupted run had other settings."""
        raise NotImplementedError

    def check(self, resume: bool = False) -> None:
        """UserError when `open` would refuse the place: asked before the heavy work."""

    def rewind(self, step: int) -> None:
        """Forget the records of later steps than `step`: the run goes on from there."""
        raise NotImplementedError

    def step(self, record: dict) -> None:
        """One record per optimizer step."""
        raise NotImplementedError

    def evaluation(self, stage: str, results: Results) -> None:
        """Results of a stage: `before` (the initial model) or "" (the run's own)."""
        raise NotImplementedError

    def model(self, model, tokenizer) -> None:
        """Keep the final model in Hugging Face format."""
        raise NotImplementedError

    def adapter(self, model, tokenizer, instead: bool) -> None:
        """Keep the LoRA adapter of a model beside the final model, or `instead` of it."""
        raise NotImplementedError

    def environment(self, facts: dict) -> None:
        """Versions, hardware, times: written last."""
        raise NotImplementedError
