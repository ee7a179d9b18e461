"""Refusals for the forget questions."""

import random
from collections.abc import Sequence
from pathlib import Path

from core.files import UserError, read_text

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
    return [{"id": row["id"], "question": _question(row), "answer": random.Random(f"{seed}/{row['id']}").choice(refusals)}
            for row in rows]


def _question(row: dict) -> str:
    if "question" not in row:
        raise UserError(f"row {row['id']!r} has no question, so it cannot be answered with a refusal; choose another method")
    return row["question"]
