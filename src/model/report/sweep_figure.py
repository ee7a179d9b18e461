"""The picture of a sweep: forgetting over what is kept, a mark for each trial."""

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sweep_report import SweepResults

MARKS = "osD^v<>Ph*X"


def draw(results: "SweepResults", path: Path) -> None:
    """Draw trials as marks (hollow where they do not hold the floor or were pruned), the frontier, the floor,
    and the winners on the report seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from .sweep_report import holds

    rule = results.rule
    figure, axis = pyplot.subplots(figsize=(7.2, 4.8))
    points = []
    for number, config in enumerate(results.budgets):
        color, mark = f"C{number % 10}", MARKS[number % len(MARKS)]
        for trial in results.trials:
            if trial.config == config and trial.figures:
                place = _place(trial.figures, rule)
                points.append(place)
                face = color if holds(trial, rule) else "none"
                axis.plot(*place, mark, color=color, markerfacecolor=face, alpha=0.8, markersize=5)
        axis.plot([], [], mark, color=color, label=config)
        if runs := results.reported.get(config):
            axis.plot(*_place(runs, rule), "*", color=color, markersize=16, markeredgecolor="black")
    if any(results.reported.values()):
        axis.plot(
            [], [], "*", color="white", markeredgecolor="black", markersize=12, label="winner, other seeds"
        )
    front = _frontier(points)
    axis.plot([x for x, _ in front], [y for _, y in front], ":", color="0.5", linewidth=1)
    if rule.floor:
        axis.axvline(rule.floor, linestyle="--", color="0.4", linewidth=1)
        axis.annotate("floor", (rule.floor, 1), xycoords=("data", "axes fraction"), fontsize=8, va="bottom")
    axis.set_xlabel(f"{rule.utility} as a share of the initial model's")
    axis.set_ylabel(f"log10 {rule.goal}" if rule.on_log_scale else f"{rule.goal}, higher is more forgetting")
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _place(runs, rule) -> tuple[float, float]:
    """What is kept and the score, means over seeds."""
    return fmean(rule.kept(run) or 0.0 for run in runs), rule.mean_score(runs)


def _frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both, from the least kept on."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, reverse=True):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front
