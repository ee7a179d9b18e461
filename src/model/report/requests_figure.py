"""What several unlearning requests left: a table line for each, and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.files import UserError, read_json
from ...metrics.external_results import read_metrics
from ...metrics.spec import ARROWS, METRICS
from .grid_table import Cell, Line

BEFORE, RETAIN = "before", "retain model"


@dataclass(frozen=True)
class Results:
    """Lines of the table: the model before the first request, each request, the retain model if there is one.

    Args:
        lines: the lines.
        metrics: columns.
    """

    lines: Sequence[Line]
    metrics: Sequence[str]


def read_requests(requests: Mapping[str, Path], columns: Sequence[Sequence[str]]) -> Results:
    """Read the finished runs of all requests.

    Args:
        requests: title of each request -> its run folder, in their order.
        columns: metrics of the table; of several lists the first that some run has values of.

    Raises:
        UserError: no run has one of the metrics, or a file is broken.
    """
    first = next(iter(requests.values()))
    folders = {BEFORE: first / "before", **requests}
    retain = read_json(first / "config.json")["evaluate"]["retain_results"]
    if retain and (Path(retain).expanduser() / "metrics.json").is_file():
        folders[RETAIN] = Path(retain).expanduser()
    found = {title: _figures(folder) for title, folder in folders.items()}
    have = {key for figures in found.values() for key, cell in figures.items() if cell.mean is not None}
    known = {key for figures in found.values() for key in figures}
    metrics = next((metrics for metrics in columns if have & set(metrics)), ())
    chosen = [key for key in metrics if key in known]
    if not chosen:
        raise UserError(f"--metrics: no run has a value of {', '.join(columns[-1])}")
    none = Cell(None, None, 0)
    lines = [Line(title, {key: figures.get(key, none) for key in chosen}) for title, figures in found.items()]
    return Results(lines, chosen)


def _figures(folder: Path) -> dict[str, Cell]:
    """Metric -> value and interval of an evaluation; none where the folder has none."""
    if not (folder / "metrics.json").is_file():
        return {}
    path = folder / "metrics_detail.json"
    details = read_json(path) if path.is_file() else {}
    intervals = {key: tuple(found["interval"]) for key, found in details.items() if found.get("interval")}
    return {
        key: Cell(value, None, 1, 1, intervals.get(key))
        for key, value in read_metrics(folder / "metrics.json").items()
    }


def draw(results: Results, path: Path) -> None:
    """Draw every metric over the requests, with its 95 % interval and the retain model's value."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [line for line in results.lines if line.title != RETAIN]
    retain = next((line for line in results.lines if line.title == RETAIN), None)
    figure, axes = pyplot.subplots(
        1, len(results.metrics), figsize=(3.2 * len(results.metrics), 3.2), squeeze=False
    )
    for axis, key in zip(axes[0], results.metrics):
        cells = [(number, line.cells[key]) for number, line in enumerate(lines)]
        shown = [(number, cell) for number, cell in cells if cell.mean is not None]
        axis.plot([number for number, _ in shown], [cell.mean for _, cell in shown], "o-", color="#1f4e79")
        for number, cell in shown:
            if cell.interval:
                axis.vlines(number, *cell.interval, color="#1f4e79", alpha=0.5)
        if retain and retain.cells[key].mean is not None:
            axis.axhline(retain.cells[key].mean, linestyle="--", color="#a04000", label=RETAIN)
            axis.legend(frameon=False, fontsize=8)
        axis.set_title(f"{key} {ARROWS[METRICS[key].good] if key in METRICS else ''}".strip(), fontsize=9)
        axis.set_xticks(range(len(lines)), [BEFORE, *map(str, range(1, len(lines)))], fontsize=8)
        axis.set_xlabel("request", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
