"""What the initial model thinks about the forget rows, for R2MU (arXiv:2506.12963) and the reflection token
penalty."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from ...core.encoding import Template
from ...core.files import UserError, fingerprint, lock, read_jsonl, write_jsonl
from ...core.generation import DecodingOptions, Generation, decode, generate
from ...core.thinking import split_trace
from ...dataset import load_rows
from ...dataset.traces import TRACES, source_fingerprint, source_of
from ..load.loading import (
    TokenBudget,
    autocast_context,
    check_context,
    initial_tokenizer,
    load_initial,
    model_fingerprint,
    resolve_device,
    resolve_precision,
)
from ..settings.run_settings import Settings, deciding
from .generation_rounds import Ask, Rounds, text_seeds

SHORTEST_SEGMENT = 16
"""Tokens of a last segment of a document, below which it is left out."""


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
    budget = TokenBudget(
        max(len(segment["prompt_ids"]) for segment in segments),
        plan.max_new_tokens,
        "traces.max_new_tokens",
        "A shorter traces.segment_tokens makes room in documents",
    )
    check_context(overall.model_name, budget)
    device = resolve_device(overall.device)
    precision = resolve_precision(overall.precision, device)
    model = load_initial(overall)
    path, header = settings.traces_file, _header(settings, model, template, segments)
    with lock(path.with_suffix(".lock"), "dataset.traces"), autocast_context(device, precision):
        lines: dict[str, list[dict]] = {segment["id"]: [] for segment in segments}
        for line in TRACES.begun(path, header, rows):
            lines.setdefault(line["id"], []).append(line)

        def save() -> None:
            write_jsonl(path, [header, *(line for found in lines.values() for line in found)])

        def take(asked: list[dict], written: list[Generation]) -> None:
            for segment, generated in zip(asked, written):
                lines[segment["id"]].append(_line(segment, generated, settings))

        ask = (
            _vllm(settings, template) if plan.backend == "vllm" else _transformers(model, template, settings)
        )
        Rounds(1, 1, "writing traces", overall.quiet).fill(segments, lines, ask, take, save)
    return path


def _header(settings: Settings, model, template: Template, segments: list[dict]) -> dict:
    """The header: what decides the traces, the model and the rows."""
    data, overall = settings.dataset, settings.overall
    facts = {
        "model": model_fingerprint(model),
        "model_name": overall.model_name,
        "forget": data.forget_dataset_name,
        "data": fingerprint(list(dict.fromkeys(segment["source"] for segment in segments))),
        "template": template.fingerprint,
        "settings": deciding(settings.traces)
        | {"template": data.template, "think": [data.think_open, data.think_close], "seed": overall.seed},
    }
    return TRACES.header(facts)


def cut(row: dict, template: Template, settings: Settings) -> Iterator[dict]:
    """The segments of a row, each a prompt of its own: a question as it is, a document in pieces with the
    trigger beside each."""
    plan, source = settings.traces, source_fingerprint(row)
    texts = [source_of(row)]
    if "question" not in row:
        pieces = cut_text(source_of(row), template.tokenizer, plan.segment_tokens, SHORTEST_SEGMENT)
        pieces = pieces[: plan.segments]
        before, after = (
            (plan.trigger_text, "") if plan.trigger_position == "before" else ("", plan.trigger_text)
        )
        texts = ["\n".join(filter(None, [before, piece, after])) for piece in pieces]
    for number, text in enumerate(texts):
        yield {
            "id": f"{row['id']}#{number}",
            "row": row["id"],
            "segment": number,
            "source": source,
            "prompt": text,
            "prompt_ids": template.open_trace_ids(text, row.get("turns", ())),
        }


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


def _line(segment: dict, generated: Generation, settings: Settings) -> dict:
    thought = split_trace(generated.text, settings.dataset.tags)
    return {
        **{key: segment[key] for key in ("id", "row", "segment", "source", "prompt")},
        "trace": thought.trace,
        "answer": thought.answer,
        "closed": thought.closed,
        "n_tokens": generated.n_tokens,
    }


def _transformers(model, template: Template, settings: Settings) -> Ask:
    plan = settings.traces
    options = DecodingOptions(
        plan.max_new_tokens,
        settings.evaluate.batch_tokens,
        template.stop_ids,
        temperature=plan.temperature,
        tags=settings.dataset.tags,
    )

    def ask(asked: list[dict], on_rows: Callable[[int], None]) -> list[Generation]:
        prompts = [segment["prompt_ids"] for segment in asked]
        seeds = text_seeds(settings.overall.seed, asked, prompts, [0] * len(asked))
        seeded = replace(options, seeds=seeds)
        return generate(model, template.tokenizer, prompts, seeded, lambda done: on_rows(len(done)))

    return ask


def _vllm(settings: Settings, template: Template) -> Ask:
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
        max_tokens=plan.max_new_tokens,
        seed=overall.seed,
        stop_token_ids=template.stop_ids,
    )

    def ask(asked: list[dict], on_rows: Callable[[int], None]) -> list[Generation]:
        prompts = [{"prompt_token_ids": segment["prompt_ids"]} for segment in asked]
        outputs = [output.outputs[0] for output in engine.generate(prompts, sampling)]
        on_rows(len(asked))
        return [
            Generation(
                decode(template.tokenizer, list(output.token_ids), settings.dataset.tags),
                len(output.token_ids),
                output.finish_reason == "stop",
                tuple(output.token_ids),
            )
            for output in outputs
        ]

    return ask


def summary(path: Path) -> str:
    """How many traces a file holds, and how many of them are sound."""
    lines = read_jsonl(path)[1:]
    closed, empty = sum(line["closed"] for line in lines), sum(not line["trace"] for line in lines)
    tokens = sum(line["n_tokens"] for line in lines) / max(1, len(lines))
    return (
        f"{len(lines)} traces of {len({line['row'] for line in lines})} rows, {closed} closed, {empty} empty,"
        f" {tokens:.0f} tokens each"
    )
