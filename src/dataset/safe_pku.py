"""`SafePku_<split>`: PKU-SafeRLHF (Ji et al., arXiv:2406.15513), questions with a harmful and a harmless
answer, and `RealToxicity_<split>`: real-toxicity-prompts (Gehman et al., arXiv:2009.11462), beginnings of
sentences that many models end with an insult.

From the hub (PKU-Alignment/PKU-SafeRLHF, allenai/real-toxicity-prompts) or with `dataset.data_dir` from their
files in one folder:

    train.jsonl, test.jsonl     prompt, response_0, response_1, is_response_0_safe, is_response_1_safe
    prompts.jsonl               prompt and continuation (objects with `text`), challenging; optional

`SafePku_forget` has a row for every answer of the training split that is labelled unsafe, as in WAGLE (there
under the name SafePku, and of one early revision of the data); `SafePku_retain` those labelled safe. Harmful
text is not ours to ship.
"""

from collections.abc import Sequence

from ..core.json_fields import FLAG, STRING, TEXT, Kind
from .hub_tables import HubTable, check_table, load_table
from .sources import SOURCES, Source

EVAL_ROWS = 500
"""Most rows of a set that is measured, beside the forgotten ones."""
ANSWERS = (0, 1)
FIELDS = {"prompt": TEXT} | {
    name: kind
    for number in ANSWERS
    for name, kind in ((f"response_{number}", STRING), (f"is_response_{number}_safe", FLAG))
}
PART = Kind(
    "an object with a text", lambda value: isinstance(value, dict) and STRING.holds(value.get("text"))
)


@SOURCES.register("SafePku")
class SafePku(Source):
    """Harmful answers to be forgotten; the questions, unseen ones of the same kind and beginnings of
    sentences for evaluation."""

    title = "SafePku"
    splits = ("forget", "retain")
    forget_splits = ("forget",)
    default_split = "forget"
    borrowed_retain_rows = EVAL_ROWS
    row_files = {"forget_test": "test.jsonl", "toxic_prompts": "prompts.jsonl"}

    def check(self, split: str) -> None:
        check_table(self.data_dir, "train.jsonl")

    def rows(self, split: str) -> list[dict]:
        return self._answers("train", safe=split == "retain")

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        """See `Source.evaluation`. A question is asked once, however many answers it has."""
        asked = {row["question"] for row in forget}
        test = [] if self._lacks("test.jsonl") else self._answers("test", safe=False)
        prompts = [] if self._lacks("prompts.jsonl") else RealToxicity(self.data_dir).rows("challenging")
        return {
            "forget": _by_question(forget),
            "forget_test": _by_question(row for row in test if row["question"] not in asked)[:EVAL_ROWS],
            "toxic_prompts": prompts[:EVAL_ROWS],
        }

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        return (self._hub_table("train"),)

    @staticmethod
    def _hub_table(split: str) -> HubTable:
        layout = f"train.jsonl ({', '.join(FIELDS)}) and optionally test.jsonl (the same), prompts.jsonl"
        return HubTable(f"{split}.jsonl", "PKU-Alignment/PKU-SafeRLHF", None, split, layout=layout)

    def _lacks(self, file: str) -> bool:
        return self.data_dir is not None and not (self.data_dir / file).is_file()

    def _answers(self, split: str, safe: bool) -> list[dict]:
        """A row for every answer with that label and with words in it."""
        table = self._hub_table(split)
        return [
            {
                "id": f"{split}-{place}-{number}",
                "question": row["prompt"],
                "answer": row[f"response_{number}"],
            }
            for place, row in enumerate(load_table(self.data_dir, table, FIELDS))
            for number in ANSWERS
            if row[f"is_response_{number}_safe"] == safe and row[f"response_{number}"].strip()
        ]


def _by_question(rows) -> list[dict]:
    """The first row of each question."""
    first: dict[str, dict] = {}
    for row in rows:
        first.setdefault(row["question"], row)
    return [*first.values()]


@SOURCES.register("RealToxicity")
class RealToxicity(Source):
    """Beginnings of sentences with their continuations: all, or those flagged as challenging, which the
    authors' models all ended in a toxic way."""

    title = "RealToxicity"
    splits = ("challenging", "all")
    forget_splits = ("challenging", "all")

    def check(self, split: str) -> None:
        check_table(self.data_dir, "prompts.jsonl")

    def rows(self, split: str) -> list[dict]:
        (table,) = self.hub_tables(split)
        fields = {"prompt": PART, "continuation": PART, "challenging": FLAG}
        return [
            {"id": f"prompt-{number}", "prompt": row["prompt"]["text"], "answer": row["continuation"]["text"]}
            for number, row in enumerate(load_table(self.data_dir, table, fields))
            if (row["challenging"] or split == "all")
            and row["prompt"]["text"].strip()
            and row["continuation"]["text"].strip()
        ]

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        layout = "prompts.jsonl (prompt and continuation, objects with text; challenging)"
        return (HubTable("prompts.jsonl", "allenai/real-toxicity-prompts", None, layout=layout),)

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        return {"toxic_prompts": forget}
