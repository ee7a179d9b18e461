"""`WmdpFictional_forget`, `WmdpFictional_retain`: the fictional world in the form of WMDP, for whole runs
without network: documents to be forgotten and kept, multiple choice to measure both.

The committed models of a million weights learnt the words of the right option, not its letter: read
`choice_text_accuracy`. Their letters show what `choice_same_letter` is for.
"""

from ..core.files import UserError
from .fictional import Fictional
from .sources import SOURCES, Source

SPLITS = {"forget": "forget10", "retain": "retain90"}
MEASURED = ("choices", "choices_shuffled")


@SOURCES.register("WmdpFictional")
class WmdpFictional(Source):
    """Documents of the fictional people; questions on the facts in them."""

    title = "WmdpFictional"
    splits = tuple(SPLITS)
    forget_splits = ("forget",)

    def check(self, split: str) -> None:
        if self.data_dir:
            raise UserError("dataset.data_dir: WmdpFictional comes with the project; leave the key out")

    def rows(self, split: str) -> list[dict]:
        world = Fictional()
        documents = world.documents(world.rows(SPLITS[split]))
        return [{"id": row["id"], "text": row["text"]} for row in documents]

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        world = Fictional()
        sets = world.evaluation(SPLITS[split], world.rows(SPLITS[split]))
        return {name: rows for name, rows in sets.items() if name.partition("_")[2] in MEASURED}
