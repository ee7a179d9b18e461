"""Other answers to a question: refusals, other rows' answers, and plausible alternates that a model wrote
(make_alternates.py): a line per row with `question` and `alternates`, a list of texts. Files of other origin
need neither header nor `source`."""

import random
from collections.abc import Sequence
from pathlib import Path

from ..core.encoding import CONTEXT
from ..core.files import UserError, read_records, read_text
from ..core.json_fields import COUNT, TEXT
from ..core.project import DATA
from .generated_file import GeneratedFile
from .row_checks import TEXTS_OR_NONE

DEFAULT = DATA / "refusals.txt"

ALTERNATES = GeneratedFile(
    kind="alternates",
    key="dataset.alternates",
    script="make_alternates.py",
    fields={"id": TEXT, "question": TEXT, "alternates": TEXTS_OR_NONE},
    optional={"source": TEXT, "tried": COUNT},
)


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
    path = Path(path).expanduser()
    lines = ALTERNATES.by_row(path, read_lines(path), rows)
    stale = [row["id"] for row, (line, *_) in zip(rows, lines) if line["question"] != row.get("question")]
    if stale:
        raise UserError(
            f"dataset.alternates: {path} is of another data set: {stale[0]!r} has another question there"
        )
    texts = [line["alternates"] for (line, *_) in lines]
    count = min(map(len, texts))
    if not count:
        poor = next(row["id"] for row, found in zip(rows, texts) if not found)
        raise UserError(f"dataset.alternates: {path} has no alternate for {poor!r}")
    return [
        {**_asked(row), "id": f"{row['id']}-{k}", "answer": found[k]}
        for row, found in zip(rows, texts)
        for k in range(count)
    ]


def read_lines(path: Path) -> list[dict]:
    """The lines of a file of alternates, with or without a header. UserError for another version, or naming
    the line and field that is wrong."""
    records = read_records(path)
    if records and "id" not in records[0][1]:
        return ALTERNATES.checked(path, records)[1]
    ALTERNATES.check_lines(records)
    return [line for _, line in records]


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
