"""Tables of docs/field.md: other toolkits beside this one, and this project's runs beside published ones.
Facts about others are those of docs/field.json, each with its source and date; those about this project are
counted in its registries."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.files import read_json
from ...core.markdown import table
from ...core.project import PROJECT
from ...metrics.tofu_leaderboard import PublishedRow
from ...optim import FLATNESS
from ...unlearn import FORGET, RETAIN
from ...unlearn.gradients import COMBINERS
from ..settings.method_keys import TASKS
from .grid_table import short
from .report_charts import group_title, published_frontier
from .svg_charts import Chart, draw, standalone

FACTS = PROJECT / "docs" / "field.json"
RUNS = PROJECT / "docs" / "frontier.csv"
MARKS = "<!-- field: written by src/exec/make_docs.py -->", "<!-- end of field -->"
FINETUNED, RETAIN_MODEL = "Finetune Model", "Retain Model"


def render() -> str:
    """Features of every toolkit, our runs, and the leaderboard's rows."""
    facts = read_json(FACTS)
    toolkits = [*facts["toolkits"], _ours()]
    board = facts["leaderboard"]
    return "".join(
        [
            f"\nFacts of {facts['read_on']}. {facts['note']}\n\n",
            table(
                ["toolkit", "methods", "benchmarks", "attacks", "source"],
                [
                    [_link(t), *(t[key] for key in ("methods", "benchmarks", "attacks", "source"))]
                    for t in toolkits
                ],
            ),
            "\n",
            table(
                ["toolkit", "LoRA", "resume, sweep", "tests", "Python package", "card, report"],
                [
                    [t["name"], t["lora"], f"{t['resume']}, {t['sweep']}"]
                    + [t[key] for key in ("tests", "package", "report")]
                    for t in toolkits
                ],
            ),
            "\n## Our runs\n\n",
            _own_runs(RUNS),
            f"\n## TOFU's leaderboard: {board['model']}, {board['split']}\n\nSource: {board['source']}.\n\n",
            _leaderboard(board["rows"]),
        ]
    )


def leaderboard_picture() -> str:
    """The picture of the leaderboard's rows beside our runs, as an SVG file."""
    board = read_json(FACTS)["leaderboard"]
    rows = [
        PublishedRow(
            board["model"],
            board["split"],
            row["method"],
            row["epoch"],
            {key: row[key] for key in ("forget_quality", "model_utility")},
            str(FACTS),
        )
        for row in board["rows"]
    ]
    chart = published_frontier(rows)
    assert isinstance(chart, Chart), chart
    return standalone(draw(chart, "frontier_leaderboard"))


def _link(toolkit: Mapping[str, str]) -> str:
    return f"[{toolkit['name']}]({toolkit['url']})" if toolkit.get("url") else toolkit["name"]


def _ours() -> dict[str, str]:
    """This project, by its registries."""
    kinds = (
        (len([*FORGET.items()]), "forget"),
        (len([*RETAIN.items()]), "retain"),
        (len([*FLATNESS.items()]), "flatness"),
        (len([*COMBINERS.items()]), "combiners"),
    )
    return {
        "name": "unlearnkit (this project)",
        "methods": ", ".join(f"{count} {kind}" for count, kind in kinds),
        "benchmarks": ", ".join(TASKS),
        "attacks": "none on the model; other wordings, decoding modes and sampled answers as metrics",
        "source": "this checkout",
        "lora": "yes",
        "resume": "yes",
        "sweep": "grid",
        "tests": "yes, with golden numbers of other code",
        "package": "yes, and a command",
        "report": "report.html of every run, card, .eval_results",
    }


def _own_runs(path: Path) -> str:
    """One line per configuration of the committed runs: utility and ROUGE-L as means over seeds, forget
    quality as its range: p-values have no mean."""
    with path.open(encoding="utf-8") as file:
        runs = [*csv.DictReader(file)]
    groups: dict[str, list[Mapping[str, str]]] = {}
    for run in runs:
        groups.setdefault(group_title(run["run"]), []).append(run)
    rows = []
    for name, members in groups.items():
        values = lambda key, members=members: [float(run[key]) for run in members if run[key]]
        quality, left, kept = (values(key) for key in ("forget_quality", "forget/rougeL", "model_utility"))
        rows.append(
            [
                f"`{name}`",
                str(len(members)),
                f"{short(min(quality))} to {short(max(quality))}" if quality else "–",
                _mean(left),
                _mean(kept),
            ]
        )
    return table(["config", "seeds", "forget quality ↑", "forget ROUGE-L", "model utility ↑"], rows)


def _mean(values: list[float]) -> str:
    return short(sum(values) / len(values)) if values else "–"


def _leaderboard(rows: list[dict[str, Any]]) -> str:
    """Forget quality and utility by epoch, the utility also as a share of the fine-tuned model's."""
    base = next(row["model_utility"] for row in rows if row["method"] == FINETUNED)
    return table(
        ["method", "epoch", "forget quality ↑", "model utility ↑", "utility kept"],
        [
            [
                row["method"],
                str(row["epoch"]) if row["epoch"] >= 0 else "–",
                short(row["forget_quality"]),
                short(row["model_utility"]),
                f"{100 * row['model_utility'] / base:.0f} %",
            ]
            for row in rows
        ],
    )
