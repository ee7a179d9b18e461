"""TensorBoard events of a run, under the names that Weights & Biases gets: `train/<term>`,
`evaluation/<metric>`, `<metric>` and `before/<metric>` of the results, samples as tables, and the report's
place."""

from pathlib import Path
from typing import Any

from .logger import Results
from .sample_tables import markdown


class TensorBoardEvents:
    """Writes event files into a folder, from the first event on; `close` ends them."""

    def __init__(self, folder: Path):
        self.folder, self.step_now = folder, 0
        self._writer: Any = None

    @property
    def writer(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to load

            self._writer = SummaryWriter(str(self.folder))
        return self._writer

    def step(self, record: dict) -> None:
        self.step_now = record["step"]
        self._scalars("train/", record)

    def history(self, record: dict) -> None:
        self.step_now = record["step"]
        self._scalars("evaluation/", record["metrics"])

    def evaluation(self, stage: str, results: Results) -> None:
        prefix = f"{stage}/" if stage else ""
        self._scalars(prefix, results.metrics)
        for name, rows in results.samples.items():
            self.writer.add_text(f"{prefix}samples/{name}", markdown(rows), self.step_now)

    def report(self, path: Path) -> None:
        self.writer.add_text("report", f"`{path}`", self.step_now)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, prefix: str, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float) and name != "step":
                self.writer.add_scalar(prefix + name, value, self.step_now)
