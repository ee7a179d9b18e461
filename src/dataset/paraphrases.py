"""The files of make_paraphrases.py: what is to be forgotten, in other words, as JSON lines.

    {"paraphrases": 1, "forget": ..., "writer": ..., ...}    the first line
    {"id", "source", "question", "paraphrases", ...}         one line an answer (or piece of a document)

`source` is a fingerprint of the answer with its question, or of the piece, so that paraphrases never meet a
row they were not written for.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.files import UserError, fingerprint, read_records
from ..core.json_fields import COUNT, TEXT, Kind, check_fields
from .row_checks import TEXTS_OR_NONE

log = logging.getLogger(__name__)

VERSION = 1
LINE = {"id": TEXT, "source": TEXT, "paraphrases": TEXTS_OR_NONE}
"""What a line must have."""
REJECTED = Kind(
    "an object of counts", lambda value: isinstance(value, dict) and all(map(COUNT.holds, value.values()))
)
"""How many texts were not kept, by reason."""


def header(forget: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The first line: the forget set, and how the texts were made."""
    return {"paraphrases": VERSION, "forget": forget, **facts}


def source_fingerprint(row: dict) -> str:
    """Of what is said in other words: {question or prompt, answer} or {text}."""
    return (
        fingerprint(row["text"])
        if "text" in row
        else fingerprint(row.get("question") or row["prompt"], row["answer"])
    )


def read_paraphrases(path: Path, rows: Sequence[dict], count: int, shortest: bool = False) -> list[list[str]]:
    """For every row at most `count` paraphrases, the first or the shortest of its line. UserError when the
    file was not written for these rows; a warning where a row has fewer than two."""
    known = {line["id"]: line for line in read_lines(path)[1]}
    missing = [row["id"] for row in rows if row["id"] not in known]
    if missing:
        raise UserError(
            f"dataset.paraphrases: {path} has no line for {len(missing)} of {len(rows)} forget rows (first"
            f" {missing[0]!r}); make_paraphrases.py with the same config writes them"
        )
    strange = [row["id"] for row in rows if known[row["id"]]["source"] != source_fingerprint(row)]
    if strange:
        cut = (
            " or cut into other pieces (dataset.max_length, long_text, tokenizer)"
            if "text" in rows[0]
            else ""
        )
        raise UserError(
            f"dataset.paraphrases: {path} was written for another data set{cut}: {strange[0]!r} has another"
            f" text there ({len(strange)} of {len(rows)} rows); write the paraphrases of this one with"
            " make_paraphrases.py"
        )
    written = [known[row["id"]]["paraphrases"] for row in rows]
    found = [(sorted(texts, key=len) if shortest else texts)[:count] for texts in written]
    poor = [row["id"] for row, texts in zip(rows, found) if len(texts) < 2]
    if poor:
        log.warning(
            "dataset.paraphrases: %d of %d forget rows have fewer than two paraphrases (first %r): nothing"
            " can agree there",
            len(poor),
            len(rows),
            poor[0],
        )
    return found


def read_lines(path: Path) -> tuple[dict, list[dict]]:
    """The header and the lines of a file of make_paraphrases.py. UserError when it has no header, or naming
    the line and field that is wrong."""
    try:
        records = read_records(path)
    except UserError as error:
        raise UserError(f"dataset.paraphrases: {error}; expected a file of make_paraphrases.py") from None
    if not records or records[0][1].get("paraphrases") != VERSION:
        raise UserError(
            f"dataset.paraphrases: {path} is not a file of make_paraphrases.py (version {VERSION}): its first"
            " line has no header"
        )
    for place, line in records[1:]:
        advice = "; write the file anew with make_paraphrases.py"
        check_fields(f"dataset.paraphrases: {place}", line, LINE, {"rejected": REJECTED}, advice)
    return records[0][1], [line for _, line in records[1:]]
