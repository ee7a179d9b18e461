"""Data sets. Importing this package registers every source in `sources.SOURCES`."""

from . import (  # noqa: F401  (one line per source)
    c4,
    fictional,
    fictional_pii,
    hub_tables,
    muse_documents,
    own_folder,
    reasoning_rows,
    safe_pku,
    tofu_rows,
    truthful_qa,
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
