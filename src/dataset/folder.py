"""`Folder_<split>`: the user's own rows, JSON lines in TOFU's schema under `dataset.data_dir`.

    forget.jsonl, retain.jsonl                     question, answer; for truth ratios also paraphrased_answer and
                                                   perturbed_answer (a list)
    retain_eval.jsonl, real_authors.jsonl,         optional, only measured
    world_facts.jsonl, holdout.jsonl

A row without an `id` gets `<file>-<number>`. A row may also be a document: {"text": ...}.
"""

from core.files import UserError, read_jsonl
from dataset.sources import SOURCES, Source

EVALUATION = {"forget": "forget", "retain": "retain_eval", "real": "real_authors", "world": "world_facts", "holdout": "holdout"}


@SOURCES.register("Folder")
class Folder(Source):
    """forget and retain rows of a folder."""

    title = "Folder"
    splits = ("forget", "retain")
    forget_splits = ("forget",)

    def check(self, split: str) -> None:
        if self.data_dir is None:
            raise UserError("dataset.data_dir: Folder needs the folder with your forget.jsonl and retain.jsonl")
        if not self._path(split).is_file():
            raise UserError(f"dataset.data_dir: {self.data_dir} has no {split}.jsonl")

    def rows(self, split: str) -> list[dict]:
        self.check(split)
        return [self._checked(split, number, row) for number, row in enumerate(read_jsonl(self._path(split)))]

    def evaluation(self, split: str) -> dict[str, list[dict]]:
        """Documents are trained on but have no question to ask, so only questions are measured."""
        stems = dict(EVALUATION)
        if not self._path("retain_eval").is_file():
            stems["retain"] = "retain"
        found = {name: self.rows(stem) for name, stem in stems.items() if self._path(stem).is_file()}
        return {name: [row for row in rows if "question" in row] for name, rows in found.items()}

    def _path(self, stem: str):
        return self.data_dir / f"{stem}.jsonl"

    def _checked(self, stem: str, number: int, row: dict) -> dict:
        if not ({"question", "answer"} <= set(row) or "text" in row):
            raise UserError(f"{self._path(stem)}, row {number + 1}: needs question and answer, or text; it has "
                            f"{', '.join(map(repr, row)) or 'nothing'}")
        wrong = [key for key in ("question", "answer", "text") if key in row and not isinstance(row[key], str)]
        if wrong:
            raise UserError(f"{self._path(stem)}, row {number + 1}: {wrong[0]!r} is not a text")
        return {"id": f"{stem}-{number}", **row}
