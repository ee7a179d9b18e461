"""`MuseFictional_<split>`: the fictional world in the form of MUSE, for whole runs without network.

The forget documents are those of the last 20 people, whom the committed retain model never met; retain1 and
retain2 are the halves of the others. Fold k of `scal` has the last 5 k people; fold k of `sust` has 5 others
in each. All are measured on all 20, as MUSE measures every fold on the same rows.

The committed models never saw MUSE's question format. `lessons` teaches it on the questions about retained
people alone, and `lessons_retain` the same questions, so that both models answer in it what they know.
"""

from functools import cached_property

from ..core.files import UserError, read_records
from .fictional import FIELDS
from .fictional_world import DATA_DIR
from .muse_documents import PARTS, Muse, knowledge_prompt
from .row_checks import checked_row
from .sources import SOURCES

FORGET_PEOPLE = 20
FOLD_PEOPLE = 5
FACTS = 5
"""Facts of a person."""
EXAMPLES = 3
RETAIN_QUESTIONS = 100
LESSONS = ("lessons", "lessons_retain")
LESSON_DOCUMENTS = 2
"""Copies of each document among the lessons: enough that no continuation is lost while the form is learnt."""


@SOURCES.register("MuseFictional")
class MuseFictional(Muse):
    """Documents and questions of the fictional world."""

    title = "MuseFictional"
    splits = (*PARTS, *LESSONS)

    def check(self, split: str) -> None:
        if self.data_dir:
            raise UserError("dataset.data_dir: MuseFictional comes with the project; leave the key out")

    def rows(self, split: str) -> list[dict]:
        return self._lessons(split) if split in LESSONS else super().rows(split)

    @cached_property
    def _documents(self) -> list[dict]:
        return _read("documents")

    @cached_property
    def _facts(self) -> list[dict]:
        return _read("full")

    def _has(self, config: str, split: str) -> bool:
        return True

    def _table(self, config: str, split: str) -> list[dict]:
        documents, facts = self._documents, self._facts
        kept = documents[:-FORGET_PEOPLE]
        gone = {row["person"] for row in documents[-FORGET_PEOPLE:]}
        if config in ("scal", "sust"):
            fold = int(split.rpartition("_")[2])
            start, end = fold * FOLD_PEOPLE, (fold - 1) * FOLD_PEOPLE if config == "sust" else 0
            return documents[len(documents) - start : len(documents) - end]
        known = [row for row in facts if row["person"] not in gone]
        examples = known[-EXAMPLES * 2 :]
        return {
            ("raw", "forget"): documents[-FORGET_PEOPLE:],
            ("raw", "retain1"): kept[: len(kept) // 2],
            ("raw", "retain2"): kept[len(kept) // 2 :],
            ("verbmem", "forget"): documents[-FORGET_PEOPLE:],
            ("knowmem", "forget_qa"): [row for row in facts if row["person"] in gone],
            ("knowmem", "forget_qa_icl"): examples[:EXAMPLES],
            ("knowmem", "retain_qa"): known[:RETAIN_QUESTIONS],
            ("knowmem", "retain_qa_icl"): examples[EXAMPLES:],
            ("privleak", "forget"): documents[-FORGET_PEOPLE:],
            ("privleak", "holdout"): _read("documents_holdout"),
        }[config, split]

    def _lessons(self, split: str) -> list[dict]:
        """Questions about retained people in MUSE's form, and the documents that the model knows."""
        taught = self._facts[: -FORGET_PEOPLE * FACTS]
        shown = [self._table("knowmem", f"{name}_qa_icl") for name in ("forget", "retain")]
        questions = [
            {
                "id": f"{row['id']}-lesson",
                "prompt": knowledge_prompt(shown[number % 2], row["question"]),
                "answer": row["answer"],
            }
            for number, row in enumerate(taught)
        ]
        known = PARTS["full" if split == "lessons" else "retain_full"]
        documents = [
            {"id": f"{row['id']}-{copy}", "text": row["text"]}
            for part in known
            for row in self._table(*part)
            for copy in range(LESSON_DOCUMENTS)
        ]
        return questions + documents


def _read(stem: str) -> list[dict]:
    records = read_records(DATA_DIR / f"{stem}.jsonl")
    return [checked_row(place, row, FIELDS[stem.partition("_")[0]]) for place, row in records]
