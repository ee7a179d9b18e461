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

from core.files import UserError, read_jsonl
from dataset.sources import SOURCES, Source

EVALUATION = {"retain": "retain_eval", "real": "real_authors", "world": "world_facts", "holdout": "holdout"}
TEXTS = {"id", "question", "answer", "text", "trace", "cot", "paraphrased_question", "paraphrased_answer"}
LISTS = {"perturbed_answer", "rephrased_questions", "held_out_questions"}


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
        return [self._checked(split, number, row) for number, row in enumerate(read_jsonl(self._path(split)))]

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

    def _checked(self, stem: str, number: int, row: dict) -> dict:
        """The row as a plain question or document, with an id; UserError naming file and row otherwise."""
        place = f"{self._path(stem)}, row {number + 1}"
        if ("text" in row) == ({"question", "answer"} <= set(row)):
            raise UserError(
                f"{place}: needs question and answer, or text alone; it has"
                f" {', '.join(map(repr, row)) or 'nothing'}"
            )
        for key in TEXTS & set(row):
            if not isinstance(row[key], str) or not row[key].strip():
                raise UserError(f"{place}: {key!r} must be a text with words in it, got {row[key]!r}")
        for key in LISTS & set(row):
            if (
                not isinstance(row[key], list)
                or not row[key]
                or not all(isinstance(text, str) and text for text in row[key])
            ):
                raise UserError(f"{place}: {key!r} must be a list of texts, got {row[key]!r}")
        return {"id": f"{stem}-{number}"} | {key: value for key, value in row.items() if key != "prompt"}
