"""Other answers to a question: refusals, other rows' answers, plausible alternates that a model wrote."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

from core.files import UserError, read_jsonl, read_text

DEFAULT = Path(__file__).resolve().parents[2] / "files" / "data" / "refusals.txt"


def read_refusals(path: str | None) -> list[str]:
    """One refusal per line; empty lines are skipped, a file without any is an error."""
    lines = [line.strip() for line in read_text(Path(path).expanduser() if path else DEFAULT).splitlines()]
    refusals = [line for line in lines if line]
    if not refusals:
        raise UserError(f"dataset.refusals: {path} holds no refusal (one per line)")
    return refusals


def refuse(rows: Sequence[dict], refusals: Sequence[str], seed: int) -> list[dict]:
    """The questions of `rows` with refusals for answers; which one is a function of (seed, row id) alone."""
    return [
        {"id": row["id"], "question": _question(row), "answer": _draw(seed, row).choice(refusals)}
        for row in rows
    ]


def mismatch(rows: Sequence[dict], donors: Sequence[dict], seed: int) -> list[dict]:
    """The questions of `rows` with answers of `donors`, each drawn by (seed, row id), never a row's own
    answer."""
    answers = sorted({row["answer"] for row in donors if "answer" in row})
    found = []
    for row in rows:
        _question(row)
        others = (
            answers
            if row["answer"] not in answers
            else [answer for answer in answers if answer != row["answer"]]
        )
        if not others:
            raise UserError(f"row {row['id']!r}: no other row has another answer to draw")
        found.append({"id": row["id"], "question": _question(row), "answer": _draw(seed, row).choice(others)})
    return found


def read_alternates(path: Path | str, rows: Sequence[dict]) -> list[dict]:
    """The alternates of `rows` from a file of make_alternates.py ({id, question, alternates: [texts]} per
    line): as many for every row, one after the other, rows in their order."""
    known = {line.get("id"): line for line in read_jsonl(Path(path).expanduser())}
    missing = [row["id"] for row in rows if row["id"] not in known]
    if missing:
        raise UserError(
            f"dataset.alternates: {path} has no line for {len(missing)} of {len(rows)} forget rows (first"
            f" {missing[0]!r}); make it anew with make_alternates.py for this data set"
        )
    given = {row["id"]: known[row["id"]].get("alternates") for row in rows}
    texts = {identity: found for identity, found in given.items() if _are_texts(found)}
    wrong = [identity for identity in given if identity not in texts]
    if wrong:
        raise UserError(f"dataset.alternates: {path}: the alternates of {wrong[0]!r} are no list of texts")
    stale = [row["id"] for row in rows if known[row["id"]].get("question") != row["question"]]
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
        {"id": f"{row['id']}-{k}", "question": row["question"], "answer": texts[row["id"]][k]}
        for row in rows
        for k in range(count)
    ]


def _are_texts(found: object) -> TypeGuard[list[str]]:
    return isinstance(found, list) and all(isinstance(text, str) and text for text in found)


def _draw(seed: int, row: dict) -> random.Random:
    return random.Random(f"{seed}/{row['id']}")


def _question(row: dict) -> str:
    if "question" not in row:
        raise UserError(
            f"row {row['id']!r} has no question, so it cannot be given another answer; choose another method"
        )
    return row["question"]
