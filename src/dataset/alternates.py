"""Other answers to a question: refusals, other rows' answers, plausible alternates that a model wrote.

The files of make_alternates.py are JSON lines:

    {"alternates": 1, "model": ..., "forget": ..., "settings": {...}, ...}    the first line
    {"id", "source", "question", "alternates": [texts]}                      one line a row

`source` is a fingerprint of the question with its true answer. Files of other origin need neither it nor the
first line.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from ..core.encoding import CONTEXT
from ..core.files import UserError, read_records, read_text
from ..core.json_fields import TEXT, check_fields
from ..core.project import DATA
from .paraphrases import source_fingerprint
from .row_checks import TEXTS_OR_NONE

VERSION = 1
DEFAULT = DATA / "refusals.txt"

LINE = {"id": TEXT, "question": TEXT, "alternates": TEXTS_OR_NONE}
"""What a line of make_alternates.py must have."""


def read_refusals(path: str | None) -> list[str]:
    """One refusal per line; empty lines are skipped, a file without any is an error."""
    lines = [line.strip() for line in read_text(Path(path).expanduser() if path else DEFAULT).splitlines()]
    refusals = [line for line in lines if line]
    if not refusals:
        raise UserError(f"dataset.refusals: {path} holds no refusal (one per line)")
    return refusals


def refuse(rows: Sequence[dict], refusals: Sequence[str], seed: int) -> list[dict]:
    """The questions of `rows` with refusals for answers; which one is a function of (seed, row id) alone."""
    return [{**_asked(row), "id": row["id"], "answer": _draw(seed, row).choice(refusals)} for row in rows]


def mismatch(rows: Sequence[dict], donors: Sequence[dict], seed: int) -> list[dict]:
    """The questions of `rows` with answers of `donors`, each drawn by (seed, row id), never a row's own
    answer."""
    answers = sorted({row["answer"] for row in donors if "answer" in row})
    found = []
    for row in rows:
        asked = _asked(row)
        others = (
            answers
            if row["answer"] not in answers
            else [answer for answer in answers if answer != row["answer"]]
        )
        if not others:
            raise UserError(f"row {row['id']!r}: no other row has another answer to draw")
        found.append({**asked, "id": row["id"], "answer": _draw(seed, row).choice(others)})
    return found


def read_alternates(path: Path | str, rows: Sequence[dict]) -> list[dict]:
    """The alternates of `rows` from a file of make_alternates.py, or one of the same lines without a header:
    as many for every row, one after the other, rows in their order."""
    known = {line["id"]: line for line in read_lines(Path(path).expanduser())[1]}
    missing = [row["id"] for row in rows if row["id"] not in known]
    if missing:
        raise UserError(
            f"dataset.alternates: {path} has no line for {len(missing)} of {len(rows)} forget rows (first"
            f" {missing[0]!r}); make it anew with make_alternates.py for this data set"
        )
    texts = {row["id"]: known[row["id"]]["alternates"] for row in rows}
    stale = [row["id"] for row in rows if not _is_of(known[row["id"]], row)]
    if stale:
        raise UserError(
            f"dataset.alternates: {path} is of another data set: {stale[0]!r} has another question or answer"
            " there"
        )
    count = min(map(len, texts.values()))
    if not count:
        raise UserError(
            f"dataset.alternates: {path} has no alternate for {next(i for i, t in texts.items() if not t)!r}"
        )
    return [
        {**_asked(row), "id": f"{row['id']}-{k}", "answer": texts[row["id"]][k]}
        for row in rows
        for k in range(count)
    ]


def read_lines(path: Path, begun: bool = False) -> tuple[dict, list[dict]]:
    """The header, empty where there is none, and the lines of a file of alternates. UserError for another
    version, or naming the line and field that is wrong; with `begun` also for a file without a header, which
    make_alternates.py did not begin."""
    records = read_records(path)
    header = records[0][1] if records and "id" not in records[0][1] else {}
    if header.get("alternates", None if begun else VERSION) != VERSION:
        raise UserError(
            f"dataset.alternates: {path} is not a file of make_alternates.py (version {VERSION}); choose"
            " another"
        )
    lines = records[bool(header) :]
    for place, line in lines:
        advice = "; write the file anew with make_alternates.py"
        check_fields(f"dataset.alternates: {place}", line, LINE, {"source": TEXT}, advice)
    return header, [line for _, line in lines]


def _is_of(line: dict, row: dict) -> bool:
    """Was a line written for this row as it is now?"""
    source = source_fingerprint(row)
    return line["question"] == row.get("question") and line.get("source", source) == source


def require_questions(rows: Sequence[dict]) -> None:
    """UserError for a row that asks nothing."""
    for row in rows:
        _asked(row)


def _draw(seed: int, row: dict) -> random.Random:
    return random.Random(f"{seed}/{row['id']}")


def _asked(row: dict) -> dict:
    """What stands before a row's answer."""
    if "question" not in row:
        raise UserError(
            f"row {row['id']!r} has no question, so it cannot be given another answer; choose another method"
        )
    return {key: row[key] for key in CONTEXT if key in row}
