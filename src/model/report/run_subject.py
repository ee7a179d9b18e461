"""What was run, in a few lines: the model with its size, the method, the rows with number and origin."""

from collections.abc import Mapping, Sequence

from ...core.files import UserError
from ...core.markdown import first_sentence
from ...unlearn.method import parse_method
from .finished_run import FinishedRun
from .report_charts import Material

PARTS = {
    "forget": "To forget",
    "retain": "To keep",
    "alternate": "Alternate answers",
    "retain_alternate": "Refusals to the retain questions",
    "paraphrases": "Paraphrases",
    "traces": "Reasoning traces",
    "cot": "Reasoning to keep",
    "environment": "Environment rows",
}
"""Training part -> what its rows are."""
DATASETS = {"forget": "dataset.forget_dataset_name", "retain": "dataset.retain_dataset_name"}
"""Training part -> the key of its data set, for runs that did not note where their rows come from."""


def what_was_run(material: Material) -> list[str]:
    """One line on model and method, one on the rows, one on the objectives, without what runs differ in."""
    runs = material.runs
    found = [_common([_model(run) for run in runs]), _common([_method(run) for run in runs])]
    rows = [_common([_rows(run, part) for run in runs]) for part in PARTS]
    in_words = _common([_objectives(run) for run in runs])
    return [*filter(None, (" ".join(filter(None, some)) for some in (found, rows, [in_words])))]


def _common(texts: Sequence[str]) -> str:
    return texts[0] if len(set(texts)) == 1 else ""


def _model(run: FinishedRun) -> str:
    name, count = run.setting("overall.model_name"), run.environment.get("weights")
    if not name:
        return ""
    role = "Initial model" if run.trains else "Model"
    return f"{role}: {name}" + (f", {count:,} weights." if isinstance(count, int) else ".")


def _method(run: FinishedRun) -> str:
    """The method with the settings that decide most."""
    if not run.trains or not run.method:
        return ""
    combiner = run.setting("unlearn.combiner")
    training = run.environment.get("training") or {}
    epochs, steps = training.get("epochs_done"), training.get("optimizer_steps_done")
    parts = [
        f"combiner {combiner}" if combiner and combiner != "sum" else "",
        "LoRA adapters" if run.setting("unlearn.use_lora") else "",
        f"{epochs:.4g} epochs, {steps} steps" if epochs and steps else "",
        f"learning rate {rate:g}" if isinstance(rate := run.setting("unlearn.lr"), int | float) else "",
    ]
    return f"Method: {', '.join([run.method, *filter(None, parts)])}."


def _rows(run: FinishedRun, part: str) -> str:
    """How many rows of a part there are, and where they come from."""
    facts = (run.environment.get("data") or {}).get(part)
    if not isinstance(facts, Mapping):
        name = run.setting(DATASETS[part]) if part in DATASETS else None
        return f"{PARTS[part]}: {name}." if name and (run.trains or part == "forget") else ""
    source = facts.get("from") or (run.setting(DATASETS[part]) if part in DATASETS else None)
    count = f"{facts['rows']:,} rows"
    if "texts" in facts:
        count = f"{facts['texts']:,} for {count}"
    return f"{PARTS[part]}: {count}" + (f" from {source}." if source else ".")


def _objectives(run: FinishedRun) -> str:
    """What each objective of the method is, by its own description."""
    if not run.trains:
        return ""
    try:
        sections = parse_method(run.method).sections
    except UserError:  # of a version with other methods
        return ""
    return " ".join(
        _named(section.rpartition(".")[2], first_sentence(kind.__doc__)) for section, kind in sections.items()
    )


def _named(name: str, description: str) -> str:
    description = description.replace("`", "")
    return description if description.startswith(name) else f"{name}: {description}"
