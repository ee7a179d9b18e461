"""`Rwku_<split>`: RWKU (Jin et al., arXiv:2406.10890), unlearning what a model knows about famous people.

From the hub data set jinzhuoran/RWKU, or with `dataset.data_dir` from a folder of its files: one of a person
(Target/1_Stephen_King) or of all (All). Each file is a list of objects, with the person in `subject`:

    passage.json, positive.json, positive_phi.json        text: the forget corpora (Wikipedia; written by
                                                          Llama 3 and Phi 3)
    forget_level1.json, forget_level2.json,               query, answer (level 3 has a type too): blanks to
    forget_level3.json, neighbor_level1.json,             fill, questions, attacks, on the person and on
    neighbor_level2.json                                  neighbours
    forget_mia.json, retain_mia.json                      text, for membership inference (may be missing)
    fluency.json                                          instruction (may be missing)

RWKU has no retain corpus. Prompts are those of github.com/jinzhuoran/RWKU (a23df67, eval_forget.py), without
the `Answer:` that its code writes behind the template.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.files import UserError, read_json
from ..core.json_fields import OBJECT, TEXT, Kind, check_fields, check_value, list_of
from .hub_tables import HubTable, check_table, load_records
from .sources import SOURCES, Source

HUB_NAME = "jinzhuoran/RWKU"
CORPORA = {
    "passage": ("passage", "train_original_passage"),
    "positive": ("positive", "train_positive_llama3"),
    "positive_phi": ("positive_phi", "train_positive_phi3"),
}
"""Split -> file and configuration on the hub."""
PROBES = ("forget_level1", "forget_level2", "forget_level3", "neighbor_level1", "neighbor_level2")
MEMBERS = {"forget_members": ("forget_mia", "mia_forget"), "retain_members": ("retain_mia", "mia_retain")}
BLANK = "Please complete the blank in the following question.\nQuestion: {}"
BRIEFLY = "Please briefly answer the following question.\nQuestion: {}"
IN_CONTEXT = "Please briefly answer the following question.\n{}"
IN_CONTEXT_TYPE = "incontext learning"
INSTRUCTION = "Instruction: {}"
PROBE = {"query": TEXT, "answer": TEXT}


@SOURCES.register("Rwku")
class Rwku(Source):
    """The forget corpora; the probes about the people of the forget rows, or all where rows name nobody."""

    title = "Rwku"
    row_files = {"fluency": "fluency.json"} | {name: f"{stem}.json" for name, (stem, _) in MEMBERS.items()}
    splits = tuple(CORPORA)
    forget_splits = splits

    def check(self, split: str) -> None:
        for stem in (CORPORA[split][0], *PROBES):
            check_table(self.data_dir, f"{stem}.json")

    def rows(self, split: str) -> list[dict]:
        rows = self._read(*CORPORA[split], {"text": TEXT})
        return [
            {"id": f"{split}-{number}", "text": row["text"]} | _subject(row)
            for number, row in enumerate(rows)
        ]

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        return (_hub_table(*CORPORA[split]),)

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        """See `Source.evaluation`."""
        people = {row["subject"] for row in forget if "subject" in row}
        sets = {probe: self._read(probe, probe, PROBE, "test") for probe in PROBES}
        for probe, rows in sets.items():
            sets[probe] = [
                {"id": f"{probe}-{number}", "question": prompt(probe, row), "answer": row["answer"]}
                | _subject(row)
                for number, row in enumerate(rows)
            ]
        for name, (stem, config) in MEMBERS.items():
            rows = self._optional(stem, config, {"text": TEXT})
            sets[name] = [
                {"id": f"{stem}-{number}", "text": row["text"]} | _subject(row)
                for number, row in enumerate(rows)
            ]
        sets["fluency"] = [
            {"id": f"fluency-{number}", "question": INSTRUCTION.format(row["instruction"])} | _subject(row)
            for number, row in enumerate(self._optional("fluency", "utility_fluency", {"instruction": TEXT}))
        ]
        return {
            name: [row for row in rows if not people or row.get("subject", "") in {"", *people}]
            for name, rows in sets.items()
        }

    def _optional(self, stem: str, config: str, required: Mapping[str, Kind]) -> list[dict]:
        if self.data_dir and not (self.data_dir / f"{stem}.json").is_file():
            return []
        return self._read(stem, config, required, "test")

    def _read(
        self, stem: str, config: str, required: Mapping[str, Kind], hub_split: str = "train"
    ) -> list[dict]:
        if self.data_dir:
            records = _objects(self.data_dir / f"{stem}.json")
        else:
            records = load_records(None, _hub_table(stem, config, hub_split))
        for place, record in records:
            check_fields(place, record, required)
        return [record for _, record in records]


def _hub_table(stem: str, config: str, split: str = "train") -> HubTable:
    corpus = stem if stem in CORPORA else "passage"
    layout = (
        f"{corpus}.json (text), {', '.join(f'{probe}.json' for probe in PROBES)} (query, answer) and"
        " optionally forget_mia.json, retain_mia.json (text), fluency.json (instruction): Target/<person> of"
        " the data set's files"
    )
    return HubTable(f"{stem}.json", HUB_NAME, config, split, layout=layout)


def _objects(path: Path) -> list[tuple[str, dict]]:
    """The objects of a JSON list, each with its place for messages."""
    found = read_json(path)
    if not isinstance(found, list):
        raise UserError(f"{path}: expected a list of objects, got {type(found).__name__}")
    check_value(f"{path}: the content", found, list_of(OBJECT))
    return [(f"{path}, object {number}", record) for number, record in enumerate(found, 1)]


def _subject(row: Mapping) -> dict[str, str]:
    """The person that a row is about, where it names one."""
    return {"subject": str(row["subject"])} if row.get("subject") else {}


def prompt(probe: str, row: Mapping) -> str:
    """The prompt of a row of a file of probes."""
    if probe.endswith("level1"):
        return BLANK.format(row["query"])
    return (IN_CONTEXT if row.get("type") == IN_CONTEXT_TYPE else BRIEFLY).format(row["query"])
