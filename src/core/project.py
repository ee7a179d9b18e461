"""Paths of this code and of the files beside it: small data, small models, tasks, configs."""

from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1]
"""Folder of the package."""
PROJECT = SOURCE if (SOURCE / "files").is_dir() else SOURCE.parent
"""Folder with `files/`, `configs/` and `lm-evaluation-harness/`: the checkout, or an installed package that
contains them."""
DATA = PROJECT / "files" / "data"
FICTIONAL_MODELS = PROJECT / "files" / "models" / "fictional"
HARNESS = SOURCE / "harness" if PROJECT == SOURCE else PROJECT / "lm-evaluation-harness"
INPUTS = ("files/data/", "files/models/", "configs/", "mask/")
"""Beginnings of paths to files that come with the project."""


def code_files(*rooms: str) -> list[Path]:
    """Python files of folders (or single files) of the package, named relative to it, sorted."""
    paths = [SOURCE / room for room in rooms]
    files = [file for path in paths if path.is_dir() for file in path.rglob("*.py")]
    return sorted([*files, *(path for path in paths if not path.is_dir())])


def in_project(value: Any) -> Any:
    """A path to a file that comes with the project, wherever a script was started: as it is where it exists,
    else in the project's folder. Any other value is unchanged."""
    if not isinstance(value, str) or not value.startswith(INPUTS) or Path(value).exists():
        return value
    return str(PROJECT / value) if (PROJECT / value).exists() else value
