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

from ..core.files import UserError, fingerprint, read_records
from ..core.json_fields import COUNT, FLAG, STRING, TEXT, check_fields, or_null
from ..core.thinking import TAGS, Tags, split_trace

log = logging.getLogger(__name__)

VERSION = 1
PUBLISHED_KEY = "512"
LINE = {**dict.fromkeys(("id", "row", "source", "prompt"), TEXT), "trace": STRING, "closed": FLAG}
"""What a line must have."""
MORE = {"segment": COUNT, "answer": or_null(STRING), "n_tokens": COUNT}
"""What readers of traces alone can do without."""


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
    records = read_records(path)
    if records and PUBLISHED_KEY in records[0][1]:
        return _published(path, records, rows, keep_unclosed, tags, whole)
    header, lines = checked_lines(path, records)
    if model_name and header.get("model_name") != model_name:
        log.warning(
            "dataset.traces: %s was written by %s, and overall.model_name is %s",
            path,
            header.get("model_name"),
            model_name,
        )
    by_row: dict[str, list[dict]] = {}
    for line in lines:
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


def checked_lines(path: Path, records: Sequence[tuple[str, dict]]) -> tuple[dict, list[dict]]:
    """The header and the lines of a file of make_traces.py. UserError when it has no header, or naming the
    line and field that is wrong."""
    if not records or records[0][1].get("traces") != VERSION:
        raise UserError(
            f"dataset.traces: {path} is not a file of make_traces.py (version {VERSION}): its first line"
            " has no header"
        )
    for place, line in records[1:]:
        advice = "; write the file anew with make_traces.py"
        check_fields(f"dataset.traces: {place}", line, LINE, MORE, advice)
    return records[0][1], [line for _, line in records[1:]]


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
    path: Path,
    records: Sequence[tuple[str, dict]],
    rows: Sequence[dict],
    keep_unclosed: bool,
    tags: Tags,
    whole: bool,
) -> list[list[dict]]:
    """Traces go with rows by their order."""
    if not whole:
        raise UserError(
            f"dataset.traces: {path} holds the published format, which goes with rows by their order; take"
            " all of them (dataset.forget_ratio 1), or write traces with make_traces.py"
        )
    if len(records) < len(rows):
        count = len(records)
        raise UserError(
            f"dataset.traces: {path} has {count} traces for {len(rows)} forget rows; they go together by"
            f" order; cut the forget file to its first {count} rows, or write traces with make_traces.py"
        )
    used = records[: len(rows)]
    for place, line in used:
        check_fields(f"dataset.traces: {place}", line, {PUBLISHED_KEY: STRING})
    thoughts = [split_trace(line[PUBLISHED_KEY], tags) for _, line in used]
    useless = [
        place
        for (place, _), thought in zip(used, thoughts)
        if not thought.trace or not (keep_unclosed or thought.closed)
    ]
    if useless:
        raise UserError(
            f"dataset.traces: {useless[0]} has no trace that can be used ({len(useless)} of"
            f" {len(thoughts)}): it is empty{'' if keep_unclosed else ' or never closes'}"
        )
    return [
        [{"id": f"{row['id']}-trace", "question": source_of(row), "trace": thought.trace}]
        for row, thought in zip(rows, thoughts)
    ]


def own_traces(rows: Sequence[dict]) -> list[list[dict]]:
    """The reasoning that rows bring along, as the only trace of each."""
    return [[{"id": f"{row['id']}-cot", "question": source_of(row), "trace": row["cot"]}] for row in rows]
