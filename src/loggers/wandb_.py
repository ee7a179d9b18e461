"""Logger `wandb`: the run folder, and its figures on Weights & Biases.

Needs `pip install wandb`. `logger.wandb.mode offline` (the default) writes under the run folder and sends
nothing; `wandb sync` sends it later. The key is wandb's own (`wandb login` or WANDB_API_KEY); it is never
read or logged here.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Literal, cast

from ..core.files import UserError
from .json_ import JsonLogger
from .logger import LOGGERS, Results
from .sample_tables import cells, columns

Mode = Literal["offline", "online"]
"""Values of `logger.wandb.mode`."""


@LOGGERS.register("wandb")
class WandbLogger(JsonLogger):
    """The json logger, with records, figures, samples and report in a wandb run of the same name too."""

    last_step = 0

    @contextlib.contextmanager
    def open(self, config: dict, resume: bool = False) -> Iterator[None]:
        wandb = _import_wandb()
        with super().open(config, resume):
            self.run = wandb.init(
                project=self.place.project,
                name=self.place.name,
                mode=cast(Mode, self.place.mode),
                config=config,
                dir=str(self.folder),
                settings=wandb.Settings(silent=True),
            )
            try:
                yield
            except BaseException:
                self.run.finish(exit_code=1)
                raise
            self.run.finish()

    def step(self, record):
        super().step(record)
        self.last_step = record["step"]
        self.run.log({f"train/{key}": value for key, value in record.items()}, step=record["step"])

    def history(self, record):
        super().history(record)
        figures = {key: value for key, value in record["metrics"].items() if value is not None}
        self.run.log({f"evaluation/{key}": value for key, value in figures.items()}, step=record["step"])

    def evaluation(self, stage: str, results: Results):
        super().evaluation(stage, results)
        prefix = f"{stage}/" if stage else ""
        self.run.summary.update(
            {f"{prefix}{key}": value for key, value in results.metrics.items() if value is not None}
        )
        wandb = _import_wandb()
        tables = {}
        for name, rows in results.samples.items():
            names = columns(rows)
            # wandb types its lists as invariant.
            heads, data = cast(Any, names), cast(Any, cells(rows, names))
            table = wandb.Table(columns=heads, data=data, allow_mixed_types=True)
            tables[f"{prefix}samples/{name}"] = table
        # wandb drops what is logged at a step behind the last: the initial model's come before the first.
        self.run.log(tables, step=self.last_step)

    def report(self, path):
        super().report(path)
        artifact = _import_wandb().Artifact(f"report-{artifact_name(self.place.name)}", type="report")
        artifact.add_file(str(path))
        self.run.log_artifact(artifact)


def artifact_name(name: str) -> str:
    """A run's name in the letters that wandb allows for artifacts."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:100]


def _import_wandb():
    try:
        import wandb
    except ImportError:
        raise UserError(
            "overall.logger is wandb but the package is not installed: .venv/bin/pip install wandb"
        ) from None
    return wandb
