"""The rule of a sweep: the most forgetting that keeps a share of the initial model's utility."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ...core.files import read_json
from ...metrics.external_results import read_metrics
from ...metrics.spec import METRICS
from ..report.grid_table import run_figures

FORGET_QUALITY = "forget_quality"
SMALLEST = 1e-300
"""Least p-value that is told from 0."""
INITIAL = "initial"
"""Beginning of the names of the initial model's figures among those of a run."""

Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class SweepRule:
    """How trials are compared.

    Args:
        goal: metric of forgetting.
        utility: metric of what is kept; higher is better.
        floor: least utility as a share of the initial model's, on every seed; 0 is none.
        margin: a trial whose first seeds are this share below the floor is not run on the others.
    """

    goal: str
    utility: str = "model_utility"
    floor: float = 0.95
    margin: float = 0.05

    @property
    def on_log_scale(self) -> bool:
        """Whether scores are log10 of the goal: p-values differ by powers of ten."""
        return self.goal == FORGET_QUALITY

    def score(self, figures: Figures) -> float | None:
        """What is maximised; None where the goal has no value."""
        value = figures.get(self.goal)
        if value is None or math.isnan(value):
            return None
        if self.on_log_scale:
            return math.log10(max(value, SMALLEST))
        return value if METRICS[self.goal].good == "up" else -value

    def mean_score(self, runs: Sequence[Figures]) -> float:
        return fmean(score for run in runs if (score := self.score(run)) is not None)

    def kept(self, figures: Figures) -> float | None:
        """Utility as a share of the initial model's."""
        now, before = figures.get(self.utility), figures.get(f"{INITIAL}/{self.utility}")
        return now / before if now is not None and before else None

    def shortfall(self, runs: Sequence[Figures]) -> float:
        """How far the worst run is below the floor, as a share; at most 0 where all hold it."""
        return self.floor - min(self.kept(run) or 0.0 for run in runs) if self.floor else -1.0

    def fault(self, figures: Figures, folder: Path) -> str:
        """Why a finished run cannot be compared; empty when it can."""
        wanted = [self.goal, self.utility] if self.floor else [self.goal]
        for key in wanted:
            value = figures.get(key)
            if value is None or math.isnan(value):
                reason = _reason(folder, key) or "it was not measured (evaluate.metrics)"
                return f"{key} has no value: {reason}"
        if self.floor and not figures.get(f"{INITIAL}/{self.utility}"):
            return f"the initial model's {self.utility} is not there or 0, so there is no floor to hold"
        return ""


def _reason(folder: Path, key: str) -> str:
    path = folder / "metrics_detail.json"
    return str((read_json(path) if path.is_file() else {}).get(key, {}).get("reason") or "")


def trial_figures(folder: Path) -> dict[str, float | None]:
    """The figures of a finished run, and those of its initial model by `initial/<metric>`."""
    found = run_figures(folder)
    before = folder / "before" / "metrics.json"
    initial = read_metrics(before) if before.is_file() else {}
    return found | {f"{INITIAL}/{key}": value for key, value in initial.items()}
