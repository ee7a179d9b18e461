"""`MuseNews_<split>`, `MuseBooks_<split>`: the corpora of MUSE (Shi et al., arXiv:2407.06460), documents to
be forgotten or kept. `MuseFictional_<split>`, in muse_fictional.py, has the fictional world in their form.

    forget, retain, retain2      documents (raw_forget, raw_retain1, raw_retain2)
    full, retain_full            what the target and the retain model are trained on: all three, the last two
    scal_1 ... scal_4            growing forget sets (scalability)
    sust_1 ... sust_4            forget sets for requests one after another (sustainability)

From the hub data sets muse-bench/MUSE-News and MUSE-Books, or with `dataset.data_dir` from a folder of their
tables as `<config>_<split>.jsonl`, see `LAYOUT`. Books are copyrighted and not ours to ship.
"""

from collections.abc import Sequence

from ..core.files import UserError
from ..core.json_fields import TEXT
from .hub_tables import HubTable, load_table
from .sources import SOURCES, Source

FOLDS = (1, 2, 3, 4)
RAW = {"forget": "forget", "retain": "retain1", "retain2": "retain2"}
PARTS = {
    **{name: (("raw", split),) for name, split in RAW.items()},
    "full": tuple(("raw", split) for split in RAW.values()),
    "retain_full": (("raw", "retain1"), ("raw", "retain2")),
    **{f"{config}_{fold}": ((config, f"forget_{fold}"),) for config in ("scal", "sust") for fold in FOLDS},
}
"""Split -> the tables (configuration, split) that it joins."""
FIELDS = {
    **dict.fromkeys(("raw", "scal", "sust", "privleak"), {"text": TEXT}),
    "verbmem": {"prompt": TEXT, "gt": TEXT},
    "knowmem": {"question": TEXT, "answer": TEXT},
}
"""Required fields of the rows of each table."""
LAYOUT = (
    "raw_forget.jsonl, raw_retain1.jsonl (text) and verbmem_forget.jsonl (prompt, gt), and optionally"
    " verbmem_retain.jsonl (the same), knowmem_{forget,retain}_qa.jsonl with"
    " knowmem_{forget,retain}_qa_icl.jsonl (question, answer), privleak_{forget,holdout}.jsonl,"
    " raw_retain2.jsonl, scal_forget_1.jsonl to 4, sust_forget_1.jsonl to 4 (text)"
)


def knowledge_prompt(examples: list[dict], question: str) -> str:
    """A question behind answered examples, in MUSE's form, blank at the end included."""
    shown = "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in examples)
    return f"{shown}Question: {question}\nAnswer: "


class Muse(Source):
    """Documents for training (`dataset.long_text pieces` cuts them). Measured are continuations of forget
    documents, answers to questions about them behind examples, and membership of whole documents."""

    splits = tuple(PARTS)
    forget_splits = tuple(name for name in PARTS if name.startswith(("scal", "sust")) or name == "forget")
    hub_name: str
    row_files = {
        "retain_documents": "verbmem_retain.jsonl, which MUSE itself does not have",
        "forget": "knowmem_forget_qa.jsonl",
        "retain": "knowmem_retain_qa.jsonl",
        "forget_knowledge": "knowmem_forget_qa.jsonl",
        "retain_knowledge": "knowmem_retain_qa.jsonl",
        "forget_texts": "privleak_forget.jsonl",
        "holdout_texts": "privleak_holdout.jsonl",
    }

    def check(self, split: str) -> None:
        measured = (("verbmem", "forget"),) if split in self.forget_splits else ()
        needed = (*PARTS[split], *measured)
        absent = [f"{config}_{part}.jsonl" for config, part in needed if not self._has(config, part)]
        if absent:
            raise UserError(
                f"dataset.data_dir: {self.data_dir} has no {absent[0]}; a folder of MUSE has {LAYOUT}"
            )

    def rows(self, split: str) -> list[dict]:
        return [
            {"id": f"{part if config == 'raw' else split}-{number}", "text": row["text"]}
            for config, part in PARTS[split]
            for number, row in enumerate(self._table(config, part))
        ]

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        sets = {"forget_documents": self._documents_of("forget")}
        # Not on the hub: MUSE measures verbatim memorisation of forget documents alone.
        if self.data_dir and self._has("verbmem", "retain"):
            sets["retain_documents"] = self._documents_of("retain")
        for name in ("forget", "retain"):
            questions = self._questions(name)
            sets[name] = [{key: row[key] for key in ("id", "question", "answer")} for row in questions]
            sets[f"{name}_knowledge"] = questions
        for name in ("forget", "holdout"):
            sets[f"{name}_texts"] = [
                {"id": f"{name}-{number}", "text": row["text"]}
                for number, row in enumerate(self._optional("privleak", name))
            ]
        return sets

    def _documents_of(self, name: str) -> list[dict]:
        """Beginnings of documents with their true continuations."""
        head = "verbmem" if name == "forget" else f"verbmem-{name}"
        return [
            {"id": f"{head}-{number}", "prompt": row["prompt"], "gt": row["gt"]}
            for number, row in enumerate(self._table("verbmem", name))
        ]

    def _questions(self, name: str) -> list[dict]:
        """The questions about the documents, each with the prompt of MUSE's knowledge memorisation."""
        examples = self._optional("knowmem", f"{name}_qa_icl")
        return [
            {
                "id": f"{name}_qa-{number}",
                "question": row["question"],
                "answer": row["answer"],
                "prompt": knowledge_prompt(examples, row["question"]),
            }
            for number, row in enumerate(self._optional("knowmem", f"{name}_qa"))
        ]

    def _optional(self, config: str, split: str) -> list[dict]:
        """A table that a folder may lack: what it measures is null then."""
        return self._table(config, split) if self._has(config, split) else []

    def _has(self, config: str, split: str) -> bool:
        return not self.data_dir or (self.data_dir / f"{config}_{split}.jsonl").is_file()

    def _table(self, config: str, split: str) -> list[dict]:
        return load_table(self.data_dir, self._hub_table(config, split), FIELDS[config])

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        return [self._hub_table(*part) for part in PARTS[split]]

    def _hub_table(self, config: str, split: str) -> HubTable:
        return HubTable(f"{config}_{split}.jsonl", self.hub_name, config, split, layout=LAYOUT)


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
    splits = tuple(name for name in PARTS if not name.startswith(("scal", "sust")))
    forget_splits = ("forget",)
