"""Rules on models, tokenizers and folders."""

import os
from importlib.util import find_spec
from pathlib import Path

from ....core.files import UserError
from ....core.registry import near_path
from ....model.load.adapters import base_of, is_adapter, tokenizer_place
from ....model.settings.run_settings import Settings

TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "merges.txt", "tekken.json")


WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")


def model_errors(settings: Settings) -> list[str]:
    overall = settings.overall
    original, base = settings.evaluate.original_model, overall.base_model
    found = [model_path_error("overall.model_name", overall.model_name, overall.random_init, base)]
    if original:
        found.append(model_path_error("evaluate.original_model", original, False, base))
    if base and not any(is_adapter(name) for name in (overall.model_name, original) if name):
        found.append("overall.base_model: no model is named that is an adapter folder; leave it out")
    if overall.tokenizer_name:
        found.append(_tokenizer_path_error("overall.tokenizer_name", overall.tokenizer_name))
    elif not any(found):
        found.append(_tokenizer_path_error("overall.model_name", tokenizer_place(overall.model_name, base)))
    if overall.cache.is_file():
        found.append(f"overall.cache_dir: {overall.cache_dir} is a file")
    elif not _is_writable(overall.cache):
        found.append(f"overall.cache_dir: {overall.cache_dir} cannot be written; choose another")
    return [complaint for complaint in found if complaint]


def _is_writable(folder: Path) -> bool:
    """May a folder be written, or made where it is not there?"""
    place = next((p for p in (folder.absolute(), *folder.absolute().parents) if p.exists()), folder)
    return os.access(place, os.W_OK)


def model_path_error(key: str, name: str, random_init: bool, base_model: str | None = None) -> str | None:
    path = Path(name).expanduser()
    if path.is_file():
        return f"{key}: {name} is a file; a model is a folder with config.json and *.safetensors"
    if not path.is_dir():
        return _hub_name_error(key, name)
    if is_adapter(name):
        return _adapter_error(key, name, random_init, base_model)
    weights = [file for pattern in WEIGHTS for file in path.glob(pattern)]
    if not weights and (path / "log.jsonl").is_file():
        trained = _trained_model(path)
        what = f"its model is {trained}" if trained else "its run has kept no model (yet)"
        return f"{key}: {name} is a run folder; {what}"
    if not (path / "config.json").is_file():
        return (
            f"{key}: {name} is a folder without config.json, so no model; expected what save_pretrained"
            f" writes{_models_in(path)}"
        )
    if not random_init and not weights:
        return (
            f"{key}: {name} has no weights (*.safetensors); to train it from scratch set overall.random_init"
            " true"
        )
    return None


def _trained_model(folder: Path) -> Path | None:
    """The model that the run of a run folder trained, where there is one."""
    model = folder / "checkpoints"
    return model if (model / "config.json").is_file() else None


def _models_in(folder: Path) -> str:
    """The folders in this one that do hold a model, for a message."""
    models = [str(path.parent) for path in sorted(folder.glob("*/config.json"))]
    return f"; did you mean {' or '.join(models[:3])}?" if models else ""


def _tokenizer_path_error(key: str, name: str) -> str | None:
    path = Path(name).expanduser()
    if not path.is_dir():
        return _hub_name_error(key, name)
    if any(file for pattern in TOKENIZERS for file in path.glob(pattern)):
        return None
    if trained := _trained_model(path):
        return f"{key}: {name} is a run folder; its tokenizer is in {trained}"
    return (
        f"{key}: {name} has no tokenizer (tokenizer.json, tokenizer.model, ...); name a folder or hub model"
        " that has the right one with overall.tokenizer_name"
    )


def _adapter_error(key: str, name: str, random_init: bool, base_model: str | None) -> str | None:
    """What is wrong with a folder that holds a LoRA adapter: its base must be there too."""
    if random_init:
        return f"{key}: {name} is an adapter folder, and overall.random_init draws whole models"
    try:
        base = base_of(name, base_model)
    except UserError as error:
        return f"{key}: {error}"
    return model_path_error(f"{key}: the base model of the adapter {name}", base, False)


def _hub_name_error(key: str, name: str) -> str | None:
    """A name that is not a folder can only be a hub name, owner/model."""
    owner, _, rest = name.partition("/")
    if owner and rest and "/" not in rest and not name.startswith((".", "~", "/")):
        return None
    return (
        f"{key}: there is no folder {name} (seen from {Path.cwd()}), and a hub name has the form"
        f" owner/model{near_path(name)}"
    )


def package_errors(settings: Settings) -> list[str]:
    """Packages that only some settings need."""
    trains, optimizer = settings.method.trains, settings.unlearn.optimizer
    needed = {
        "overall.logger wandb": "wandb" if settings.overall.logger == "wandb" else "",
        "logger.tensorboard": "tensorboard" if settings.logger.tensorboard else "",
        f"unlearn.optimizer {optimizer}": getattr(settings.optimizer, "package", "") if trains else "",
        f"unlearn.lora.quantize {settings.lora.quantize}": "bitsandbytes" if settings.is_quantized else "",
    }
    return [
        f"{key}: the package {name} is not installed; .venv/bin/pip install {name}"
        for key, name in needed.items()
        if name and find_spec(name) is None
    ]


def publishing_errors(settings: Settings) -> list[str]:
    """Why a model could not be pushed to the hub after the run."""
    repository = settings.logger.push_to_hub
    if not repository:
        return []
    if not settings.method.trains:
        return [f"logger.push_to_hub: {settings.method.name} trains no model that could be pushed"]
    if settings.overall.logger == "none":
        return ["logger.push_to_hub: overall.logger none keeps no model that could be pushed"]
    from ....model.run.hub_push import publishing_fault

    fault = publishing_fault(repository)
    return [fault] if fault else []


def overwrite_errors(settings: Settings) -> list[str]:
    """What a run reads must not lie in the folder that it replaces."""
    if not settings.logger.name or not settings.logger.overwrite:
        return []
    folder = (Path(settings.json_logger.root).expanduser() / settings.logger.name).resolve()
    read = {
        "overall.model_name": settings.overall.model_name,
        "overall.tokenizer_name": settings.overall.tokenizer_name,
        "evaluate.retain_results": settings.evaluate.retain_results,
        "evaluate.second_retain_results": settings.evaluate.second_retain_results,
        "evaluate.original_results": settings.evaluate.original_results,
        "dataset.data_dir": settings.dataset.data_dir,
        "dataset.cot_data_dir": settings.dataset.cot_data_dir,
        "dataset.traces": settings.dataset.traces,
        "dataset.paraphrases": settings.dataset.paraphrases,
        "evaluate.original_model": settings.evaluate.original_model,
    }
    return [
        f"{key}: {path} lies in {folder}, which logger.overwrite would replace; choose another logger.name"
        for key, path in read.items()
        if path and Path(path).expanduser().resolve().is_relative_to(folder)
    ]
