"""What the initial model thinks about the forget rows, for R2MU (arXiv:2506.12963) and the reflection token
penalty."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from ...core.encoding import Template
from ...core.files import UserError, fingerprint, lock, read_jsonl, read_records, write_jsonl
from ...core.generation import DecodingOptions, Generation, decode, generate
from ...core.thinking import split_trace
from ...dataset import load_rows
from ...dataset.traces import VERSION, checked_lines, source_fingerprint, source_of
from ..load.loading import (
    autocast_context,
    check_context,
    choose_device,
    choose_precision,
    initial_tokenizer,
    load_initial,
    model_fingerprint,
)
from ..run.progress import progress
from ..settings import Settings, plain

CHUNK = 64
"""Segments that are thought about before the file is written again."""

Write = Callable[[list[list[int]]], list[Generation]]


@dataclass(frozen=True)
class Segment:
    """A piece of a forget row, as it is put to the model."""

    id: str
    row: str
    number: int
    source: str
    text: str
    prompt: str
    prompt_ids: list[int]


def write_traces(settings: Settings) -> Path:
    """Write a trace for every segment of every forget row and return the file. What it holds already is kept,
    so an interrupted run goes on. UserError when the file was written by another model, for other rows or
    with other settings.
    """
    plan, data, overall = settings.traces, settings.dataset, settings.overall
    if settings.traces_file.is_dir():
        raise UserError(f"dataset.traces: {settings.traces_file} is a folder; name a file")
    rows = load_rows(data.forget_dataset_name, data.folder, data.column_names)
    tokenizer = initial_tokenizer(overall)
    template = Template(tokenizer, data.template, data.tags)
    segments = [segment for row in rows for segment in cut(row, template, settings)]
    check_context(
        overall.model_name,
        max(len(segment.prompt_ids) for segment in segments),
        plan.max_new_tokens,
        "traces.max_new_tokens",
        "A shorter traces.segment_tokens makes room in documents",
    )
    device = choose_device(overall.device)
    precision = choose_precision(overall.precision, device)
    model = load_initial(overall)
    header = {
        "traces": VERSION,
        "model": model_fingerprint(model),
        "model_name": overall.model_name,
        "forget": data.forget_dataset_name,
        "data": fingerprint(list(dict.fromkeys(segment.source for segment in segments))),
        "template": template.fingerprint,
        "settings": _facts(settings),
    }
    with (
        lock(settings.traces_file.with_suffix(".lock"), "dataset.traces"),
        autocast_context(device, precision),
    ):
        lines = _earlier(settings.traces_file, header, segments)
        todo = len({segment.id for segment in segments} - {line["id"] for line in lines})
        with progress("thinking", overall.quiet, todo) as on_rows:
            write = (
                _vllm(settings, template, on_rows)
                if plan.backend == "vllm"
                else _transformers(model, template, settings, on_rows)
            )
            _write_all(settings.traces_file, header, lines, segments, write, settings)
    return settings.traces_file


def cut(row: dict, template: Template, settings: Settings) -> Iterator[Segment]:
    """The segments of a row: a question as it is, a document in pieces with the trigger beside each."""
    plan, source = settings.traces, source_fingerprint(row)
    texts = [source_of(row)]
    if "question" not in row:
        pieces = cut_text(source_of(row), template.tokenizer, plan.segment_tokens, plan.min_tokens)[
            : plan.segments
        ]
        before, after = (
            (plan.trigger_text, "") if plan.trigger_position == "before" else ("", plan.trigger_text)
        )
        texts = ["\n".join(filter(None, [before, piece, after])) for piece in pieces]
    for number, text in enumerate(texts):
        yield Segment(
            f"{row['id']}#{number}",
            row["id"],
            number,
            source,
            source_of(row),
            text,
            template.open_trace_ids(text, row.get("turns", ())),
        )


def cut_text(text: str, tokenizer, size: int, least: int) -> list[str]:
    """A text in pieces of about `size` tokens, cut between words; a last piece of fewer than `least` tokens
    is left out, unless it is the only one."""
    words = list(re.finditer(r"\S+\s*", text))
    pieces, start, tokens = [], 0, 0
    for word in words:
        count = len(tokenizer(word.group(), add_special_tokens=False)["input_ids"])
        if tokens and tokens + count > size:
            pieces.append((text[start : word.start()].strip(), tokens))
            start, tokens = word.start(), 0
        tokens += count
    pieces.append((text[start:].strip(), tokens))
    return [piece for number, (piece, count) in enumerate(pieces) if number == 0 or count >= least]


def _facts(settings: Settings) -> dict:
    """The settings that decide what is written."""
    data = settings.dataset
    facts = {key: value for key, value in plain(settings.traces).items() if key != "backend"}
    return facts | {
        "template": data.template,
        "think": [data.think_open, data.think_close],
        "seed": settings.overall.seed,
    }


def _earlier(path: Path, header: dict, segments: list[Segment]) -> list[dict]:
    """The lines that an earlier run has written under the same header for these segments."""
    if not path.is_file():
        return []
    records = read_records(path)
    if not records:
        return []
    known, lines = checked_lines(path, records)
    changed = [key for key in ("model", "data", "template", "settings") if known.get(key) != header[key]]
    if changed:
        raise UserError(
            f"dataset.traces: {path} was written with other {' and other '.join(changed)}; choose another"
            " file, or delete it to write it anew"
        )
    known_ids = {segment.id for segment in segments}
    strangers = [line["id"] for line in lines if line["id"] not in known_ids]
    if strangers:
        raise UserError(
            f"dataset.traces: {path} holds a trace of {strangers[0]!r}, which these rows do not have; choose"
            " another file, or delete it to write it anew"
        )
    return lines


def _write_all(
    path: Path, header: dict, lines: list[dict], segments: list[Segment], write: Write, settings: Settings
) -> None:
    there = {line["id"] for line in lines}
    todo = [segment for segment in segments if segment.id not in there]
    order = {segment.id: number for number, segment in enumerate(segments)}
    for at in range(0, len(todo), CHUNK):
        chunk = todo[at : at + CHUNK]
        torch.manual_seed(int(fingerprint(settings.overall.seed, chunk[0].id), 16) % 2**63)
        written = write([segment.prompt_ids for segment in chunk])
        lines = sorted(
            [*lines, *(_line(*pair, settings) for pair in zip(chunk, written))],
            key=lambda line: order[line["id"]],
        )
        write_jsonl(path, [header, *lines])


def _line(segment: Segment, said: Generation, settings: Settings) -> dict:
    thought = split_trace(said.text, settings.dataset.tags)
    return {
        "id": segment.id,
        "row": segment.row,
        "segment": segment.number,
        "source": segment.source,
        "prompt": segment.prompt,
        "trace": thought.trace,
        "answer": thought.answer,
        "closed": thought.closed,
        "n_tokens": said.n_tokens,
    }


def _transformers(model, template: Template, settings: Settings, on_rows) -> Write:
    plan = settings.traces
    options = DecodingOptions(
        plan.max_new_tokens,
        settings.evaluate.batch_tokens,
        template.stop_ids,
        temperature=plan.temperature,
        top_p=plan.top_p,
        tags=settings.dataset.tags,
    )
    return lambda prompts: generate(model, template.tokenizer, prompts, options, on_rows)


def _vllm(settings: Settings, template: Template, on_rows) -> Write:
    """The same by vLLM, which samples and batches in its own way."""
    if find_spec("vllm") is None:
        raise UserError("traces.backend vllm: the package vllm is not installed; .venv/bin/pip install vllm")
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports] (an extra)

    plan, overall = settings.traces, settings.overall
    engine = LLM(
        model=overall.model_name, tokenizer=overall.tokenizer_name or overall.model_name, seed=overall.seed
    )
    sampling = SamplingParams(
        temperature=plan.temperature,
        top_p=plan.top_p,
        max_tokens=plan.max_new_tokens,
        seed=overall.seed,
        stop_token_ids=template.stop_ids,
    )

    def write(prompts: list[list[int]]) -> list[Generation]:
        outputs = [
            output.outputs[0]
            for output in engine.generate([{"prompt_token_ids": ids} for ids in prompts], sampling)
        ]
        on_rows(len(prompts))
        return [
            Generation(
                decode(template.tokenizer, list(said.token_ids), settings.dataset.tags),
                len(said.token_ids),
                said.finish_reason == "stop",
                tuple(said.token_ids),
            )
            for said in outputs
        ]

    return write


def summary(path: Path) -> str:
    """How many traces a file holds, and how many of them are sound."""
    lines = read_jsonl(path)[1:]
    closed, empty = sum(line["closed"] for line in lines), sum(not line["trace"] for line in lines)
    tokens = sum(line["n_tokens"] for line in lines) / max(1, len(lines))
    return (
        f"{len(lines)} traces of {len({line['row'] for line in lines})} rows, {closed} closed, {empty} empty,"
        f" {tokens:.0f} tokens each"
    )
