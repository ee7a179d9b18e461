"""The files of make_perturbed.py: paraphrased and perturbed answers to a user's own questions, as JSON lines.

    {"perturbed": 1, "set": "forget", "writer": ..., ...}                          the first line
    {"id", "source", "question", "answer", "paraphrased_answer", "perturbed_answer", ...}    one line a row

They lie in `dataset.data_dir` as forget_eval.jsonl and retain_eval.jsonl, and give the rows that are measured
what the truth ratio needs. `source` is a fingerprint of question and answer, so that wrong answers never meet
a row they were not written for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.files import UserError, read_records
from ..core.json_fields import shown
from .paraphrases import source_fingerprint

VERSION = 1
SETS = ("forget", "retain")
"""Row sets that the files are written for."""
ADDED = ("paraphrased_answer", "perturbed_answer")
"""What a line adds to its row."""


def perturbed_path(folder: Path, rows: str) -> Path:
    """The file of the row set `rows`."""
    return folder / f"{rows}_eval.jsonl"


def header(rows: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The first line: the row set, and how the texts were made."""
    return {"perturbed": VERSION, "set": rows, **facts}


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
        lines = perturbed_lines(path)
        strange = [
            row["id"]
            for row in sets[name]
            if row["id"] in lines and lines[row["id"]]["source"] != source_fingerprint(row)
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


def read_perturbed(path: Path) -> tuple[dict, list[dict]]:
    """The header and the lines of a file. UserError when it has no header, or naming the line that is
    broken."""
    records = read_records(path)
    version = records[0][1].get("perturbed") if records else None
    if version != VERSION:
        raise UserError(
            f"{path}: is not a file of this version of make_perturbed.py (version {shown(version)}, this one"
            f" is {VERSION}); delete it and write it again with make_perturbed.py"
        )
    for place, line in records[1:]:
        if not _is_sound(line):
            raise UserError(
                f"{place}: expected id, source, paraphrased_answer (a text) and perturbed_answer (a list of"
                " texts); write the file anew with make_perturbed.py"
            )
    return records[0][1], [line for _, line in records[1:]]


def perturbed_lines(path: Path) -> dict[str, dict]:
    """The lines of a file by row id. UserError naming the line that is broken."""
    return {line["id"]: line for line in read_perturbed(path)[1]}


def _is_sound(line: dict) -> bool:
    right, wrong = line.get("paraphrased_answer", "x"), line.get("perturbed_answer", ["x"])
    rejected = line.get("rejected", {})
    return (
        all(isinstance(line.get(key), str) for key in ("id", "source"))
        and isinstance(wrong, list)
        and bool(wrong)
        and all(isinstance(text, str) and text.strip() for text in [right, *wrong])
        and isinstance(rejected, dict)
        and all(
            isinstance(counts, dict) and all(type(count) is int for count in counts.values())
            for counts in rejected.values()
        )
    )
