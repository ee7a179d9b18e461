"""A config file with some of its keys set to other values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.project import PROJECT
from .config.reader import StrictConfig, resolve_settings

WEIGHTS = ("gamma", "forget_weight")
"""Keys of `unlearn` that some combiners have no place for."""


def winning_config(file: str, values: Mapping[str, str]) -> dict[str, Any]:
    """The tree of a config file: what the file gives and these values, each key under the name that the
    project has for it. Weights that the combiner has no place for are left out.

    Args:
        file: the config file.
        values: key -> word of the command line.
    """
    config = StrictConfig()
    settings = resolve_settings(config, [file], values, {})
    tree: dict[str, Any] = {}
    for path, given in config.given.items():
        if given.priority == 0:  # of a preset, which the file names
            continue
        *sections, key = path
        node = tree
        for name in sections:
            node = node.setdefault(name, {})
        if settings.combiner.weighs or sections != ["unlearn"] or key not in WEIGHTS:
            node[key] = _plain(config.value(path))
    return tree


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    # Files of the project are named as in its own configs.
    if isinstance(value, str) and value.startswith(f"{PROJECT}/"):
        return str(Path(value).relative_to(PROJECT))
    return value
