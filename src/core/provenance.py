"""Provenance of a saved model: a small file beside config.json with the data, template and evaluation
settings of its run. A later evaluation of the model uses the same settings by default."""

from pathlib import Path
from typing import Any

from .files import UserError, read_json, write_json

PROVENANCE = "unlearning.json"
DATA_KEYS = ("forget_dataset_name", "data_dir", "forget_ratio", "dataset_seed", "columns")
"""Settings of the evaluated rows. They belong together: none applies to another data set."""
READING_KEYS = ("template", "think_open", "think_close", "max_length")
"""Settings of prompts and tokenisation."""
TRAINING_KEYS = ("before", "every", "every_metrics", "best", "best_floor")
"""Settings of the evaluation that only a run that trains has."""
PATHS = ("data_dir", "retain_results", "second_retain_results", "original_results", "original_model")
"""Settings that are paths, stored absolute: a later evaluation may start in another folder."""


def write_provenance(folder: Path, config: dict[str, Any]) -> None:
    """Write the provenance of the model in `folder`, from the resolved settings of its run."""
    unlearn, dataset, evaluate = (config.get(name) or {} for name in ("unlearn", "dataset", "evaluate"))
    facts = {
        "unlearn": _selected(unlearn, ("task_name",)),
        "dataset": _selected(dataset, (*DATA_KEYS, *READING_KEYS)),
        "evaluate": _selected(evaluate, [key for key in evaluate if key not in TRAINING_KEYS]),
    }
    write_json(folder / PROVENANCE, facts)


def read_provenance(folder: Path, data_is_named: bool) -> dict[str, Any]:
    """Read the settings that belong to a model.

    Args:
        folder: Folder of the model.
        data_is_named: Whether the user names a data set; only settings of prompts apply then.

    Returns:
        Sections of settings; empty for a model without provenance.

    Raises:
        UserError: The file is broken.
    """
    path = folder / PROVENANCE
    if not path.is_file():
        return {}
    stored = read_json(path)
    if not isinstance(stored, dict) or not all(isinstance(section, dict) for section in stored.values()):
        raise UserError(f"{path}: expected sections of settings, as a run writes them; or remove it")
    if data_is_named:
        data = stored.get("dataset", {})
        return {"dataset": {key: value for key, value in data.items() if key in READING_KEYS}}
    return stored


def _selected(section: dict[str, Any], keys) -> dict[str, Any]:
    return {key: _absolute(key, section[key]) for key in keys if section.get(key) is not None}


def _absolute(key: str, value: Any) -> Any:
    place = Path(value).expanduser() if key in PATHS and isinstance(value, str) else None
    return str(place.resolve()) if place and place.exists() else value
