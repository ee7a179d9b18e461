"""LoRA adapter folders, as peft's `save_pretrained` writes them, in the place of a model."""

from pathlib import Path
from typing import Any

from ...core.files import UserError, read_json
from .folder_faults import check_folder, reason_of

CONFIG = "adapter_config.json"


def is_adapter(name: str) -> bool:
    """Is it a folder with an adapter and no model of its own?"""
    folder = Path(name).expanduser()
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(name: str, base_model: str | None = None) -> str:
    """The model that an adapter was trained on, or `base_model` in its place; a name that is not an adapter
    is its own."""
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
    """Where the tokenizer of a model lies: an adapter folder without one has its base's."""
    has_own = (Path(name).expanduser() / "tokenizer_config.json").is_file()
    return name if has_own else base_of(name, base_model)


def name_base(model: Any, overall) -> None:
    """Let the adapters of a model name the model of the run as their base; a folder by its whole path."""
    place = Path(overall.model_name).expanduser()
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(place.resolve()) if place.is_dir() else overall.model_name


def merge_adapter(model: Any, name: str, base: str) -> Any:
    """The model `base` with the adapter of a folder merged into its weights. UserError when the adapter lacks
    weights, has others than the base takes, or is of a kind that cannot be merged."""
    import peft

    folder = str(Path(name).expanduser())
    check_folder(Path(folder))
    try:
        plan = peft.PeftConfig.from_pretrained(folder)
        plan.base_model_name_or_path = base
        adapted = peft.get_peft_model(model, plan)
        result = peft.set_peft_model_state_dict(adapted, peft.load_peft_weights(folder, device="cpu"))
    except Exception as error:  # peft raises any kind over a config of wrong types
        raise UserError(f"{name}: its adapter cannot be loaded onto {base} ({reason_of(error)})") from None
    missing = [key for key in result.missing_keys if "lora_" in key]
    if missing or result.unexpected_keys:
        what = (
            f"lacks {missing[0]}" if missing else f"holds {result.unexpected_keys[0]}, which the base has not"
        )
        raise UserError(f"{name}: its adapter {what}; was it trained on another model than {base}?")
    if not hasattr(adapted, "merge_and_unload"):
        raise UserError(f"{name}: an adapter of this kind cannot be merged into the weights; LoRA can")
    return adapted.merge_and_unload()
