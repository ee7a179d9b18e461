"""Data sets. Importing this package registers every source in `sources.SOURCES`."""

from . import (  # noqa: F401  (one line per source)
    book,
    c4,
    fictional,
    fictional_pii,
    harry_potter,
    hub_tables,
    knowundo_rows,
    lume_rows,
    muse_documents,
    muse_fictional,
    own_folder,
    reasoning_rows,
    rwku_rows,
    safe_pku,
    tofu_rows,
    truthful_qa,
    wmdp_corpora,
    wmdp_fictional,
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
    retain_name,
    row_files,
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
    "retain_name",
    "row_files",
]
