"""Which rows a run trains on: the forget rows, and what goes with them."""

from collections.abc import Sequence, Set

import torch

from core.encoding import Encoded, Template
from core.files import UserError
from dataset import load_rows
from dataset.alternates import mismatch, read_alternates, read_refusals, refuse
from dataset.traces import own_traces, read_traces
from model.settings import Settings


def training_texts(settings: Settings, parts: Set[str], alternates: str, forget: list[dict], rest: list[dict]) -> dict[str, list[dict]]:
    """The rows of every training part but traces. `rest` are the forget rows that were not chosen."""
    data = settings.dataset
    texts = {"forget": with_reasoning(forget, data.forget_reasoning, "dataset.forget_reasoning")}
    if "retain" in parts or alternates == "mismatched":
        retain = rest if data.self_retain else load_rows(data.retain_dataset_name, data.folder)
        if not retain:
            raise UserError("dataset.self_retain: forget_ratio leaves no forget row to retain; lower it")
        texts["retain"] = with_reasoning(retain, data.retain_reasoning, "dataset.retain_reasoning")
    if alternates == "refusals":
        texts["alternate"] = refuse(forget, read_refusals(data.refusals), data.dataset_seed)
    elif alternates == "mismatched":
        texts["alternate"] = mismatch(forget, texts["retain"], data.dataset_seed)
    elif alternates == "generated":
        texts["alternate"] = read_alternates(data.alternates_file, forget)
    if "retain_alternate" in parts:
        texts["retain_alternate"] = refuse(texts["retain"], read_refusals(data.refusals), data.dataset_seed)
    if "environment" in parts:
        texts["environment"] = load_rows(data.environment_dataset_name, data.environment_folder)
    if "cot" in parts:
        texts["cot"] = rationales(settings)
    return texts


def training_rows(settings: Settings, template: Template, parts: Set[str], alternates: str, forget: list[dict],
                  rest: list[dict]) -> dict[str, list]:
    """The tokenised rows of every training part; of `traces` a list for each forget row."""
    data = settings.dataset
    texts = training_texts(settings, parts, alternates, forget, rest)
    rows: dict[str, list] = {}
    for part in sorted(parts - {"traces"}):
        if part == "cot":
            rows[part] = [_fitting(template.thought(row, data.cot_tokens, None if data.cot_context else ""), data.max_length, "cot_tokens")
                          for row in texts[part]]
        else:
            rows[part] = [piece for row in texts[part] for piece in template.pieces(row, data.max_length, data.long_text)]
    if "traces" in parts:
        rows["traces"] = encoded_traces(settings, template, forget)
    return rows


def with_reasoning(rows: list[dict], mode: str, key: str) -> list[dict]:
    """Rows that bring their reasoning (`cot`), with it as their trace (`on`), as they are (`off`), or one after the other
    (`both`)."""
    if mode == "off":
        return rows
    if not any("cot" in row for row in rows):
        raise UserError(f"{key} {mode}: no row of the data set brings its reasoning ('cot')")
    if mode == "on":
        return [_thought_out(row) if "cot" in row else row for row in rows]
    return [variant for row in rows for variant in ([row, _thought_out(row, "-thought")] if "cot" in row else [row])]


def _thought_out(row: dict, mark: str = "") -> dict:
    """A row as question, trace and answer."""
    return {key: value for key, value in row.items() if key != "text"} | {"id": f"{row['id']}{mark}", "trace": row["cot"]}


def rationales(settings: Settings) -> list[dict]:
    """The reasoning that is kept, as traces."""
    data = settings.dataset
    rows = [row for row in load_rows(data.cot_dataset_name, data.cot_folder) if row.get("cot")]
    if not rows:
        raise UserError(f"dataset.cot_dataset_name: no row of {data.cot_dataset_name} brings its reasoning ('cot')")
    return [{"id": row["id"], "question": row["question"], "trace": row["cot"]} for row in rows]


def encoded_traces(settings: Settings, template: Template, forget: Sequence[dict]) -> list[list[Encoded]]:
    """What is thought about each forget row: from `dataset.traces`, or the reasoning that the rows bring along."""
    data = settings.dataset
    if data.traces is None and all(row.get("cot") for row in forget):
        found = own_traces(forget)
    else:
        if not settings.traces_file.is_file():
            raise UserError(f"dataset.traces: the rows of {data.forget_dataset_name} do not bring their reasoning and there is no file "
                            f"{settings.traces_file}; src/exec/make_traces.py with the same config writes it")
        found = read_traces(settings.traces_file, forget, data.trace_unclosed == "keep", data.tags, settings.overall.model_name,
                            data.forget_ratio == 1)
    context = None if data.trace_context else settings.traces.trigger_text
    return [[_fitting(template.thought(trace, data.trace_tokens, context), data.max_length, "trace_tokens") for trace in traces]
            for traces in found]


def _fitting(row: Encoded, longest: int, key: str) -> Encoded:
    """The row; UserError when it is too long with what stands before it."""
    if len(row.input_ids) > longest:
        raise UserError(f"row {row.id!r}: the reasoning and what stands before it have {len(row.input_ids)} tokens, more than "
                        f"dataset.max_length {longest}; lower dataset.{key} or raise that")
    return row


def choose_forget_rows(rows: Sequence[dict], ratio: float, seed: int) -> tuple[list[dict], list[dict]]:
    """The rows to forget, a seeded choice in their old order, and the rest. `ratio` is a share up to 1, a count above."""
    count = min(len(rows), max(1, round(ratio * len(rows)) if ratio <= 1 else int(ratio)))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = set(order[:count])
    return [row for i, row in enumerate(rows) if i in chosen], [row for i, row in enumerate(rows) if i not in chosen]
