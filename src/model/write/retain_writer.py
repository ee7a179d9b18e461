"""A retain set for rows that come without one: questions that the model itself answers.

Near the topic are questions of the same kind that the model writes, and where it writes too few the forget
questions about other subjects (their names and numbers replaced); far from it are general questions that come
with the project. The model answers both, and what it answers is what is to stay:
the rows hold its own texts, right or wrong. Nothing of the forget rows may be among them.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ...core.encoding import Template
from ...core.files import fingerprint, read_text
from ...core.project import DATA
from ...core.words import words
from ...metrics.health import loops
from ...metrics.verdicts import COMMON, DISTINCTIVE_SHARE, distinctive_words
from ..run.known_rows import answer_probabilities, own_answers
from ..settings.run_settings import Settings
from .other_subjects import OtherSubjects, proper_names
from .question_writer import similar_questions

QUESTIONS = DATA / "retain_questions.txt"
SURE = 0.4
"""Probability per token of its own answer from which a model is sure of it."""
SHORTEST = 1
"""Words of an answer."""
FEWEST = 8
"""Rows below which a retain set is none."""
PER_ROW = 3
LEAST, MOST = 40, 200
"""Questions that are asked for a retain set: so many for each forget row, within these limits."""

Secrets = Sequence[tuple[list[str], list[str]]]
"""Of each row to forget the names in its question, and the distinctive words of its answer."""


@dataclass
class RetainSet:
    """Rows that a model answered, and why others were left out.

    Args:
        rows: question, answer, and `kind` near or far.
        dropped: reason -> number of questions.
    """

    rows: list[dict] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def make_retain_set(settings: Settings, model, template: Template, forget: Sequence[dict]) -> RetainSet:
    """Questions near and far, answered by the model and filtered.

    Args:
        settings: of the run.
        model: the initial model.
        template: its prompts.
        forget: the rows to forget.
    """
    found, secrets = RetainSet(), [_secret(row) for row in forget]
    asked = [row["question"] for row in forget]
    fresh = []
    for kind, question in _candidates(settings, model, template, asked, secrets):
        if question in asked or _touches(question, secrets):
            found.dropped["about what is to be forgotten"] += 1
        else:
            fresh.append((kind, question))
    texts = _answers(settings, model, template, [question for _, question in fresh])
    for (kind, question), text in zip(fresh, texts):
        if fault := _fault(question, text, secrets):
            found.dropped[fault] += 1
        else:
            found.rows.append({"question": question, "answer": text, "kind": kind})
    return _sure(settings, model, template, found)


def _candidates(
    settings: Settings, model, template: Template, asked: Sequence[str], secrets: Secrets
) -> list[tuple[str, str]]:
    """Kind and text of the questions for the model."""
    draw = random.Random(settings.overall.seed)
    half = min(MOST, max(LEAST, PER_ROW * len(asked))) // 2
    written = similar_questions(settings, model, template, asked, 2 * half)
    near = [text for text in written if not _touches(text, secrets)]
    if len(near) < FEWEST:
        others = OtherSubjects(asked)
        renamed = [others.ask(asked[k % len(asked)], draw) for k in range(4 * half)]
        near += [one.question for one in renamed if one]
    found = [("near", text) for text in dict.fromkeys(near)][:half]
    far = read_text(QUESTIONS).splitlines()
    draw.shuffle(far)
    return found + [("far", text) for text in far[: _far_count(len(found))]]


def _far_count(near: int) -> int:
    """As many general questions as near ones, which would be lost among more of them."""
    return max(near, LEAST - near)


def _sure(settings: Settings, model, template: Template, found: RetainSet) -> RetainSet:
    """Without the answers that the model is unsure of: they change with any training."""
    rows = [{**row, "id": str(number)} for number, row in enumerate(found.rows)]
    probs = answer_probabilities(settings, model, template, rows)
    kept = [row for row, prob in zip(found.rows, probs) if prob >= SURE]
    if len(kept) < len(rows):
        found.dropped["that the model is unsure of"] += len(rows) - len(kept)
    near, far = ([row for row in kept if row["kind"] == kind] for kind in ("near", "far"))
    return RetainSet(near + far[: _far_count(len(near))], found.dropped)


def _answers(settings: Settings, model, template: Template, questions: Sequence[str]) -> list[str | None]:
    """The model's greedy answers; None for one that did not end within evaluate.max_new_tokens."""
    prompts = [template.prompt_ids(question) for question in questions]
    torch.manual_seed(int(fingerprint(settings.overall.seed, "retain"), 16) % 2**63)
    found = own_answers(settings, model, template, prompts, "answering questions for the retain set")
    return [_ended(text.strip(), ended) for text, ended in found]


def _ended(text: str, ended: bool) -> str | None:
    """The text, or its whole sentences where it was cut."""
    if ended:
        return text
    whole = re.match(r"(?s).*[.!?。！？।](?=\s|$)", text)
    return whole[0] if whole else None


def _secret(row: dict) -> tuple[list[str], list[str]]:
    """Names in a row's question, and the distinctive words of its answer."""
    return proper_names(row["question"]), distinctive_words(row["question"], row["answer"])


def _touches(text: str, secrets: Secrets) -> bool:
    return any(name.lower() in text.lower() for names, _ in secrets for name in names)


def _fault(question: str, text: str | None, secrets: Secrets) -> str | None:
    """Why a question and its answer cannot be kept."""
    if text is None:
        return "without an end"
    if len(words(text)) < SHORTEST:
        return "empty"
    if loops(text):
        return "degenerate"
    if _touches(text, secrets):
        return "about what is to be forgotten"
    said = set(words(text)) - COMMON - set(words(question))
    for _, distinctive in secrets:
        if distinctive and sum(word in said for word in distinctive) / len(distinctive) > DISTINCTIVE_SHARE:
            return "states a fact to be forgotten"
    return None
