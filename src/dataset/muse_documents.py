"""`MuseNews_<split>`, `MuseBooks_<split>`: the corpora of MUSE (Shi et al., arXiv:2407.06460), documents to
be forgotten or kept.

From the hub data sets muse-bench/MUSE-News and MUSE-Books, or with `dataset.data_dir` from a folder of their
tables as `<config>_<split>.jsonl` (raw_forget.jsonl with `text`, verbmem_forget.jsonl with `prompt` and `gt`;
knowmem_forget_qa.jsonl and knowmem_retain_qa.jsonl with `question` and `answer`, if they are there). Books
are copyrighted and not ours to ship.
"""

from ..core.json_fields import TEXT
from .hub_tables import HubTable, check_table, load_table
from .sources import SOURCES, Source

TABLES = {"forget": "forget", "retain": "retain1"}
FIELDS = {
    "raw": {"text": TEXT},
    "verbmem": {"prompt": TEXT, "gt": TEXT},
    "knowmem": {"question": TEXT, "answer": TEXT},
}
"""Required fields of the rows of each table."""


class Muse(Source):
    """Documents for training (`dataset.long_text pieces` cuts them); continuations of the forget set and
    answers to questions for evaluation."""

    splits = tuple(TABLES)
    forget_splits = ("forget",)
    hub_name: str

    def check(self, split: str) -> None:
        check_table(self.data_dir, f"raw_{TABLES[split]}.jsonl")

    def rows(self, split: str) -> list[dict]:
        return [
            {"id": f"{split}-{number}", "text": row["text"]}
            for number, row in enumerate(self._table("raw", TABLES[split]))
        ]

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        documents = [
            {"id": f"verbmem-{number}", "prompt": row["prompt"], "gt": row["gt"]}
            for number, row in enumerate(self._table("verbmem", "forget"))
        ]
        return {"forget_documents": documents} | {
            name: self._questions(f"{name}_qa") for name in ("forget", "retain")
        }

    def _questions(self, split: str) -> list[dict]:
        """The questions about the documents (MUSE's knowledge memorisation); optional in a folder."""
        if self.data_dir and not (self.data_dir / f"knowmem_{split}.jsonl").is_file():
            return []
        return [
            {"id": f"{split}-{number}", "question": row["question"], "answer": row["answer"]}
            for number, row in enumerate(self._table("knowmem", split))
        ]

    def _table(self, config: str, split: str) -> list[dict]:
        table = HubTable(f"{config}_{split}.jsonl", self.hub_name, config, split)
        return load_table(self.data_dir, table, FIELDS[config])


@SOURCES.register("MuseNews")
class MuseNews(Muse):
    """BBC news."""

    title = "MuseNews"
    hub_name = "muse-bench/MUSE-News"


@SOURCES.register("MuseBooks")
class MuseBooks(Muse):
    """Harry Potter books."""

    title = "MuseBooks"
    hub_name = "muse-bench/MUSE-Books"
