"""`HP`, `HP_forget`, `HP_full`: the user's copy of the Harry Potter files of the WAGLE family (SOUL,
arXiv:2404.18239; WAGLE, arXiv:2410.17509), in files/data/hp as there, or the folder of `dataset.data_dir`.

    hp_qa.jsonl                     prompt, response: what is forgotten
    hp.jsonl                        text: beside hp_qa.jsonl what `HP_full` trains a target on
    hp_train_qa_300.jsonl           prompt, response: passages of the forgotten text, measured
    hp_test_qa_300.jsonl            the same of other text
    both with _50, _100, _200       optional

The books are copyrighted: nothing of them comes with this project.
"""

from pathlib import Path

from ..core.files import UserError, read_records
from ..core.json_fields import TEXT
from ..core.project import DATA
from .book import PROMPT_WORDS, passages
from .row_checks import checked_row
from .sources import SOURCES, Source

FOLDER = DATA / "hp"
PAIR = {"prompt": TEXT, "response": TEXT}
FILES = {"forget": ("hp_qa",), "full": ("hp_qa", "hp")}
MEASURED = {"forget": "hp_train_qa", "holdout": "hp_test_qa"}


@SOURCES.register("HP")
class HarryPotter(Source):
    """Passages and their continuations. Prompts are read as plain text: the family puts them into question
    and answer marks."""

    title = "HP"
    splits = tuple(FILES)
    forget_splits = ("forget",)
    default_split = "forget"

    def check(self, split: str) -> None:
        for stem in FILES[split]:
            self._path(stem)

    def rows(self, split: str) -> list[dict]:
        pairs = [
            {"id": f"qa-{number}", "prompt": row["prompt"], "answer": row["response"]}
            for number, row in enumerate(self._read("hp_qa", PAIR))
        ]
        if split == "forget":
            return pairs
        texts = self._read("hp", {"text": TEXT})
        return pairs + [{"id": f"text-{number}", "text": row["text"]} for number, row in enumerate(texts)]

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        sets = {}
        for part, stem in MEASURED.items():
            for length in PROMPT_WORDS:
                name = f"{stem}_{length}"
                # The published figures are those of the longest prompts.
                if length == PROMPT_WORDS[0] or (self._folder / f"{name}.jsonl").is_file():
                    sets[passages(part, length)] = [
                        _passage(f"{part}-{number}", row) for number, row in enumerate(self._read(name, PAIR))
                    ]
        return sets

    @property
    def _folder(self) -> Path:
        return self.data_dir or FOLDER

    def _path(self, stem: str) -> Path:
        path = self._folder / f"{stem}.jsonl"
        if not path.is_file():
            raise UserError(
                f"dataset.data_dir: {self._folder} has no {path.name}. HP reads your own copy of the WAGLE"
                " family's files, since the books are copyrighted: hp_qa.jsonl, hp_train_qa_300.jsonl and"
                " hp_test_qa_300.jsonl (prompt, response), hp.jsonl (text). A book as plain text is"
                " Book_forget"
            )
        return path

    def _read(self, stem: str, fields: dict) -> list[dict]:
        return [checked_row(place, row, fields) for place, row in read_records(self._path(stem))]


def _passage(identity: str, row: dict) -> dict:
    prompt, gt = row["prompt"], row["response"]
    return {"id": identity, "prompt": prompt, "gt": gt, "text": f"{prompt.rstrip()} {gt.lstrip()}"}
