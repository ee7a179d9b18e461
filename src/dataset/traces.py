"""The files of make_traces.py: what a model thinks about the forget rows, as JSON lines.

    the first line      {"traces": 1, "model": ..., "data": ..., "template": ..., "settings": {...}, ...}
    then, by segment    {"id", "row", "segment", "source", "prompt", "trace", "answer", "closed", "n_tokens"}

`source` is a fingerprint of the row's text, so that traces never meet a row they were not written for. The
format of R2MU's published traces is read too: one object per line whose key "512" holds a text, in the order
of the forget rows.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from core.files import UserError, fingerprint, read_jsonl
from core.thinking import TAGS, Tags, split_thought

log = logging.getLogger(__name__)

VERSION = 1
PUBLISHED_KEY = "512"
LINE = {"id": str, "row": str, "source": str, "prompt": str, "trace": str, "closed": bool}
"""What a line must have."""


def source_of(row: dict) -> str:
    """What a row is about: its question, or its document."""
    return row.get("question") or row.get("text") or row["prompt"]


def source_fingerprint(row: dict) -> str:
    return fingerprint(source_of(row))


def read_traces(
    path: Path,
    rows: Sequence[dict],
    keep_unclosed: bool = True,
    tags: Tags = TAGS,
    model_name: str | None = None,
    whole: bool = True,
) -> list[list[dict]]:
    """For every row its traces, each {id, question, trace}. UserError when the file was not written for these
    rows or a row has no trace that can be used; a warning when another model than `model_name` wrote it.
    `whole`: the rows are all of their set, which the published format needs."""
    lines = read_jsonl(path)
    if not all(isinstance(line, dict) for line in lines):
        raise UserError(f"dataset.traces: {path}: every line must be an object")
    if lines and PUBLISHED_KEY in lines[0]:
        return _published(path, lines, rows, keep_unclosed, tags, whole)
    if not lines or lines[0].get("traces") != VERSION:
        raise UserError(
            f"dataset.traces: {path} is no file of make_traces.py (version {VERSION}): its first line has no"
            " header"
        )
    if model_name and lines[0].get("model_name") != model_name:
        log.warning(
            "dataset.traces: %s was written by %s, and overall.model_name is %s",
            path,
            lines[0].get("model_name"),
            model_name,
        )
    by_row: dict[str, list[dict]] = {}
    for number, line in enumerate(lines[1:], 2):
        wrong = [key for key, kind in LINE.items() if not isinstance(line.get(key), kind)]
        if wrong:
            raise UserError(
                f"dataset.traces: {path}, line {number}: {wrong[0]!r} is no {LINE[wrong[0]].__name__}; write"
                " the file anew with make_traces.py"
            )
        by_row.setdefault(line["row"], []).append(line)
    missing = [row["id"] for row in rows if row["id"] not in by_row]
    if missing:
        raise UserError(
            f"dataset.traces: {path} has no trace for {len(missing)} of {len(rows)} forget rows (first"
            f" {missing[0]!r}); make_traces.py with the same config writes them"
        )
    strange = [row["id"] for row in rows if by_row[row["id"]][0]["source"] != source_fingerprint(row)]
    if strange:
        raise UserError(
            f"dataset.traces: {path} was written for another data set: {strange[0]!r} has another text there "
            f"({len(strange)} of {len(rows)} rows); write the traces of this one with make_traces.py"
        )
    return [_usable(path, row, by_row[row["id"]], keep_unclosed) for row in rows]


def _usable(path: Path, row: dict, lines: list[dict], keep_unclosed: bool) -> list[dict]:
    kept = [line for line in lines if line["trace"] and (keep_unclosed or line["closed"])]
    if not kept:
        raise UserError(
            f"dataset.traces: {path}: all {len(lines)} traces of {row['id']!r} are"
            f" empty{'' if keep_unclosed else ' or never close'}; write them again with a larger"
            " traces.max_new_tokens, or by sampling"
        )
    return [{"id": line["id"], "question": line["prompt"], "trace": line["trace"]} for line in kept]


def _published(
    path: Path, lines: list[dict], rows: Sequence[dict], keep_unclosed: bool, tags: Tags, whole: bool
) -> list[list[dict]]:
    """Traces go with rows by their order."""
    if not whole:
        raise UserError(
            f"dataset.traces: {path} holds the published format, which goes with rows by their order; take"
            " all of them (dataset.forget_ratio 1), or write traces with make_traces.py"
        )
    if len(lines) < len(rows):
        raise UserError(
            f"dataset.traces: {path} has {len(lines)} traces for {len(rows)} forget rows; they go together by"
            f" order; cut the forget file to its first {len(lines)} rows, or write traces with make_traces.py"
        )
    wrong = [
        number
        for number, line in enumerate(lines[: len(rows)], 1)
        if not isinstance(line.get(PUBLISHED_KEY), str)
    ]
    if wrong:
        raise UserError(f"dataset.traces: {path}, line {wrong[0]}: {PUBLISHED_KEY!r} is no text")
    thoughts = [split_thought(line[PUBLISHED_KEY], tags) for line in lines[: len(rows)]]
    useless = [
        number
        for number, thought in enumerate(thoughts, 1)
        if not thought.trace or not (keep_unclosed or thought.closed)
    ]
    if useless:
        raise UserError(
            f"dataset.traces: {path}: line {useless[0]} has no trace that can be used ({len(useless)} of"
            f" {len(thoughts)}): it is empty{'' if keep_unclosed else ' or never closes'}"
        )
    return [
        [{"id": f"{row['id']}-trace", "question": source_of(row), "trace": thought.trace}]
        for row, thought in zip(rows, thoughts)
    ]


def own_traces(rows: Sequence[dict]) -> list[list[dict]]:
    """The reasoning that rows bring along, as the only trace of each."""
    return [[{"id": f"{row['id']}-cot", "question": source_of(row), "trace": row["cot"]}] for row in rows]
