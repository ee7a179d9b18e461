"""`C4_train`, `C4_validation`: web pages of C4 (Raffel et al., arXiv:1910.10683), documents to keep and
neutral text.

From the hub (allenai/c4, the English files that the WAGLE family reads: c4-train.00001-of-01024 and
c4-validation.00000-of-00008) or with `dataset.data_dir` from c4_train.jsonl and c4_validation.jsonl (`text`).
Of each the first 10,000 pages are taken: WAGLE tokenises all 356,317 of its file.
"""

from collections.abc import Sequence

from ..core.json_fields import TEXT
from .hub_tables import HubTable, check_table, load_table
from .sources import SOURCES, Source

PAGES = 10_000
FILES = {
    "train": "en/c4-train.00001-of-01024.json.gz",
    "validation": "en/c4-validation.00000-of-00008.json.gz",
}


@SOURCES.register("C4")
class C4(Source):
    """Documents for training and perplexity."""

    title = "C4"
    splits = tuple(FILES)
    forget_splits = ()
    measured = False
    default_split = "train"

    def check(self, split: str) -> None:
        check_table(self.data_dir, f"c4_{split}.jsonl")

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        return (HubTable(f"c4_{split}.jsonl", "allenai/c4", None, f"{split}[:{PAGES}]", FILES[split]),)

    def rows(self, split: str) -> list[dict]:
        pages = load_table(self.data_dir, self.hub_tables(split)[0], {"text": TEXT})[:PAGES]
        return [{"id": f"c4-{split}-{number}", "text": row["text"]} for number, row in enumerate(pages)]
