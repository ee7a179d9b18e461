"""`TruthfulQA_full`: TruthfulQA (Lin et al., arXiv:2109.07958), questions with true answers, as rows to keep.

From the hub (truthfulqa/truthful_qa) or with `dataset.data_dir` from TruthfulQA.csv of its repository. The
WAGLE family names it as its default retain set, under the bare name, without a loader for it.
"""

from collections.abc import Sequence

from ..core.json_fields import TEXT
from .hub_tables import HubTable, check_table, load_records
from .row_checks import checked_row
from .sources import SOURCES, Source
from .tables import read_csv

FILE = "TruthfulQA.csv"
COLUMNS = {"Question": "question", "Best Answer": "best_answer"}
"""Columns of the file -> fields of the hub's table."""


@SOURCES.register("TruthfulQA")
class TruthfulQA(Source):
    """Questions and their best answers."""

    title = "TruthfulQA"
    splits = ("full",)
    forget_splits = ()
    measured = False
    default_split = "full"

    def check(self, split: str) -> None:
        check_table(self.data_dir, FILE)

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        layout = f"{FILE} of github.com/sylinrl/TruthfulQA"
        return (HubTable(FILE, "truthfulqa/truthful_qa", "generation", "validation", layout=layout),)

    def rows(self, split: str) -> list[dict]:
        if self.data_dir:
            records = [
                (place, {COLUMNS.get(str(key), str(key)): value for key, value in row.items()})
                for place, row in read_csv(self.data_dir / FILE)
            ]
        else:
            records = load_records(None, self.hub_tables(split)[0])
        checked = [checked_row(place, row, {"question": TEXT, "best_answer": TEXT}) for place, row in records]
        return [
            {"id": f"truthful-{number}", "question": row["question"], "answer": row["best_answer"]}
            for number, row in enumerate(checked)
        ]
