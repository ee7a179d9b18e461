"""Other answers to a question: refusals, other rows' answers, plausible alternates that a model wrote."""

import random
from collections.abc import Sequence
from pathlib import Path

from core.encoding import CONTEXT
from core.fields import TEXT, check_fields
from core.files import UserError, read_records, read_text
from dataset.checked import TEXTS_OR_NONE

DEFAULT = Path(__file__).resolve().parents[2] / "files" / "data" / "refusals.txt"

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
    """The alternates of `rows` from a file of make_alternates.py ({id, question, alternates: [texts]} per
    line): as many for every row, one after the other, rows in their order."""
    known = {line["id"]: line for line in read_lines(Path(path).expanduser())}
    missing = [row["id"] for row in rows if row["id"] not in known]
    if missing:
        raise UserError(
            f"dataset.alternates: {path} has no line for {len(missing)} of {len(rows)} forget rows (first"
            f" {missing[0]!r}); make it anew with make_alternates.py for this data set"
        )
    texts = {row["id"]: known[row["id"]]["alternates"] for row in rows}
    stale = [row["id"] for row in rows if known[row["id"]].get("question") != row.get("question")]
    if stale:
        raise UserError(
            f"dataset.alternates: {path} is of another data set: {stale[0]!r} has another question there"
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


def read_lines(path: Path) -> list[dict]:
    """The lines of a file of make_alternates.py. UserError naming the line and field that is wrong."""
    records = read_records(path)
    for place, line in records:
        advice = "; write the file anew with make_alternates.py"
        check_fields(f"dataset.alternates: {place}", line, LINE, advice=advice)
    return [line for _, line in records]


def _draw(seed: int, row: dict) -> random.Random:
    return random.Random(f"{seed}/{row['id']}")


def _asked(row: dict) -> dict:
    """What stands before a row's answer."""
    if "question" not in row:
        raise UserError(
            f"row {row['id']!r} has no question, so it cannot be given another answer; choose another method"
        )
    return {key: row[key] for key in CONTEXT if key in row}
