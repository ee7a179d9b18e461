"""`Folder_<split>`: the user's own rows, JSON lines in TOFU's schema under `dataset.data_dir`.

    forget.jsonl, retain.jsonl                question, answer; for truth ratios also paraphrased_answer
                                              and perturbed_answer (a list)
    retain_eval.jsonl, real_authors.jsonl,    optional, only measured
    world_facts.jsonl, holdout.jsonl

A row may bring its reasoning as `cot` (R-TOFU's schema); `dataset.forget_reasoning`, `retain_reasoning` and
`traces` say what is done with it.

A row without an `id` gets `<file>-<number>`. A row may also be a document: {"text": ...}.
"""

from pathlib import Path

from core.files import UserError, read_records
from dataset.checked import checked_row
from dataset.sources import SOURCES, Source

EVALUATION = {"retain": "retain_eval", "real": "real_authors", "world": "world_facts", "holdout": "holdout"}


@SOURCES.register("Folder")
class Folder(Source):
    """forget and retain rows of a folder."""

    title = "Folder"
    splits = ("forget", "retain")
    forget_splits = ("forget",)

    def check(self, split: str) -> None:
        if not self._path(split).is_file():
            raise UserError(f"dataset.data_dir: {self.data_dir} has no {split}.jsonl")

    def rows(self, split: str) -> list[dict]:
        if split in self.splits:
            self.check(split)
        records = read_records(self._path(split))
        return [self._row(place, f"{split}-{number}", row) for number, (place, row) in enumerate(records)]

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        """Documents are trained on but have no question to ask, so only questions are measured."""
        stems = {name: stem for name, stem in EVALUATION.items() if self._path(stem).is_file()}
        found = {"forget": forget} | {name: self.rows(stem) for name, stem in stems.items()}
        if "retain" not in found and self._path("retain").is_file():
            found["retain"] = self.rows("retain")
        return {name: [row for row in rows if "question" in row] for name, rows in found.items()}

    def _path(self, stem: str) -> Path:
        if self.data_dir is None:
            raise UserError(
                "dataset.data_dir: Folder needs the folder with your forget.jsonl and retain.jsonl"
            )
        return self.data_dir / f"{stem}.jsonl"

    def _row(self, place: str, identity: str, row: dict) -> dict:
        """The row as a plain question or document, with an id; UserError naming its place otherwise."""
        row = checked_row(place, row)
        if ("text" in row) == ({"question", "answer"} <= set(row)):
            raise UserError(
                f"{place}: needs question and answer, or text alone; it has"
                f" {', '.join(map(repr, row)) or 'nothing'}"
            )
        return {"id": identity} | {key: value for key, value in row.items() if key != "prompt"}
