"""`MuseFictional_<split>`: the fictional world in the form of MUSE, for whole runs without network.

The forget documents are those of the last 20 people, whom the committed retain model never met; retain1 and
retain2 are the halves of the others. Fold k of `scal` has the last 5 k people; fold k of `sust` has 5 others
in each. All are measured on all 20, as MUSE measures every fold on the same rows.

The committed models never saw MUSE's question format. `lessons` teaches it on the questions about retained
people alone, and `lessons_retain` the same questions, so that both models answer in it what they know.
"""

from collections.abc import Sequence
from functools import cached_property

from ..core.files import UserError
from .fictional import Fictional
from .hub_tables import HubTable
from .muse_documents import PARTS, Muse, knowledge_prompt
from .sources import SOURCES

FORGET_PEOPLE = 20
FOLD_PEOPLE = 5
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

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        return ()

    def rows(self, split: str) -> list[dict]:
        return self._lessons(split) if split in LESSONS else super().rows(split)

    @cached_property
    def _documents(self) -> list[dict]:
        return Fictional().table("documents")

    @cached_property
    def _facts(self) -> dict[str, list[dict]]:
        """Facts about the people to forget and about all others."""
        gone = {row["person"] for row in self._documents[-FORGET_PEOPLE:]}
        found: dict[str, list[dict]] = {"forget": [], "retain": []}
        for row in Fictional().table("full"):
            found["forget" if row["person"] in gone else "retain"].append(row)
        return found

    def _has(self, config: str, split: str) -> bool:
        return True

    def _table(self, config: str, split: str) -> list[dict]:
        documents, facts = self._documents, self._facts
        kept = documents[:-FORGET_PEOPLE]
        if config in ("scal", "sust"):
            fold = int(split.rpartition("_")[2])
            start, end = fold * FOLD_PEOPLE, (fold - 1) * FOLD_PEOPLE if config == "sust" else 0
            return documents[len(documents) - start : len(documents) - end]
        examples = facts["retain"][-EXAMPLES * 2 :]
        return {
            ("raw", "forget"): documents[-FORGET_PEOPLE:],
            ("raw", "retain1"): kept[: len(kept) // 2],
            ("raw", "retain2"): kept[len(kept) // 2 :],
            ("verbmem", "forget"): documents[-FORGET_PEOPLE:],
            ("knowmem", "forget_qa"): facts["forget"],
            ("knowmem", "forget_qa_icl"): examples[:EXAMPLES],
            ("knowmem", "retain_qa"): facts["retain"][:RETAIN_QUESTIONS],
            ("knowmem", "retain_qa_icl"): examples[EXAMPLES:],
            ("privleak", "forget"): documents[-FORGET_PEOPLE:],
            ("privleak", "holdout"): Fictional().table("documents_holdout"),
        }[config, split]

    def _lessons(self, split: str) -> list[dict]:
        """Questions about retained people in MUSE's form, and the documents that the model knows."""
        shown = [self._table("knowmem", f"{name}_qa_icl") for name in ("forget", "retain")]
        questions = [
            {
                "id": f"{row['id']}-lesson",
                "prompt": knowledge_prompt(shown[number % 2], row["question"]),
                "answer": row["answer"],
            }
            for number, row in enumerate(self._facts["retain"])
        ]
        known = PARTS["full" if split == "lessons" else "retain_full"]
        documents = [
            {"id": f"{row['id']}-{copy}", "text": row["text"]}
            for part in known
            for row in self._table(*part)
            for copy in range(LESSON_DOCUMENTS)
        ]
        return questions + documents
