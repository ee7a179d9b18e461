"""Fetch from the hub what a config needs, so that the run itself works on a machine without network.

python src/exec/prefetch.py --config_file configs/tofu/npo+ft.json
"""

import sys
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import checkout

    __package__ = checkout.PACKAGE

from ..core.files import UserError
from ..core.hub_access import hub_problem, offline_reason
from ..core.screen import show
from .script import run_script


def act(settings) -> None:
    from ..dataset import load_evaluation, load_rows

    data = settings.dataset
    for name in {settings.overall.model_name, settings.overall.tokenizer_name} - {None}:
        show(f"model {name}: {fetch_model(name)}")
    for name in {data.forget_dataset_name, data.retain_dataset_name}:
        show(f"dataset {name}: {len(load_rows(name, data.folder, data.column_names))} rows")
    sets = load_evaluation(data.forget_dataset_name, data.folder, columns=data.column_names)
    show("measured: " + ", ".join(f"{len(rows)} {name}" for name, rows in sets.items()))


def fetch_model(name: str) -> str:
    """Where the files of a model lie, fetched when it is not a folder."""
    if Path(name).expanduser().is_dir():
        return "is a folder, nothing to fetch"
    from huggingface_hub import snapshot_download

    offline_reason()
    try:
        return snapshot_download(
            name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
        )
    except Exception as error:  # the hub client raises many kinds; all mean that the model is not to be had
        raise UserError(f"cannot fetch {name!r} from the hub: {hub_problem(error)}") from None


def main(argv: list[str] | None = None) -> int:
    ours = {"dataset": {"forget_dataset_name": "Fictional_forget10"}}  # rows of ours need no fetching
    return run_script(argv, __doc__, act, ours)


if __name__ == "__main__":
    sys.exit(main())
