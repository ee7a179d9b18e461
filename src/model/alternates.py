"""Alternate answers that a model writes to the forget questions, for AltPO (arXiv:2409.13474)."""

from pathlib import Path

import torch

from core.encoding import Template
from core.files import UserError, fingerprint, write_jsonl
from core.generation import generate
from core.thinking import split_thought
from dataset import load_rows
from dataset.alternates import read_lines
from model.loading import arithmetic, choose_device, choose_precision, initial_tokenizer, load_initial
from model.settings import Settings
from model.writing import write_in_rounds


def write_alternates(settings: Settings) -> Path:
    """Write `generation.count` alternates for every forget row and return the file. What the file has already
    is kept, so an interrupted run goes on; a row that gets too few in all attempts is an error at the end,
    when everything else is kept.

    An alternate came to its end within the token budget, is no empty text, no repetition of the question or
    of the true answer, and comes once per row."""
    plan, data = settings.generation, settings.dataset
    rows = load_rows(data.forget_dataset_name, data.folder, data.column_names)
    path = data.alternates_file
    found = _read(path, rows)
    tokenizer = initial_tokenizer(settings.overall)
    template = Template(tokenizer, data.template, data.tags)
    device = choose_device(settings.overall.device)
    precision = choose_precision(settings.overall.precision, device)
    overall = settings.overall
    model = load_initial(overall)

    def ask(attempt: int, asked: list[dict], on_rows) -> list[str | None]:
        torch.manual_seed(int(fingerprint(settings.overall.seed, attempt, asked[0]["id"]), 16) % 2**63)
        prompts = [
            template.prompt_ids(plan.prompt.replace("\\n", "\n").replace("{question}", row["question"]))
            for row in asked
        ]
        with arithmetic(device, precision):
            texts = generate(
                model,
                tokenizer,
                prompts,
                plan.max_new_tokens,
                settings.evaluate.batch_tokens,
                template.stop_ids,
                on_batch=on_rows,
                temperature=plan.temperature,
                tags=data.tags,
            )
        return [
            split_thought(text.text, data.tags, "direct").answer if text.ended else None for text in texts
        ]

    def take(asked: list[dict], texts: list[str | None]) -> None:
        for row, text in zip(asked, texts):
            if text is not None:
                _take(found[row["id"]], row, text)

    save = lambda: write_jsonl(
        path, [{"id": row["id"], "question": row["question"], "alternates": found[row["id"]]} for row in rows]
    )
    poor = write_in_rounds(
        rows, found, plan.count, plan.attempts, ask, take, save, "writing alternates", overall.quiet
    )
    if poor:
        raise UserError(
            f"{len(poor)} of {len(rows)} rows have fewer than {plan.count} alternates after {plan.attempts}"
            f" rounds (first {poor[0]!r}); {path} keeps what there is. Raise generation.temperature,"
            " max_new_tokens or attempts and run it again"
        )
    return path


def _read(path: Path, rows: list[dict]) -> dict[str, list[str]]:
    """What an earlier run has written for these rows."""
    earlier = {line["id"]: line for line in read_lines(path)} if path.is_file() else {}
    strangers = set(earlier) - {row["id"] for row in rows}
    if strangers or any(
        earlier[row["id"]]["question"] != row["question"] for row in rows if row["id"] in earlier
    ):
        raise UserError(
            f"dataset.alternates: {path} holds alternates of another data set; choose another file"
        )
    return {row["id"]: list(earlier[row["id"]]["alternates"]) if row["id"] in earlier else [] for row in rows}


def _take(kept: list[str], row: dict, text: str) -> None:
    """Keep a text if it is an alternate."""
    plain = lambda words: " ".join(words.lower().split())
    taken = {plain(known) for known in (row["question"], row["answer"], "", *kept)}
    if plain(text) not in taken:
        kept.append(text.strip())
