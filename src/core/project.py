"""Where this code lies, and the files that come with it: small data, small models, tasks, configs."""

from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1]
"""The package's folder."""
PROJECT = SOURCE if (SOURCE / "files").is_dir() else SOURCE.parent
"""The folder that holds `files/`, `configs/` and `lm-evaluation-harness/`: the checkout, or an installed
package that brings them along."""
DATA = PROJECT / "files" / "data"
FICTIONAL_MODELS = PROJECT / "files" / "models" / "fictional"
HARNESS = SOURCE / "harness" if PROJECT == SOURCE else PROJECT / "lm-evaluation-harness"
INPUTS = ("files/data/", "files/models/", "configs/", "mask/")
"""Beginnings of paths to files that come with the project."""


def code_files(*rooms: str) -> list[Path]:
    """Every Python file of these rooms or files, named from the package's folder, in order."""
    found = [SOURCE / room for room in rooms]
    return sorted(file for path in found for file in (path.rglob("*.py") if path.is_dir() else [path]))


def in_project(value: Any) -> Any:
    """A path to a file that comes with the project, wherever a script was started: as it is where it exists,
    else in the project's folder. Any other value is unchanged."""
    if not isinstance(value, str) or not value.startswith(INPUTS) or Path(value).exists():
        return value
    return str(PROJECT / value) if (PROJECT / value).exists() else value
