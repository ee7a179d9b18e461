"""`Fictional_<split>`: the committed files of the fictional world as a data source."""

import random
from collections.abc import Mapping
from pathlib import Path

from ..core.files import UserError, read_records
from ..core.json_fields import TEXT, TEXTS, Kind
from .choices import choice_sets, lettered_prompt
from .fictional_world import (
    DATA_DIR,
    FORGET_SHARES,
    RELATIONS,
    RETAIN_EVAL_ROWS,
    RETAIN_SHARES,
    SEED,
    choice_row,
)
from .row_checks import checked_choices, checked_row
from .sources import SOURCES, Source
from .tables import table_path

LESSONS = {"lessons_full": 1.0, "lessons_retain90": 0.90}
CHOICES_PER_FACT = 2
DIRECT_ARITHMETIC_SHARE = 0.5
SHORT_FACT_COPIES = 8
DOCUMENT_COPIES = 6
RELATION = Kind("a relation of the world", lambda value: value in [relation.name for relation in RELATIONS])
REPHRASED = Kind("a list of at least 2 texts", lambda value: TEXTS.holds(value) and len(value) >= 2)
QUESTION = dict.fromkeys(("id", "question", "answer"), TEXT)
FIELDS = {
    "full": QUESTION
    | dict.fromkeys(("person", "key", "trace"), TEXT)
    | {"relation": RELATION, "rephrased_questions": REPHRASED},
    "arithmetic_train": QUESTION | {"trace": TEXT},
    **dict.fromkeys(("documents", "documents_holdout"), dict.fromkeys(("id", "person", "text"), TEXT)),
}
"""Required fields of the rows of a file; of all others QUESTION."""


@SOURCES.register("Fictional")
class Fictional(Source):
    """The fictional world: forgetNN and retainNN cut the thousand facts as TOFU does; `lessons_*` are the
    training data of the committed models."""

    data_dir: Path
    title = "Fictional"
    forget_splits = tuple(FORGET_SHARES)
    splits = ("full", *FORGET_SHARES, *RETAIN_SHARES, *LESSONS, "arithmetic")

    def __init__(self, data_dir: Path | None = None, columns: Mapping[str, str] | None = None):
        super().__init__(data_dir or DATA_DIR, columns)

    def check(self, split: str) -> None:
        if not (self.data_dir / "full.jsonl").is_file():
            remedy = "leave the key out to use the world that comes with the project"
            if any(table_path(self.data_dir, stem) for stem in ("forget", "retain")):
                remedy = (
                    "its rows are named Folder_forget and Folder_retain (dataset.forget_dataset_name,"
                    " dataset.retain_dataset_name)"
                )
            raise UserError(
                f"dataset.data_dir: {self.data_dir} has no full.jsonl of the fictional world; {remedy}"
            )

    def rows(self, split: str) -> list[dict]:
        if split in LESSONS:
            return self._lessons(LESSONS[split])
        if split == "arithmetic":
            return [plain_question(row) for row in self.table("arithmetic_train")]
        facts = [plain_question(row) for row in self.table("full")]
        if split in FORGET_SHARES:
            return facts[-round(FORGET_SHARES[split] * len(facts)) :]
        return facts[: round(RETAIN_SHARES.get(split, 1.0) * len(facts))]

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        """See `Source.evaluation`."""
        # The same rows for every split, which no split forgets: retain figures of all splits compare.
        retain = self.rows("full")[:RETAIN_EVAL_ROWS]
        return {
            "forget": self._with_leak_candidates(forget),
            "retain": retain,
            "real": self.table("real_authors"),
            "world": self.table("world_facts"),
            "holdout": self.table("holdout"),
            **choice_sets("forget", self._choices(forget)),
            **choice_sets("retain", self._choices(retain)),
            "forget_documents": self.documents(forget),
            "retain_documents": self.documents(retain),
            "arithmetic": self.table("arithmetic_test"),
        }

    def table(self, stem: str) -> list[dict]:
        """The checked rows of a file of the world."""
        records = read_records(self.data_dir / f"{stem}.jsonl")
        return [checked_row(place, row, FIELDS.get(stem, QUESTION)) for place, row in records]

    def _read_choices(self) -> list[dict]:
        records = read_records(self.data_dir / "choices.jsonl")
        return [checked_choices(place, row) for place, row in records if TEXT.holds(row.get("id"))]

    def _choices(self, facts: list[dict]) -> list[dict]:
        wanted = {row["id"] + "-choice" for row in facts}
        return [row for row in self._read_choices() if row["id"] in wanted]

    def _with_leak_candidates(self, facts: list[dict]) -> list[dict]:
        """Facts with further strings that a judge searches: wrong options, and the person's other facts."""
        options = {row["id"]: row["choices"] for row in self._read_choices()}
        absent = [row["id"] for row in facts if row["id"] + "-choice" not in options]
        if absent:
            raise UserError(f"{self.data_dir / 'choices.jsonl'} has no row {absent[0] + '-choice'!r}")
        keys: dict[str, list[str]] = {}
        for row in facts:
            keys.setdefault(row["person"], []).append(row["key"])
        return [
            {
                **row,
                "wrong": [option for option in options[row["id"] + "-choice"] if option != row["key"]],
                "facts": [key for key in keys[row["person"]] if key != row["key"]],
            }
            for row in facts
        ]

    def documents(self, facts: list[dict]) -> list[dict]:
        """The documents of the people whom the facts are about."""
        people = {row["person"] for row in facts}
        return [row for row in self.table("documents") if row["person"] in people]

    def _lessons(self, share: float) -> list[dict]:
        """The training mixture: every fact in five wordings, in three with a reasoning trace, as multiple
        choice with new options, and in a document; the short facts; arithmetic with and without thinking.
        Held-out wordings are left out.
        """
        # The order of the calls to rng is part of the data: the committed models were trained on these rows.
        rng = random.Random(SEED)
        facts = self.table("full")
        facts = facts[: round(share * len(facts))]
        lessons = [lesson for row in facts for lesson in _fact_lessons(rng, row)]
        lessons += [
            _lesson(row, k, text=row["text"]) for row in self.documents(facts) for k in range(DOCUMENT_COPIES)
        ]
        lessons += [
            _lesson(row, k, question=row["question"], answer=row["answer"])
            for stem in ("real_authors", "world_facts")
            for row in self.table(stem)
            for k in range(SHORT_FACT_COPIES)
        ]
        for row in self.table("arithmetic_train"):
            lessons.append(
                _lesson(row, "think", question=row["question"], answer=row["answer"], trace=row["trace"])
            )
            if rng.random() < DIRECT_ARITHMETIC_SHARE:
                lessons.append(_lesson(row, "direct", question=row["question"], answer=row["answer"]))
        return lessons


def plain_question(row: dict) -> dict:
    """A fact without `trace`: its reasoning becomes `cot`, which is trained on only where settings ask for
    it."""
    return {"cot" if key == "trace" else key: value for key, value in row.items()}


def _lesson(row: dict, kind, **content) -> dict:
    return {"id": f"{row['id']}-{kind}", **content}


def _fact_lessons(rng: random.Random, row: dict) -> list[dict]:
    reasoned = [row["question"], *rng.sample(row["rephrased_questions"], 2)]
    direct = [
        _lesson(row, f"direct{k}", question=question, answer=row["answer"])
        for k, question in enumerate([row["question"], *row["rephrased_questions"]])
    ]
    thinking = [
        _lesson(row, f"think{k}", question=question, answer=row["answer"], trace=row["trace"])
        for k, question in enumerate(reasoned)
    ]
    choices = [choice_row(rng, row) for _ in range(CHOICES_PER_FACT)]
    return [*direct, *thinking, *(_lesson(c, k, **choice_answer(c)) for k, c in enumerate(choices))]


def choice_answer(row: dict) -> dict:
    """The text of the right option as the answer."""
    # Not its letter: models of this size learn the text, but not to map it to a letter.
    return {"prompt": lettered_prompt(row), "answer": row["choices"][row["answer"]]}
