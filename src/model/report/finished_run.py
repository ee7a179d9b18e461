"""A finished run, read from its folder for reports. What a run does not have is empty; a file that is there
and broken is an error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.files import UserError, read_json, read_jsonl
from ...metrics.external_results import read_results, read_summary
from ...metrics.tofu import summarize
from .comparison import Conditions, Evaluation, read_evaluation

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Row set -> rows with their per-row values and texts."""


@dataclass(frozen=True)
class FinishedRun:
    """A run, as reports read it.

    Args:
        title: Name in the report.
        path: Run folder, or the log of another toolkit.
        evaluation: Figures, with the reasons of those that are missing.
        detail: Metric -> n, interval, reason and further figures.
        before: Figures of the initial model; empty where it was not measured.
        before_detail: As `detail`, of the initial model.
        samples: Rows with the texts of the run's model.
        before_samples: Rows with the texts of the initial model.
        steps: One record per optimizer step.
        history: Evaluations while training.
        config: Resolved settings.
        environment: Versions, hardware, times.
        weight_change: Change of every weight tensor, or why it is not known.
    """

    title: str
    path: Path
    evaluation: Evaluation
    detail: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    before: Mapping[str, float | None] = field(default_factory=dict)
    before_detail: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    samples: Rows = field(default_factory=dict)
    before_samples: Rows = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()
    history: Sequence[Mapping[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    weight_change: Mapping[str, Any] = field(default_factory=dict)

    @property
    def figures(self) -> Mapping[str, float | None]:
        return self.evaluation.figures

    @property
    def conditions(self) -> Conditions:
        return Conditions(self.config, self.detail)

    def interval(self, key: str) -> tuple[float, float] | None:
        """The 95 % interval of a figure; None without one."""
        return _interval(self.detail, key)

    def before_interval(self, key: str) -> tuple[float, float] | None:
        """The same of the initial model's figure."""
        return _interval(self.before_detail, key)

    def setting(self, key: str) -> Any:
        """A setting by its dotted key; None where the run has none."""
        node: Any = self.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return node

    @property
    def method(self) -> str:
        return str(self.setting("unlearn.unlearn_method") or "")

    @property
    def trains(self) -> bool:
        return bool(self.steps) or self.method not in ("", "origin")

    @property
    def retain_path(self) -> Path | None:
        """The retain model's evaluation, where the run names one that is there."""
        path = self.setting("evaluate.retain_results")
        found = Path(path).expanduser() if isinstance(path, str) else None
        return found if found and found.exists() else None


def read_run(path: str | Path, title: str = "", retain: str | Path | None = None) -> FinishedRun:
    """Read a run folder, or a log of another toolkit, of which only the figures and rows are known.

    Args:
        path: the folder or file.
        title: name in the report; by default the folder's.
        retain: evaluation of the retain model, for forget quality in place of the recorded one.

    Raises:
        UserError: it is neither, or a file of it is broken.
    """
    path = Path(path).expanduser()
    evaluation = read_evaluation(path, retain)
    title = title or path.absolute().name
    if not path.is_dir():
        rows = {name: list(table.values()) for name, table in read_results(path).items()}
        return FinishedRun(title, path, evaluation, samples=rows)
    return FinishedRun(
        title,
        path,
        evaluation,
        detail=_object(path / "metrics_detail.json"),
        before=read_summary(path / "before"),
        before_detail=_object(path / "before" / "metrics_detail.json"),
        samples=_rows(path),
        before_samples=_rows(path / "before"),
        steps=_records(path / "log.jsonl"),
        history=_records(path / "evaluations.jsonl"),
        config=_object(path / "config.json"),
        environment=_object(path / "environment.json"),
        weight_change=_object(path / "weight_change.json"),
    )


def retain_figures(path: str | Path) -> dict[str, float | None]:
    """The retain model's figures. Compared with itself, its forget quality is 1 by definition."""
    columns = read_results(path)
    values = {key: value.value for key, value in summarize(columns, columns).items()}
    return values | {key: value for key, value in read_summary(path).items() if value is not None}


def run_folders(paths: Sequence[str | Path]) -> list[str]:
    """The evaluations among these paths: a folder that holds runs, such as that of a grid, stands for them.

    Raises:
        UserError: a folder is no run and holds none.
    """
    found = []
    for path in paths:
        place = Path(path).expanduser()
        inner = sorted(child.parent for child in place.glob("*/metrics.json"))
        is_folder_of_runs = place.is_dir() and not (place / "metrics.json").is_file()
        runs = [child for child in inner if child.name != "before"]
        found += [str(child) for child in runs] if is_folder_of_runs and runs else [str(path)]
    return list(dict.fromkeys(found))


def _interval(detail: Mapping[str, Mapping[str, Any]], key: str) -> tuple[float, float] | None:
    found = detail.get(key, {}).get("interval")
    return (found[0], found[1]) if found else None


def _object(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected an object")
    return found


def _records(path: Path) -> list[dict]:
    return read_jsonl(path) if path.is_file() else []


def _rows(folder: Path) -> dict[str, list[dict]]:
    return {path.stem: read_jsonl(path) for path in sorted((folder / "samples").glob("*.jsonl"))}
