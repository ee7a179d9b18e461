"""`Tofu_<split>`: TOFU (Maini et al., arXiv:2401.06121), from a folder of its JSON-lines files or from the
hub.

With `dataset.data_dir` the files are read there (`forget10.json`, one object per line); without it they come
from the hub data set locuslab/TOFU. Rows get ids `<split>-<number>`.
"""

from collections.abc import Sequence

from ..core.json_fields import TEXT
from .hub_tables import HubTable, check_table, load_table
from .sources import SOURCES, Source

HUB_NAME = "locuslab/TOFU"
FORGETS = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
QUESTION = {"question": TEXT, "answer": TEXT}
EVALUATION = {
    "retain": "retain_perturbed",
    "real": "real_authors_perturbed",
    "world": "world_facts_perturbed",
}


@SOURCES.register("Tofu")
class Tofu(Source):
    """The published splits with their rows unchanged."""

    title = "Tofu"
    forget_splits = tuple(FORGETS)
    splits = ("full", *FORGETS, *FORGETS.values())

    def check(self, split: str) -> None:
        check_table(self.data_dir, f"{split}.json")

    def rows(self, split: str) -> list[dict]:
        rows = load_table(self.data_dir, self._hub_table(split), QUESTION)
        return [{"id": f"{split}-{number}", **row} for number, row in enumerate(rows)]

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        return (self._hub_table(split),)

    @staticmethod
    def _hub_table(split: str) -> HubTable:
        # TOFU has one hub configuration per split, each with its rows in a part called train.
        return HubTable(f"{split}.json", HUB_NAME, split)

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        """See `Source.evaluation`."""
        ids = {row["id"] for row in forget}
        # A perturbed file has the rows of its split in the same order, so the number joins the two.
        full = [
            {**row, "id": f"{split}-{number}"} for number, row in enumerate(self.rows(f"{split}_perturbed"))
        ]
        return {"forget": [row for row in full if row["id"] in ids]} | {
            name: self.rows(stem) for name, stem in EVALUATION.items()
        }
