"""The files of make_traces.py: what a model thinks about the forget rows, as JSON lines.

    {"traces": 1, "model": ..., "model_name": ..., "data": ..., "settings": {...}}           the first line
    {"id", "row", "segment", "source", "prompt", "trace", "answer", "closed", "n_tokens"}    one line for each segment of a row

`source` is a fingerprint of the row's text, so that traces never meet a row they were not written for. The format of R2MU's
published traces is read too: one object per line whose key "512" holds a text, in the order of the forget rows.
"""

from collections.abc import Sequence
from pathlib import Path

from core.files import UserError, fingerprint, read_jsonl
from core.thinking import TAGS, Tags, split_thought

VERSION = 1
PUBLISHED_KEY = "512"


def source_of(row: dict) -> str:
    """What a row is about: its question, or its document."""
    return row.get("question") or row.get("text") or row["prompt"]


def source_fingerprint(row: dict) -> str:
    return fingerprint(source_of(row))


def read_traces(path: Path, rows: Sequence[dict], keep_unclosed: bool = True, tags: Tags = TAGS) -> list[list[dict]]:
    """For every row its traces, each {id, question, trace}. UserError when the file was not written for these rows or a row has
    no trace that can be used."""
    lines = read_jsonl(path)
    if lines and PUBLISHED_KEY in lines[0]:
        return _published(path, lines, rows, tags)
    if not lines or lines[0].get("traces") != VERSION:
        raise UserError(f"dataset.traces: {path} is no file of make_traces.py (version {VERSION}): its first line has no header")
    by_row: dict[str, list[dict]] = {}
    for line in lines[1:]:
        by_row.setdefault(line["row"], []).append(line)
    missing = [row["id"] for row in rows if row["id"] not in by_row]
    if missing:
        raise UserError(f"dataset.traces: {path} has no trace for {len(missing)} of {len(rows)} forget rows (first {missing[0]!r}); "
                        "make_traces.py with the same config writes them")
    strange = [row["id"] for row in rows if by_row[row["id"]][0]["source"] != source_fingerprint(row)]
    if strange:
        raise UserError(f"dataset.traces: {path} was written for another data set: {strange[0]!r} has another text there "
                        f"({len(strange)} of {len(rows)} rows); write the traces of this one with make_traces.py")
    return [_usable(path, row, by_row[row["id"]], keep_unclosed) for row in rows]


def _usable(path: Path, row: dict, lines: list[dict], keep_unclosed: bool) -> list[dict]:
    kept = [line for line in lines if line["trace"] and (keep_unclosed or line["closed"])]
    if not kept:
        raise UserError(f"dataset.traces: {path}: all {len(lines)} traces of {row['id']!r} are empty"
                        f"{'' if keep_unclosed else ' or never close'}; write them again with a larger traces.max_new_tokens, or by "
                        "sampling")
    return [{"id": line["id"], "question": line["prompt"], "trace": line["trace"]} for line in kept]


def _published(path: Path, lines: list[dict], rows: Sequence[dict], tags: Tags) -> list[list[dict]]:
    """Traces go with rows by their order."""
    if len(lines) < len(rows):
        raise UserError(f"dataset.traces: {path} has {len(lines)} traces for {len(rows)} forget rows; they go together by order; "
                        f"cut the forget file to its first {len(lines)} rows, or write traces with make_traces.py")
    texts = [line[PUBLISHED_KEY] for line in lines[:len(rows)]]
    found = [split_thought(text, tags).trace or text for text in texts]
    return [[{"id": f"{row['id']}-trace", "question": source_of(row), "trace": trace}] for row, trace in zip(rows, found)]


def own_traces(rows: Sequence[dict]) -> list[list[dict]]:
    """The reasoning that rows bring along, as the only trace of each."""
    return [[{"id": f"{row['id']}-cot", "question": source_of(row), "trace": row["cot"]}] for row in rows]
