"""Data sets. Importing this package files every source in `sources.SOURCES`."""

from dataset import fictional, folder, hub, muse, reasoning, tofu, wmdp  # noqa: F401  (one line per source)
from dataset.sources import (
    SOURCES,
    dataset_name,
    evaluation_rows,
    known_names,
    load_evaluation,
    load_rows,
    parse_name,
)

__all__ = [
    "SOURCES",
    "dataset_name",
    "evaluation_rows",
    "known_names",
    "load_evaluation",
    "load_rows",
    "parse_name",
]
