"""Paraphrased and perturbed answers to a user's own questions (make_perturbed.py): a line per row with
`question`, `answer`, `paraphrased_answer` and `perturbed_answer`.

The files lie in `dataset.data_dir` as forget_eval.jsonl and retain_eval.jsonl, and give the rows that are
measured what the truth ratio needs.
"""

from collections.abc import Mapping
from pathlib import Path

from ..core.files import UserError
from ..core.json_fields import COUNT, TEXT, TEXTS, Kind
from .generated_file import SOURCE, GeneratedFile

SETS = ("forget", "retain")
"""Row sets that the files are written for."""
ADDED = ("paraphrased_answer", "perturbed_answer")
"""What a line adds to its row."""


REJECTED = Kind(
    "objects of counts, by answer",
    lambda value: (
        isinstance(value, dict)
        and all(isinstance(v, dict) and all(map(COUNT.holds, v.values())) for v in value.values())
    ),
)
PERTURBED = GeneratedFile(
    kind="perturbed",
    key="dataset.data_dir",
    script="make_perturbed.py",
    fields=SOURCE,
    optional={"paraphrased_answer": TEXT, "perturbed_answer": TEXTS, "rejected": REJECTED},
)


def perturbed_path(folder: Path, rows: str) -> Path:
    """The file of the row set `rows`."""
    return folder / f"{rows}_eval.jsonl"


def is_generated(path: Path) -> bool:
    """Was this file begun by make_perturbed.py?"""
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().startswith('{"perturbed": ')


def with_perturbed(sets: Mapping[str, list[dict]], folder: Path) -> dict[str, list[dict]]:
    """The row sets with what make_perturbed.py wrote for them. Of the retain rows those that it wrote for are
    measured, so that all figures are about the same rows. UserError for a file that was written for other
    rows."""
    found = dict(sets)
    for name in SETS:
        path = perturbed_path(folder, name)
        if name not in sets or not is_generated(path):
            continue
        lines = {line["id"]: line for line in PERTURBED.read(path)[1]}
        strange = [
            row["id"]
            for row in sets[name]
            if row["id"] in lines and lines[row["id"]]["source"] != PERTURBED.source(row)
        ]
        if strange:
            raise UserError(
                f"{path}: was written for other rows: {strange[0]!r} has another question or answer there"
                f" ({len(strange)} of {len(sets[name])} rows); delete it and write it again with"
                " make_perturbed.py"
            )
        complete = {row["id"] for row in sets[name] if set(ADDED) <= lines.get(row["id"], {}).keys()}
        only = complete if name == "retain" and complete else {row["id"] for row in sets[name]}
        found[name] = [_completed(row, lines.get(row["id"], {})) for row in sets[name] if row["id"] in only]
    return found


def _completed(row: dict, line: dict) -> dict:
    return {**row, **{key: line[key] for key in ADDED if key in line}}
