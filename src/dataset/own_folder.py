"""`Folder_<table>`: the user's own rows, JSON lines or CSV files under `dataset.data_dir`.

    forget, retain                            question, answer (or messages, or text); for truth ratios also
                                              paraphrased_answer and perturbed_answer (a list)
    retain_eval, real_authors,                optional, only measured
    world_facts, holdout

`Folder_forget` is forget.jsonl or forget.csv, `Folder_<name>` any other table, and `Folder_full` all forget
and retain rows, where there is no table of that name. make_perturbed.py writes forget_eval.jsonl and
retain_eval.jsonl, see `dataset/perturbed.py`.

A row may have reasoning as `cot` (R-TOFU's schema); `dataset.forget_reasoning`, `retain_reasoning` and
`traces` control its use. The columns of a row: `dataset/own_rows.py`.
"""

from pathlib import Path

from ..core.files import UserError
from .own_rows import own_rows, questions
from .perturbed import is_generated
from .sources import SOURCES, Source
from .tables import read_table, require_table, table_path

EVALUATION = {"retain": "retain_eval", "real": "real_authors", "world": "world_facts", "holdout": "holdout"}
WHOLE = ("forget", "retain")
"""The tables of the split `full`."""


@SOURCES.register("Folder")
class Folder(Source):
    """The tables of a folder."""

    title = "Folder"
    splits = ("forget", "retain", "full")
    forget_splits = ("forget",)
    own = True

    def check(self, split: str) -> None:
        for stem in self._stems(split):
            require_table(self._folder(), stem)

    def rows(self, split: str) -> list[dict]:
        stems = self._stems(split)
        tables = {stem: self._table(stem) for stem in stems}
        ids = [row["id"] for rows in tables.values() for row in rows]
        # Each file may number its rows from the start; ids must be unique over both.
        if len(stems) > 1 and len(set(ids)) < len(ids):
            return [{**row, "id": f"{stem}-{row['id']}"} for stem, rows in tables.items() for row in rows]
        return [row for rows in tables.values() for row in rows]

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        folder = self._folder()
        paths = {name: table_path(folder, stem) for name, stem in EVALUATION.items()}
        # A retain_eval.jsonl of make_perturbed.py is not a table of the user's rows: it holds texts for them,
        # which `load_evaluation` adds.
        if not paths["retain"] or is_generated(paths["retain"]):
            paths["retain"] = table_path(folder, "retain")
        found = {name: self._table(path.stem) for name, path in paths.items() if path}
        return {name: questions(rows) for name, rows in ({"forget": forget} | found).items()}

    def _stems(self, split: str) -> tuple[str, ...]:
        return WHOLE if split == "full" and not table_path(self._folder(), "full") else (split,)

    def _folder(self) -> Path:
        if self.data_dir is None:
            raise UserError(
                "dataset.data_dir: Folder needs the folder with your forget.jsonl and retain.jsonl (or .csv)"
            )
        return self.data_dir

    def _table(self, stem: str) -> list[dict]:
        path = require_table(self._folder(), stem)
        return own_rows(read_table(path), stem, self.columns)
