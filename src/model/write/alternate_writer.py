"""Alternate answers that a model writes to the forget questions, for AltPO (arXiv:2409.13474)."""

import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ...core.encoding import Template
from ...core.files import UserError, fingerprint, lock, write_jsonl
from ...core.generation import DecodingOptions, generate
from ...core.thinking import split_trace
from ...core.words import words
from ...dataset import load_rows
from ...dataset.alternates import ALTERNATES, require_questions
from ...metrics.verdicts import distinctive_words
from ..load.loading import (
    autocast_context,
    initial_tokenizer,
    load_initial,
    model_fingerprint,
    resolve_precision,
)
from ..settings.run_settings import Settings, deciding
from ..training_data import choose_forget_rows
from .generation_rounds import Ask, Rounds, text_seeds, turns
from .other_subjects import OtherSubjects


def write_alternates(settings: Settings) -> Path:
    """Write `generation.count` alternates for every forget row and return the file. What the file has already
    is kept, so an interrupted run goes on. UserError when the file was written by another model, for other
    rows or with other settings, and at the end when a row got too few in all attempts; what was written is
    kept.

    An alternate came to its end within the token budget, is no empty text, no repetition of the question or
    of the true answer, has not all of its facts, and comes once per row."""
    plan, data, overall = settings.generation, settings.dataset, settings.overall
    path = data.alternates_file
    if path.is_dir():
        raise UserError(f"dataset.alternates: {path} is a folder; name a file")
    every = load_rows(data.forget_dataset_name, data.folder, data.column_names)
    require_questions(every)
    rows, _ = choose_forget_rows(every, data.forget_ratio, data.dataset_seed)
    tokenizer = initial_tokenizer(overall)
    template = Template(tokenizer, data.template, data.tags)
    with lock(path.with_suffix(".lock"), "dataset.alternates"):
        model = load_initial(overall)
        header = _header(settings, model, template)
        lines = {line["id"]: line for line in ALTERNATES.begun(path, header, every)}
        found = {row["id"]: list(lines.get(row["id"], {}).get("alternates", ())) for row in rows}
        # Files of earlier versions do not say how many texts were tried.
        tried = Counter({i: lines.get(i, {}).get("tried", len(texts)) for i, texts in found.items()})

        def save() -> None:
            # Rows that dataset.forget_ratio leaves out keep what an earlier run wrote for them.
            current = lines | {row["id"]: _line(row, found[row["id"]], tried[row["id"]]) for row in rows}
            write_jsonl(path, [header, *(current[row["id"]] for row in every if row["id"] in current)])

        def take(asked: list[dict], texts: list[str | None]) -> None:
            for row, text in zip(asked, texts):
                tried[row["id"]] += 1
                _take(found[row["id"]], row, text)

        others = OtherSubjects([row["question"] for row in every]) if plan.subjects == "others" else None
        ask = _asking(settings, model, template, others, tried)
        rounds = Rounds(plan.count, plan.attempts, "writing alternates", overall.quiet)
        poor = rounds.fill(rows, found, ask, take, save)
    if poor:
        raise UserError(
            f"{len(poor)} of {len(rows)} rows have fewer than {plan.count} alternates after {plan.attempts}"
            f" rounds (first {poor[0]!r}); {path} keeps what there is. Raise generation.attempts and run it"
            " again, or write another file with a higher generation.temperature or max_new_tokens"
        )
    return path


def _header(settings: Settings, model, template: Template) -> dict:
    """The header: what decides the texts, the model and the rows."""
    data, overall = settings.dataset, settings.overall
    facts = {
        "model": model_fingerprint(model),
        "model_name": overall.model_name,
        "forget": data.forget_dataset_name,
        "template": template.fingerprint,
        "settings": _deciding(settings)
        | {"template": data.template, "think": [data.think_open, data.think_close], "seed": overall.seed},
    }
    return ALTERNATES.header(facts)


def _deciding(settings: Settings) -> dict:
    """The settings of the texts; files from before there was a choice of subjects have none."""
    found = deciding(settings.generation)
    return found if found["subjects"] != "same" else {k: v for k, v in found.items() if k != "subjects"}


def _line(row: dict, alternates: list[str], tried: int) -> dict:
    return {
        "id": row["id"],
        "source": ALTERNATES.source(row),
        "question": row["question"],
        "alternates": alternates,
        "tried": tried,
    }


def _asking(
    settings: Settings, model, template: Template, others: OtherSubjects | None, tried: Mapping[str, int]
) -> Ask:
    """Let the model of the run write; `tried`: row id -> how many texts were written for it before."""
    plan, tags, seed = settings.generation, settings.dataset.tags, settings.overall.seed
    precision = resolve_precision(settings.overall.precision, model.device.type)

    def ask(asked: list[dict], on_rows) -> list[str | None]:
        numbers = turns(asked, tried)
        draws = [random.Random(fingerprint(seed, row["id"], turn)) for row, turn in zip(asked, numbers)]
        renamed = [others.ask(row["question"], draw) if others else None for row, draw in zip(asked, draws)]
        prompts = [
            template.prompt_ids(
                plan.prompt.replace("\\n", "\n").replace(
                    "{question}", one.question if one else row["question"]
                )
            )
            for row, one in zip(asked, renamed)
        ]
        options = DecodingOptions(
            plan.max_new_tokens,
            settings.evaluate.batch_tokens,
            template.stop_ids,
            temperature=plan.temperature,
            tags=tags,
            seeds=text_seeds(seed, asked, prompts, numbers),
        )
        with autocast_context(model.device, precision):
            texts = generate(model, template.tokenizer, prompts, options, lambda done: on_rows(len(done)))
        answers = [split_trace(text.text, tags, "direct").answer if text.ended else None for text in texts]
        return [one.back(text) if one and text else text for one, text in zip(renamed, answers)]

    return ask


def _take(kept: list[str], row: dict, text: str | None) -> None:
    """Keep a text if it is an alternate."""
    plain_words = lambda words: " ".join(words.lower().split())
    taken = {plain_words(known) for known in (row["question"], row["answer"], "", *kept)}
    if text is None or plain_words(text) in taken:
        return
    facts = set(distinctive_words(row["question"], row["answer"]))
    if not facts or not facts <= set(words(text)):
        kept.append(text.strip())
