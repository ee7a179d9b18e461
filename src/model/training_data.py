"""Which rows a run trains on: the forget rows, and what goes with them."""

import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass

import torch

from ..core.encoding import CONTEXT, Encoded, Template
from ..core.files import UserError, fingerprint
from ..core.generation import pad_id
from ..core.project import PROJECT
from ..dataset import load_rows, parse_name
from ..dataset.alternates import DEFAULT as REFUSALS
from ..dataset.alternates import mismatch, read_alternates, read_refusals, refuse
from ..dataset.hub_tables import check_reachable
from ..dataset.neutral_texts import check_neutral_text
from ..dataset.paraphrases import read_paraphrases
from ..dataset.traces import TraceOptions, own_traces, read_traces
from ..unlearn.gradients.agreement import always_passes
from .settings.run_settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RequestedParts:
    """The training parts that a run needs, and the forget rows they are about."""

    parts: Set[str]
    alternates: str
    """What the answers of part `alternate` are: `refusals`, `generated` or `mismatched`."""
    forget: list[dict]
    rest: list[dict]
    """Rows of the forget set that were not chosen."""


def training_texts(settings: Settings, wanted: RequestedParts) -> dict[str, list[dict]]:
    """The rows of every training part but traces and paraphrases."""
    data, parts, forget = settings.dataset, wanted.parts, wanted.forget
    texts = {"forget": with_reasoning(forget, data.forget_reasoning, "dataset.forget_reasoning")}
    if "retain" in parts or wanted.alternates == "mismatched":
        texts["retain"] = retain_texts(settings, wanted)
    if wanted.alternates == "refusals":
        texts["alternate"] = refuse(forget, read_refusals(data.refusals), data.dataset_seed)
    elif wanted.alternates == "mismatched":
        texts["alternate"] = mismatch(forget, texts["retain"], data.dataset_seed)
    elif wanted.alternates == "generated":
        texts["alternate"] = read_alternates(data.alternates_file, forget)
    if "retain_alternate" in parts:
        texts["retain_alternate"] = refuse(texts["retain"], read_refusals(data.refusals), data.dataset_seed)
    if "environment" in parts:
        texts["environment"] = load_rows(data.environment_dataset_name, data.environment_folder)
    if "cot" in parts:
        texts["cot"] = rationales(settings)
    return texts


def check_network(settings: Settings, parts: Set[str]) -> None:
    """UserError at once where rows are to come from the network and cannot, before anything is loaded."""
    data = settings.dataset
    named = [(data.forget_dataset_name, data.folder, "data_dir")]
    if "retain" in parts and not data.self_retain:
        named.append((data.retain_dataset_name, data.folder, "data_dir"))
    if "environment" in parts:
        named.append((data.environment_dataset_name, data.environment_folder, "environment_data_dir"))
    if "cot" in parts:
        named.append((data.cot_dataset_name, data.cot_folder, "cot_data_dir"))
    for name, folder, key in named:
        try:
            check_reachable(name, folder)
        except UserError as error:
            raise UserError(str(error).replace("dataset.data_dir", f"dataset.{key}")) from None
    if settings.evaluate.neutral_text:
        check_neutral_text(settings.evaluate.neutral_text, data.folder)


def retain_texts(settings: Settings, wanted: RequestedParts) -> list[dict]:
    """The rows to keep; UserError or a warning where they are not apart from the forget rows."""
    data, parts = settings.dataset, wanted.parts
    retain = (
        wanted.rest
        if data.self_retain
        else load_rows(data.retain_dataset_name, data.folder, data.column_names)
    )
    if not retain:
        raise UserError("dataset.self_retain: forget_ratio leaves no forget row to retain; lower it")
    if "retain" in parts and parts & {"forget", "alternate"}:
        retain_name = None if data.self_retain else data.retain_dataset_name
        check_disjoint(wanted.forget, retain, data.forget_dataset_name, retain_name)
    elif "retain" in parts:
        warn_of_untrained(settings, wanted.forget, retain)
    return with_reasoning(retain, data.retain_reasoning, "dataset.retain_reasoning")


def check_disjoint(forget: list[dict], retain: list[dict], forget_name: str, retain_name: str | None) -> None:
    """A warning when forget rows are retain rows too, which unlearns and teaches them at once; UserError when
    all are. No `retain_name`: the retain rows are other rows of the forget set (dataset.self_retain)."""
    key, where = "dataset.retain_dataset_name", f"rows of {retain_name}"
    remedy = "choose retain rows without them"
    if retain_name is None:
        key, where = "dataset.self_retain", "among those that dataset.self_retain retains"
        remedy = "the set holds them twice"
    kept = {_content(row) for row in retain}
    both = sum(_content(row) in kept for row in forget)
    if both == len(forget):
        raise UserError(
            f"{key}: all {both} forget rows of {forget_name} are {where} too: they would be forgotten and"
            f" trained at once; {remedy}"
        )
    if both:
        log.warning(
            "%d of %d forget rows (%s) are %s too: they are forgotten and trained at once",
            both,
            len(forget),
            forget_name,
            where,
        )


def warn_of_untrained(settings: Settings, forget: list[dict], retain: list[dict]) -> None:
    """A warning when a model is fine-tuned on the user's own rows and the rows to forget are not among them:
    meant for a retain model, not for a target."""
    data, name = settings.dataset, settings.dataset.forget_dataset_name
    if not (parse_name(data.retain_dataset_name)[0].own and parse_name(name)[0].own):
        return
    learned = {_content(row) for row in retain}
    absent = sum(_content(row) not in learned for row in forget)
    if absent:
        log.warning(
            "%d of %d rows to forget (%s) are not in %s, which the model is fine-tuned on. That is right for"
            " a retain model. A target must know them: set dataset.retain_dataset_name to all rows%s",
            absent,
            len(forget),
            name,
            data.retain_dataset_name,
            " (Folder_full)" if name.startswith("Folder_") else "",
        )


def _content(row: dict) -> tuple:
    """What a row says, whatever its id."""
    return tuple(str(row.get(key)) for key in (*CONTEXT, "answer", "text"))


def training_rows(settings: Settings, template: Template, wanted: RequestedParts) -> dict[str, list]:
    """The tokenised rows of every training part; of `traces` and `paraphrases` a list for each forget row."""
    data = settings.dataset
    texts = training_texts(settings, wanted)
    rows: dict[str, list] = {}
    for part in sorted(wanted.parts - {"traces", "paraphrases"}):
        if part == "cot":
            context = None if data.cot_context else ""
            rows[part] = [
                _checked_length(
                    template.encode_trace(row, data.cot_tokens, context), data.max_length, "cot_tokens"
                )
                for row in texts[part]
            ]
        else:
            rows[part] = [
                piece
                for row in texts[part]
                for piece in template.pieces(row, data.max_length, data.long_text)
            ]
    if "traces" in wanted.parts:
        rows["traces"] = encoded_traces(settings, template, wanted.forget)
    if "paraphrases" in wanted.parts:
        rows["paraphrases"] = encoded_paraphrases(settings, template, wanted.forget)
    return rows


def with_reasoning(rows: list[dict], mode: str, key: str) -> list[dict]:
    """Rows that bring their reasoning (`cot`), with it as their trace (`on`), as they are (`off`), or one
    after the other (`both`)."""
    if mode == "off":
        return rows
    if not any("cot" in row for row in rows):
        raise UserError(f"{key} {mode}: no row of the data set brings its reasoning ('cot')")
    if mode == "on":
        return [_with_trace(row) if "cot" in row else row for row in rows]
    return [
        variant
        for row in rows
        for variant in ([row, _with_trace(row, "-thought")] if "cot" in row else [row])
    ]


def _with_trace(row: dict, mark: str = "") -> dict:
    """A row as question, trace and answer."""
    return {key: value for key, value in row.items() if key != "text"} | {
        "id": f"{row['id']}{mark}",
        "trace": row["cot"],
    }


def rationales(settings: Settings) -> list[dict]:
    """The reasoning that is kept, as traces."""
    data = settings.dataset
    rows = [row for row in load_rows(data.cot_dataset_name, data.cot_folder) if row.get("cot")]
    if not rows:
        raise UserError(
            f"dataset.cot_dataset_name: no row of {data.cot_dataset_name} brings its reasoning ('cot')"
        )
    return [_context(row) | {"id": row["id"], "trace": row["cot"]} for row in rows]


def encoded_traces(settings: Settings, template: Template, forget: Sequence[dict]) -> list[list[Encoded]]:
    """The reasoning traces of each forget row: from `dataset.traces`, or the reasoning that the rows bring
    along."""
    data = settings.dataset
    if _bring_traces(settings, forget):
        found = own_traces(forget)
    else:
        if not settings.traces_file.is_file():
            raise UserError(
                f"dataset.traces: the rows of {data.forget_dataset_name} do not bring their reasoning and"
                f" there is no file {settings.traces_file}; src/exec/make_traces.py with the same config"
                " writes it"
            )
        options = TraceOptions(
            data.trace_unclosed == "keep", data.tags, settings.overall.model_name, data.forget_ratio == 1
        )
        found = read_traces(settings.traces_file, forget, options)
    context = None if data.trace_context else settings.traces.trigger_text
    return [
        [
            _checked_length(
                template.encode_trace(trace | {"turns": row.get("turns", ())}, data.trace_tokens, context),
                data.max_length,
                "trace_tokens",
            )
            for trace in traces
        ]
        for row, traces in zip(forget, found)
    ]


def _bring_traces(settings: Settings, forget: Sequence[dict]) -> bool:
    return settings.dataset.traces is None and all(row.get("cot") for row in forget)


def part_sources(settings: Settings, wanted: RequestedParts) -> dict[str, str]:
    """Training part -> the data set or file that its rows come from."""
    data = settings.dataset
    refusals = data.refusals or str(REFUSALS.relative_to(PROJECT))
    retain = f"other rows of {data.forget_dataset_name}" if data.self_retain else data.retain_dataset_name
    alternates = {
        "refusals": refusals,
        "generated": str(data.alternates_file),
        "mismatched": f"answers of {retain}",
    }
    own_traces = "traces" in wanted.parts and _bring_traces(settings, wanted.forget)
    sources = {
        "forget": data.forget_dataset_name,
        "retain": retain,
        "alternate": alternates.get(wanted.alternates, ""),
        "retain_alternate": refusals,
        "paraphrases": str(data.paraphrases_file),
        "traces": "the rows' own reasoning" if own_traces else str(settings.traces_file),
        "cot": data.cot_dataset_name,
        "environment": data.environment_dataset_name,
    }
    return {part: source for part, source in sources.items() if part in wanted.parts and source}


def units(row: dict, template: Template, max_length: int, long_text: str) -> list[dict]:
    """What of a forget row is said in other words: its answer, or each piece of a document that is trained
    on."""
    if "text" not in row:
        return [row]
    read = lambda ids: template.tokenizer.decode(ids, skip_special_tokens=True)
    pieces = template.pieces(row, max_length, long_text)
    return [
        {"id": piece.id, "text": read(piece.input_ids[piece.prompt_length if number else 0 :])}
        for number, piece in enumerate(pieces)
    ]


def encoded_paraphrases(
    settings: Settings, template: Template, forget: Sequence[dict]
) -> list[list[Encoded]]:
    """The forget answers in other words, for each forget row that is trained on a list."""
    data = settings.dataset
    plan = next(kind for kind in settings.components.values() if "paraphrases" in kind.parts)
    said = [unit for row in forget for unit in units(row, template, data.max_length, data.long_text)]
    found = read_paraphrases(data.paraphrases_file, said, plan.K, plan.choice == "shortest")
    warn_of_few_paraphrases(plan, [len(texts) for texts in found])
    encode = lambda unit, k, text: template.encode(reworded(unit, k, text), data.max_length)
    encoded = [[encode(unit, k, text) for k, text in enumerate(texts)] for unit, texts in zip(said, found)]
    if plan.positions == "answer":
        return encoded
    return [
        [_all_tokens_scored(row, plan.pad_to, pad_id(template.tokenizer)) for row in rows] for rows in encoded
    ]


def _context(row: dict) -> dict:
    """What stands before a row's answer."""
    return {key: row[key] for key in CONTEXT if key in row}


def reworded(unit: dict, number: int, text: str) -> dict:
    """A unit with other words for its answer, or for all of it."""
    return {"id": f"{unit['id']}~{number}", **_context(unit), "text" if "text" in unit else "answer": text}


def warn_of_few_paraphrases(plan, counts: Sequence[int]) -> None:
    """A remark when rows have fewer paraphrases than are asked for, or so few that no coordinate of theirs
    can fail to agree."""
    fewer = [count for count in counts if count < plan.K]
    if fewer:
        log.warning(
            "unlearn.GAO.K is %d, but %d of %d forget rows have fewer paraphrases (at least %d): all they"
            " have are used",
            plan.K,
            len(fewer),
            len(counts),
            min(fewer),
        )
    few = [count for count in fewer if count >= 2 and always_passes(plan.tau, count)]
    if few and plan.agreement != "none":
        log.warning(
            "unlearn.GAO: %d of %d forget rows have an odd number of paraphrases with 1 / number > tau %g"
            " (%d: the signs sum to at least 1 > %.2g), so that every coordinate passes there",
            len(few),
            len(counts),
            plan.tau,
            few[0],
            plan.tau * few[0],
        )


def _all_tokens_scored(row: Encoded, length: int, pad: int) -> Encoded:
    """A row whose prompt counts too, and whose padding to `length` does, which attention never reaches."""
    if length and len(row.input_ids) > length:
        raise UserError(
            f"row {row.id!r} has {len(row.input_ids)} tokens, more than unlearn.GAO.pad_to {length}; raise it"
        )
    return Encoded(
        row.id, row.input_ids + [pad] * (length - len(row.input_ids)), 0, 0, row.unseen_id, len(row.input_ids)
    )


def _checked_length(row: Encoded, longest: int, key: str) -> Encoded:
    """The row; UserError when it is too long with what stands before it."""
    if len(row.input_ids) > longest:
        raise UserError(
            f"row {row.id!r}: the reasoning and what stands before it have {len(row.input_ids)} tokens, more"
            f" than dataset.max_length {longest}; lower dataset.{key} or raise that"
        )
    return row


def part_fingerprint(rows: Sequence) -> str:
    """A hash of the tokenised rows of a part, in which the template shows; of the rows nothing can be read
    from it."""
    flat = [row for one in rows for row in (one if isinstance(one, list) else [one])]
    return fingerprint([(row.id, row.fingerprint) for row in flat])


def choose_forget_rows(rows: Sequence[dict], ratio: float, seed: int) -> tuple[list[dict], list[dict]]:
    """The rows to forget, a seeded choice in their old order, and the rest. `ratio` is a share up to 1, a
    count above."""
    count = min(len(rows), max(1, round(ratio * len(rows)) if ratio <= 1 else int(ratio)))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = set(order[:count])
    return [row for i, row in enumerate(rows) if i in chosen], [
        row for i, row in enumerate(rows) if i not in chosen
    ]
