"""LoRA adapter folders, as peft's `save_pretrained` writes them, given in place of a model."""

from pathlib import Path
from typing import Any

from ...core.files import UserError, read_json
from .folder_faults import check_folder, reason_of

CONFIG = "adapter_config.json"


def is_adapter(name: str) -> bool:
    """Whether `name` is a folder with an adapter and without a model of its own."""
    folder = Path(name).expanduser()
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(name: str, base_model: str | None = None) -> str:
    """The base model of an adapter, or `base_model` in its place; any other name is returned as it is."""
    if not is_adapter(name):
        return name
    if base_model:
        return base_model
    path = Path(name).expanduser() / CONFIG
    config = read_json(path, unique_keys=False)
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: base_model_name_or_path names no model")
    if is_adapter(base):
        raise UserError(f"{path}: base_model_name_or_path is {base}, an adapter itself; merge that one first")
    return base


def tokenizer_place(name: str, base_model: str | None = None) -> str:
    """Folder or hub name of a model's tokenizer: an adapter folder without a tokenizer uses its base's."""
    has_own = (Path(name).expanduser() / "tokenizer_config.json").is_file()
    return name if has_own else base_of(name, base_model)


def set_base_name(model: Any, overall) -> None:
    """Write the model of the run as the base into the adapter configs of a model; a folder by its whole
    path."""
    # A relative path would be resolved against the working directory of whoever loads the adapter.
    place = Path(overall.model_name).expanduser()
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(place.resolve()) if place.is_dir() else overall.model_name


def merge_adapter(model: Any, name: str, base: str) -> Any:
    """Merge the adapter of a folder into the weights of a model.

    Args:
        model: the loaded base model.
        name: the adapter folder.
        base: name of the base model, for messages and the adapter's config.

    Raises:
        UserError: the adapter lacks weights, has weights that the base does not take, or is of a kind that
            cannot be merged.
    """
    import peft

    folder = str(Path(name).expanduser())
    check_folder(Path(folder))
    try:
        config = peft.PeftConfig.from_pretrained(folder)
        config.base_model_name_or_path = base
        adapted = peft.get_peft_model(model, config)
        result = peft.set_peft_model_state_dict(adapted, peft.load_peft_weights(folder, device="cpu"))
    except Exception as error:  # peft raises any kind over a config of wrong types
        raise UserError(f"{name}: its adapter cannot be loaded onto {base} ({reason_of(error)})") from None
    # peft lists the whole base model as missing, since an adapter file holds the adapter's weights alone.
    missing = [key for key in result.missing_keys if "lora_" in key]
    if missing:
        fault = f"lacks {missing[0]}"
    elif result.unexpected_keys:
        fault = f"holds {result.unexpected_keys[0]}, which the base does not have"
    else:
        fault = ""
    if fault:
        raise UserError(f"{name}: its adapter {fault}; was it trained on another model than {base}?")
    if not hasattr(adapted, "merge_and_unload"):
        raise UserError(f"{name}: an adapter of this kind cannot be merged into the weights; LoRA can")
    return adapted.merge_and_unload()
