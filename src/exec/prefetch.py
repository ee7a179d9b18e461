"""Download the models and data sets of a config, so that the run itself needs no network.

python src/exec/prefetch.py --config_file configs/tofu/npo+ft.json
"""

import sys
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.embedding import MINILM
from ..core.files import UserError
from ..core.hub_access import hub_problem, offline_reason
from ..core.screen import show
from .config.rules.method_rules import parts_of
from .script import Script, run_script


def run(settings) -> None:
    from ..dataset import ForgetSet, load_evaluation, load_rows
    from ..dataset.neutral_texts import load_neutral_texts

    data = settings.dataset
    for name in models(settings):
        show(f"model {name}: {fetch_model(name)}")
    for name, folder in datasets(settings):
        show(f"dataset {name}: {len(load_rows(name, folder, data.column_names))} rows")
    sets = load_evaluation(ForgetSet(data.forget_dataset_name, data.folder, columns=data.column_names))
    if settings.evaluate.neutral_text:
        texts = load_neutral_texts(settings.evaluate.neutral_text, data.folder)
        show(f"neutral text {settings.evaluate.neutral_text}: {len(texts)} documents")
    show("measured: " + ", ".join(f"{len(rows)} {name}" for name, rows in sets.items()))
    if settings.benchmark_tasks:
        fetch_benchmarks(settings)


def models(settings) -> list[str]:
    """Names of the models that a run loads, each once."""
    overall, evaluate, judge = settings.overall, settings.evaluate, settings.judge
    named = [overall.model_name, overall.tokenizer_name, overall.base_model, evaluate.original_model]
    named += [evaluate.toxicity_model, judge.nli_model, judge.model if judge.kind == "local" else None]
    named += [judge.embedder] if judge.embedder != MINILM else []
    return list(dict.fromkeys(name for name in named if name))


def datasets(settings) -> list[tuple[str, Path | None]]:
    """Names and folders of the data sets that a run reads, each once."""
    data, parts = settings.dataset, parts_of(settings)
    named = [(data.forget_dataset_name, data.folder), (data.retain_dataset_name, data.folder)]
    named += [(data.cot_dataset_name, data.cot_folder)] if "cot" in parts else []
    named += [(data.environment_dataset_name, data.environment_folder)] if "environment" in parts else []
    return list(dict.fromkeys(named))


def fetch_benchmarks(settings) -> None:
    """Load the rows of every benchmark task, which keeps them in the hub's cache."""
    from ..model.benchmarks.benchmark_runner import Benchmarks

    benchmarks = Benchmarks(settings, settings.evaluate.decoding)
    for name in settings.benchmark_tasks:
        rows = sum(len(task.eval_docs) for task in benchmarks.load(name)["tasks"].values())
        show(f"benchmark {name}: {rows} rows")


def fetch_model(name: str) -> str:
    """Download a model from the hub and return its folder; a local folder needs no download."""
    if Path(name).expanduser().is_dir():
        return "is a folder, nothing to fetch"
    from huggingface_hub import snapshot_download

    offline_reason()
    try:
        return snapshot_download(
            name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
        )
    except Exception as error:  # the hub client raises many kinds; all mean that the model is not available
        raise UserError(f"cannot fetch {name!r} from the hub: {hub_problem(error)}") from None


def main(argv: list[str] | None = None) -> int:
    defaults = {"dataset": {"forget_dataset_name": "Fictional_forget10"}}  # comes with the project
    return run_script(argv, Script(__doc__, run, defaults))


if __name__ == "__main__":
    sys.exit(main())
