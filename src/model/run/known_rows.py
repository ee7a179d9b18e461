"""Which rows a model knows: what it never learned cannot be forgotten, and figures of it look perfect."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...core.batching import length_batches
from ...core.encoding import Template, pad_rows
from ...core.generation import DecodingOptions, generate
from ...core.likelihood import IGNORE
from ...core.thinking import split_trace
from ...metrics.spec import Case
from ...metrics.verdicts import states
from ...unlearn.scoring import answer_row_nll
from ..load.loading import autocast_context, resolve_precision
from ..settings.run_settings import Settings
from .progress import progress

CHUNK = 32
"""Questions that are answered at once: the progress counts those that are done."""
LIKELY = 0.5
"""Probability per token from which an answer counts as known."""


@dataclass(frozen=True)
class Knowledge:
    """What a model knows of a row.

    Args:
        id: id of the row.
        prob: probability per token of its answer.
        states: whether the model's own answer states it.
    """

    id: str
    prob: float
    states: bool

    @property
    def known(self) -> bool:
        return self.states or self.prob >= LIKELY


def known_rows(settings: Settings, model, template: Template, rows: Sequence[dict]) -> list[Knowledge]:
    """Ask the model each question, and score each answer.

    Args:
        settings: of the run.
        model: the model.
        template: its prompts.
        rows: rows with id, question and answer.
    """
    precision = resolve_precision(settings.overall.precision, model.device.type)
    with autocast_context(model.device, precision):
        probs = answer_probabilities(settings, model, template, rows)
    prompts = [template.prompt_ids(row["question"], turns=row.get("turns", ())) for row in rows]
    found = own_answers(settings, model, template, prompts, "looking whether the model knows the rows")
    answers = [answer for answer, _ in found]
    return [
        Knowledge(
            row["id"], prob, states(answer, Case(row["id"], row["question"], row["answer"], answer, None))
        )
        for row, prob, answer in zip(rows, probs, answers)
    ]


def own_answers(
    settings: Settings, model, template: Template, prompts: Sequence[list[int]], title: str
) -> list[tuple[str, bool]]:
    """The model's greedy answer to each prompt, without its trace, and whether it ended within
    evaluate.max_new_tokens. `title` is that of the progress."""
    tags, limit = settings.dataset.tags, settings.evaluate.max_new_tokens
    options = DecodingOptions(limit, settings.evaluate.batch_tokens, template.stop_ids, tags=tags)
    precision = resolve_precision(settings.overall.precision, model.device.type)
    with (
        autocast_context(model.device, precision),
        progress(title, settings.overall.quiet, len(prompts)) as advance,
    ):
        texts = [
            text
            for at in range(0, len(prompts), CHUNK)
            for text in generate(
                model, template.tokenizer, prompts[at : at + CHUNK], options, lambda done: advance(len(done))
            )
        ]
    return [(split_trace(text.text, tags, "direct").answer or "", text.ended) for text in texts]


@torch.inference_mode()
def answer_probabilities(settings: Settings, model, template: Template, rows: Sequence[dict]) -> list[float]:
    """exp(-mean NLL per token) of each answer, without the tokens that end it: a text that was cut has an
    end that no model expects."""
    encoded = [template.encode(row, settings.dataset.max_length) for row in rows]
    found = [0.0] * len(rows)
    for batch in length_batches([len(row.input_ids) for row in encoded], settings.evaluate.batch_tokens):
        part = pad_rows([(k, encoded[k]) for k in batch], template.tokenizer.pad_token_id or 0)
        for place, k in enumerate(batch):
            end = len(encoded[k].input_ids)
            part["labels"][place, end - encoded[k].terminator_length : end] = IGNORE
        part = {name: tensor.to(model.device) for name, tensor in part.items()}
        nll = answer_row_nll(model, part) / (part["labels"][:, 1:] != IGNORE).sum(1)
        for k, value in zip(batch, torch.exp(-nll).tolist()):
            found[k] = value
    return found
