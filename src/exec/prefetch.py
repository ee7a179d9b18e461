"""Download the models and data sets of a config, so that the run itself needs no network.

python src/exec/prefetch.py --config_file configs/tofu/npo+ft.json
"""

import sys
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import UserError
from ..core.hub_access import hub_problem, offline_reason
from ..core.screen import show
from .script import Script, run_script


def run(settings) -> None:
    from ..dataset import ForgetSet, load_evaluation, load_rows
    from ..dataset.neutral_texts import load_neutral_texts

    data = settings.dataset
    for name in {
        settings.overall.model_name,
        settings.overall.tokenizer_name,
        settings.evaluate.toxicity_model,
    } - {None}:
        show(f"model {name}: {fetch_model(name)}")
    for name in {data.forget_dataset_name, data.retain_dataset_name}:
        show(f"dataset {name}: {len(load_rows(name, data.folder, data.column_names))} rows")
    sets = load_evaluation(ForgetSet(data.forget_dataset_name, data.folder, columns=data.column_names))
    if settings.evaluate.neutral_text:
        texts = load_neutral_texts(settings.evaluate.neutral_text)
        show(f"neutral text {settings.evaluate.neutral_text}: {len(texts)} documents")
    show("measured: " + ", ".join(f"{len(rows)} {name}" for name, rows in sets.items()))


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
