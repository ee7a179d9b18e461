"""What a model that a run saved remembers of it: a small file beside config.json with the data, template and
evaluation settings that its figures belong to. Whoever measures the model later measures the same, unless
told otherwise."""

from pathlib import Path
from typing import Any

from .files import UserError, read_json, write_json

PROVENANCE = "unlearning.json"
DATA_KEYS = ("forget_dataset_name", "data_dir", "forget_ratio", "dataset_seed", "columns")
"""What rows are measured. They hold together: another data set has its own."""
READING_KEYS = ("template", "think_open", "think_close", "max_length")
"""How rows are put to the model."""
PATHS = ("data_dir", "retain_results", "original_model")
"""Values that are places, kept in full: the model may be measured from another folder."""


def write_provenance(folder: Path, config: dict[str, Any]) -> None:
    """Write what a model in `folder` is to write_provenance of the resolved settings of its run."""
    section = lambda name: config.get(name) or {}
    kept = {
        "unlearn": _chosen(section("unlearn"), ("task_name",)),
        "dataset": _chosen(section("dataset"), (*DATA_KEYS, *READING_KEYS)),
        "evaluate": _chosen(section("evaluate"), [key for key in section("evaluate") if key != "before"]),
    }
    write_json(folder / PROVENANCE, kept)


def read_provenance(folder: Path, data_is_named: bool) -> dict[str, Any]:
    """The settings that a model remembers, none where it has no memory. With `data_is_named` they are about
    other rows, of which nothing is taken. UserError for a broken file."""
    path = folder / PROVENANCE
    if not path.is_file():
        return {}
    memory = read_json(path)
    if not isinstance(memory, dict) or not all(isinstance(section, dict) for section in memory.values()):
        raise UserError(f"{path}: expected sections of settings, as a run writes them; or remove it")
    if data_is_named:
        data = memory.get("dataset", {})
        return {"dataset": {key: value for key, value in data.items() if key in READING_KEYS}}
    return memory


def _chosen(section: dict[str, Any], keys) -> dict[str, Any]:
    return {key: _whole(key, section[key]) for key in keys if section.get(key) is not None}


def _whole(key: str, value: Any) -> Any:
    place = Path(value).expanduser() if key in PATHS and isinstance(value, str) else None
    return str(place.resolve()) if place and place.exists() else value
