"""Data sets. Importing this package registers every source in `sources.SOURCES`."""

from . import (  # noqa: F401  (one line per source)
    book,
    fictional,
    harry_potter,
    hub_tables,
    muse_documents,
    own_folder,
    reasoning_rows,
    tofu_rows,
    wmdp_corpora,
)
from .sources import (
    SOURCES,
    ForgetSet,
    dataset_name,
    evaluation_rows,
    known_names,
    load_evaluation,
    load_rows,
    parse_name,
)

__all__ = [
    "SOURCES",
    "ForgetSet",
    "dataset_name",
    "evaluation_rows",
    "known_names",
    "load_evaluation",
    "load_rows",
    "parse_name",
]
