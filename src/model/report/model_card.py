"""The card of an unlearned model for the hub, and its figures as `.eval_results`. Figures and names alone: no
row, no generated text, no path of this machine."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResultEntry, ModelCardData

from ...core.markdown import table
from ...metrics.spec import METRICS
from .deciding_figures import measured
from .finished_run import FinishedRun
from .grid_table import short
from .plain_reading import figure, read
from .report_charts import gather, named

HUB_DATASETS = {
    "tofu": "locuslab/TOFU",
    "musenews": "muse-bench/MUSE-News",
    "musebooks": "muse-bench/MUSE-Books",
    "knowundo": "zjunlp/KnowUnDo",
    "rwku": "jinzhuoran/RWKU",
}
"""Source of the rows -> its data set on the hub."""
MOST_FIGURES = 40


def hub_dataset(run: FinishedRun) -> str | None:
    """The hub's name of the forget rows' data set; None for rows of one's own."""
    if run.setting("dataset.data_dir"):
        return None
    name = str(run.setting("dataset.forget_dataset_name") or "").partition("_")[0]
    return HUB_DATASETS.get(name.lower())


def base_model(run: FinishedRun) -> str | None:
    """The hub name of the initial model; None for a folder of this machine."""
    name = str(run.setting("overall.model_name") or "")
    is_hub_name = name.count("/") == 1 and not name.startswith((".", "~", "/"))
    return name if is_hub_name and not Path(name).expanduser().exists() else None


def metadata(run: FinishedRun, is_adapter: bool) -> ModelCardData:
    """The YAML head of the card."""
    dataset = hub_dataset(run)
    facts: dict[str, Any] = {
        "library_name": "peft" if is_adapter else "transformers",
        "tags": ["unlearning", "machine-unlearning", "unlearnkit", run.method],
    }
    if base := base_model(run):
        facts |= {"base_model": base, "base_model_relation": "adapter" if is_adapter else "finetune"}
    if dataset:
        facts["datasets"] = [dataset]
    return ModelCardData(**facts)


def card(run: FinishedRun, is_adapter: bool = False) -> str:
    """README.md of the model's repository."""
    reading = read(gather([run]))
    started_from = base_model(run) or f"a local model, `{Path(str(run.setting('overall.model_name'))).name}`"
    rows = run.setting("dataset.forget_dataset_name")
    parts = [
        f"---\n{metadata(run, is_adapter).to_yaml()}\n---\n",
        f"# {run.method}: an unlearned model\n\n",
        f"Made from {started_from} by unlearning with {run.method} (unlearnkit). It was to forget"
        f" {rows} and to keep the rest.\n\n",
        _section("What was forgotten", reading.forgotten),
        _section("At what cost", reading.cost),
        _section("What to believe", reading.believe),
        "## Figures\n\nIntervals are 95 % bootstrap intervals over rows.\n\n",
        _figures(run),
        "\n## Data and training\n\n",
        _training(run),
        "\n",
        _section(
            "Limits: what was not measured",
            [
                *reading.unmeasured,
                "Unlearning is not deletion: none of these figures shows that nothing can be got out of the"
                " weights.",
            ],
        ),
    ]
    return "".join(parts)


def _section(title: str, lines: Any) -> str:
    return f"## {title}\n\n" + "".join(f"- {line}\n" for line in lines) + "\n"


def _figures(run: FinishedRun) -> str:
    rows = [
        [named(key), figure(run, key), _before(run, key), str(run.detail.get(key, {}).get("n", ""))]
        for key in measured(run.figures)[:MOST_FIGURES]
    ]
    return table(["metric (arrow = good)", "value", "before", "rows"], rows)


def _before(run: FinishedRun, key: str) -> str:
    value = run.before.get(key)
    return "–" if value is None else short(value)


def _training(run: FinishedRun) -> str:
    facts = run.environment
    training = facts.get("training") or {}
    lines = {
        "method": run.method,
        "learning rate": run.setting("unlearn.lr"),
        "optimizer": run.setting("unlearn.optimizer"),
        "epochs": training.get("epochs_done"),
        "optimizer steps": training.get("optimizer_steps_done"),
        "rows per step": training.get("rows_per_step"),
        "seed": facts.get("seed"),
        "code": facts.get("git_commit"),
        **{f"package {name}": version for name, version in (facts.get("packages") or {}).items()},
        **{
            f"fingerprint of the {part} rows": f"{found['fingerprint']} ({found['rows']} rows)"
            for part, found in (facts.get("data") or {}).items()
        },
    }
    return table(["what", "value"], [[name, str(v)] for name, v in lines.items() if v is not None])


def eval_results(run: FinishedRun) -> list[EvalResultEntry]:
    """The figures as entries of the hub's `.eval_results`; none for rows without a data set on the hub, to
    which an entry must belong."""
    dataset = hub_dataset(run)
    if dataset is None:
        return []
    date = str(run.environment.get("started") or "") or None
    split = run.setting("dataset.forget_dataset_name")
    return [
        EvalResultEntry(dataset, key, run.figures[key], date=date, notes=_notes(run, key, str(split)))
        for key in measured(run.figures)
        if key in METRICS
    ]


def _notes(run: FinishedRun, key: str, split: str) -> str:
    parts = [f"after unlearning {split} with {run.method}", f"better: {METRICS[key].good}"]
    if ends := run.interval(key):
        parts.append(f"95 % interval {short(ends[0])} to {short(ends[1])}")
    if count := run.detail.get(key, {}).get("n"):
        parts.append(f"n = {count}")
    return "; ".join(parts)
