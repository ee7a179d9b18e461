"""`KnowUnDo_<domain>_<part>`: KnowUnDo (Tian et al., arXiv:2407.01920), answers that infringe copyright or
privacy (unlearn) beside answers about the same works and people that do not (retention).

From the hub data set zjunlp/KnowUnDo, or with `dataset.data_dir` from a folder of its files
copyright/unlearn.json, copyright/retention.json, privacy/unlearn.json and privacy/retention.json. Each is one
object, or a list of one, with the lists `train` and `val` of `text` (the question) and `labels` (the answer).
`train` is trained, `val` is measured, as in github.com/zjunlp/KnowUnDo (1485342).
"""

from collections.abc import Iterator, Sequence

from ..core.files import UserError, read_json
from ..core.json_fields import OBJECT, TEXT, check_fields, check_value, list_of
from .hub_tables import HubTable, check_table, load_records
from .sources import SOURCES, Source

HUB_NAME = "zjunlp/KnowUnDo"
DOMAINS = ("copyright", "privacy")
SIDES = {"unlearn": "forget", "retention": "retain"}
"""Part -> the set that its validation rows are."""
RECORDS = list_of(OBJECT)


def _hub_table(domain: str, part: str) -> HubTable:
    files = " and ".join(f"{domain}/{side}.json" for side in SIDES)
    layout = f"{files} (lists train and val of text, labels) of github.com/zjunlp/KnowUnDo"
    return HubTable(f"{domain}/{part}.json", HUB_NAME, domain, part, layout=layout)


@SOURCES.register("KnowUnDo")
class KnowUnDo(Source):
    """`full` is all rows of both parts, validation rows too, on which the published targets were trained."""

    title = "KnowUnDo"
    splits = tuple(f"{domain}_{part}" for domain in DOMAINS for part in (*SIDES, "full"))
    forget_splits = tuple(f"{domain}_unlearn" for domain in DOMAINS)

    def check(self, split: str) -> None:
        for part in SIDES:  # the rows of both parts are measured
            check_table(self.data_dir, f"{split.partition('_')[0]}/{part}.json")

    def rows(self, split: str) -> list[dict]:
        domain, _, part = split.partition("_")
        if part != "full":
            return list(self._read(domain, part, "train"))
        return [
            row for name in SIDES for phase in ("train", "val") for row in self._read(domain, name, phase)
        ]

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        domain = split.partition("_")[0]
        return {name: list(self._read(domain, part, "val")) for part, name in SIDES.items()}

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        domain = split.partition("_")[0]
        return [_hub_table(domain, part) for part in SIDES]

    def _read(self, domain: str, part: str, phase: str) -> Iterator[dict]:
        place, table = self._table(domain, part)
        if phase not in table:
            raise UserError(f"{place}: {phase!r} is missing, expected {RECORDS.about}")
        check_value(f"{place}: {phase!r}", table[phase], RECORDS)
        for number, record in enumerate(table[phase]):
            check_fields(f"{place}: {phase} {number + 1}", record, {"text": TEXT, "labels": TEXT})
            identity = f"{domain}-{part}-{phase}-{number}"
            yield {"id": identity, "question": record["text"], "answer": record["labels"]}

    def _table(self, domain: str, part: str) -> tuple[str, dict]:
        """The one row of a table, and its place for messages."""
        file = f"{domain}/{part}.json"
        if not self.data_dir:
            return load_records(None, _hub_table(domain, part))[0]
        path = self.data_dir / file
        found = read_json(path)
        table = found[0] if isinstance(found, list) and len(found) == 1 else found
        if not isinstance(table, dict):
            raise UserError(f"{path}: expected an object with train and val, got {type(table).__name__}")
        return str(path), table
