"""Reasoning traces of the forget rows (make_traces.py): a line per segment of a row, with `row`, `segment`,
`prompt`, `trace`, `answer`, `closed` and `n_tokens`.

The format of R2MU's published traces is read too: one object per line whose key "512" holds a text, in the
order of the forget rows.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.files import UserError, fingerprint, read_records
from ..core.json_fields import COUNT, FLAG, STRING, TEXT, check_fields, or_null
from ..core.thinking import TAGS, Tags, split_trace
from .generated_file import GeneratedFile

log = logging.getLogger(__name__)

PUBLISHED_KEY = "512"


def source_of(row: dict) -> str:
    """What a row is about: its question, or its document."""
    return row.get("question") or row.get("text") or row["prompt"]


def source_fingerprint(row: dict) -> str:
    return fingerprint(source_of(row))


TRACES = GeneratedFile(
    kind="traces",
    key="dataset.traces",
    script="make_traces.py",
    fields={**dict.fromkeys(("id", "row", "source", "prompt"), TEXT), "trace": STRING, "closed": FLAG},
    optional={"segment": COUNT, "answer": or_null(STRING), "n_tokens": COUNT},
    row="row",
    source=source_fingerprint,
)


@dataclass(frozen=True)
class TraceOptions:
    """What is taken from a file of traces."""

    keep_unclosed: bool = True
    """Keep traces that the token budget cut?"""
    tags: Tags = TAGS
    model_name: str | None = None
    """The run's initial model: a warning when another one wrote the file."""
    whole: bool = True
    """Are the rows all of their set? The published format needs that."""


def read_traces(path: Path, rows: Sequence[dict], options: TraceOptions = TraceOptions()) -> list[list[dict]]:
    """For every row its traces, each {id, question, trace}. UserError when the file was not written for these
    rows or a row has no trace that can be used."""
    records = read_records(path)
    if records and PUBLISHED_KEY in records[0][1]:
        return _published(path, records, rows, options)
    header, lines = TRACES.checked(path, records)
    if options.model_name and header.get("model_name") != options.model_name:
        log.warning(
            "dataset.traces: %s was written by %s, and overall.model_name is %s",
            path,
            header.get("model_name"),
            options.model_name,
        )
    by_row = TRACES.by_row(path, lines, rows)
    return [_usable(path, row, found, options.keep_unclosed) for row, found in zip(rows, by_row)]


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
    path: Path, records: Sequence[tuple[str, dict]], rows: Sequence[dict], options: TraceOptions
) -> list[list[dict]]:
    """Traces go with rows by their order."""
    if not options.whole:
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
    thoughts = [split_trace(line[PUBLISHED_KEY], options.tags) for _, line in used]
    useless = [
        place
        for (place, _), thought in zip(used, thoughts)
        if not thought.trace or not (options.keep_unclosed or thought.closed)
    ]
    if useless:
        raise UserError(
            f"dataset.traces: {useless[0]} has no trace that can be used ({len(useless)} of"
            f" {len(thoughts)}): it is empty{'' if options.keep_unclosed else ' or never closes'}"
        )
    return [
        [{"id": f"{row['id']}-trace", "question": source_of(row), "trace": thought.trace}]
        for row, thought in zip(rows, thoughts)
    ]


def own_traces(rows: Sequence[dict]) -> list[list[dict]]:
    """The reasoning that rows bring along, as the only trace of each."""
    return [[{"id": f"{row['id']}-cot", "question": source_of(row), "trace": row["cot"]}] for row in rows]
