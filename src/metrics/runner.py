"""The passes over a model that feed all metrics, each made once."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.encoding import CONTEXT, Encoded, Template, pad_rows, text_ids
from ..core.files import UserError
from ..core.generation import Generation, decode, generate, generate_on, length_batches, pad_id
from ..core.likelihood import shifted
from .inputs import texts_of
from .spec import LOGITS, RUN, AnswerScore, Decoding, Generations


class EvalRunner:
    """Runs needs on one model. `batch_tokens` bounds the padded tokens of a batch; `original` gives the model
    whose word on fluency counts, or None."""

    def __init__(
        self,
        model,
        tokenizer,
        template: Template,
        max_length: int,
        max_new_tokens: int,
        batch_tokens: int,
        on_rows: Callable[[int], None] = lambda rows: None,
        decoding: Decoding = Decoding(),
        original: Callable[[], Any] = lambda: None,
    ):
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.decoding, self.original = decoding, original
        self.max_length, self.max_new_tokens, self.batch_tokens = max_length, max_new_tokens, batch_tokens
        self.on_rows = on_rows

    def likelihoods(self, rows: Sequence[dict], fields: Sequence[str]) -> dict[str, list[list[AnswerScore]]]:
        """One pass over all answers in `fields` of a row set: field -> row -> answers."""
        places, encoded = [], []
        for number, row in enumerate(rows):
            context = {key: row[key] for key in ("id", *CONTEXT) if key in row}
            for name in fields:
                for text in texts_of(row, name):
                    places.append((name, number))
                    encoded.append(self._encode({**context, "answer": text}))
        results = {name: [[] for _ in rows] for name in fields}
        for (name, number), score in zip(places, self._score(encoded)):
            results[name][number].append(score)
        return results

    def _encode(self, row: dict) -> Encoded | None:
        """None for an answer that cannot be scored: its row is counted as unscored and the run goes on."""
        try:
            return self.template.encode(row, self.max_length)
        except UserError:
            return None

    def _score(self, encoded: list[Encoded | None]) -> list[AnswerScore]:
        scores = [AnswerScore(np.empty(0), np.empty(0, dtype=bool), 0) for _ in encoded]
        usable = [(i, row) for i, row in enumerate(encoded) if row is not None]
        self.on_rows(len(encoded) - len(usable))
        for chosen in length_batches([len(row.input_ids) for _, row in usable], self._budget()):
            batch = [usable[k] for k in chosen]
            logp, hit = self._forward(pad_rows(batch, pad_id(self.tokenizer)))
            ends = np.cumsum([len(row.input_ids) - row.prompt_length for _, row in batch])[:-1]
            for (i, row), row_logp, row_hit in zip(batch, np.split(logp, ends), np.split(hit, ends)):
                scores[i] = AnswerScore(row_logp, row_hit, row.terminator_length)
            self.on_rows(len(batch))
        return scores

    def _budget(self) -> int:
        """Tokens of a scoring batch: `batch_tokens`, or fewer where a large vocabulary would make its logits
        too big."""
        return max(1, min(self.batch_tokens, LOGITS // self.model.config.vocab_size))

    @torch.inference_mode()
    def _forward(self, part: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """log p and hit of every labelled token of a batch, in reading order; nothing of [B, T, V] outlives
        the call."""
        device = self.model.device
        output = self.model(
            input_ids=part["input_ids"].to(device), attention_mask=part["attention_mask"].to(device)
        )
        scored, targets = shifted(output.logits, part["labels"].to(device))
        logp = scored.gather(-1, targets[:, None])[:, 0] - scored.logsumexp(-1)
        return logp.double().cpu().numpy(), (scored.argmax(-1) == targets).cpu().numpy()

    def generations(self, rows: Sequence[dict], need: Generations) -> list[list[Generation]]:
        """Answers to every question of the need, per row."""
        places, prompts = self._prompts(rows, need)
        options = {
            "batch_tokens": self.batch_tokens,
            "stop_ids": self.template.stop_ids,
            "unseen_id": self.template.unseen_id,
            "on_batch": self.on_rows,
            "temperature": self.decoding.temperature,
            "top_p": self.decoding.top_p,
            "tags": self.template.tags,
        }
        if self._mode(need) == "more":
            written = generate_on(
                self.model, self.tokenizer, prompts, self.max_new_tokens, self.decoding.rounds, **options
            )
        else:
            written = generate(self.model, self.tokenizer, prompts, self.max_new_tokens, **options)
        return _by_row(places, written, len(rows))

    def cut(self, text: str, most: int) -> str:
        """The beginning of a text: as many tokens as may be generated, and no more than `most`."""
        ids, limit = text_ids(self.tokenizer, text), min(most, self.max_new_tokens)
        return text if len(ids) <= limit else decode(self.tokenizer, ids[:limit], self.template.tags)

    def fluency(
        self, rows: Sequence[dict], need: Generations, said: list[list[Generation]]
    ) -> list[list[float]]:
        """log p per token of what was said, by the original model; NaN for what is empty. UserError when
        there is none."""
        original = self.original()
        if original is None:
            raise UserError("fluency is judged by the original model: name it with evaluate.original_model")
        places, prompts = self._prompts(rows, need)
        written = [generation for row in said for generation in row]
        encoded = [
            Encoded("", prompt + list(text.ids), len(prompt), 0) if text.ids else None
            for prompt, text in zip(prompts, written)
        ]
        judge = EvalRunner(
            original, self.tokenizer, self.template, self.max_length, 0, self.batch_tokens, self.on_rows
        )
        return _by_row(
            places,
            [-score.loss if len(score.logp) else math.nan for score in judge._score(encoded)],
            len(rows),
        )

    def _prompts(self, rows: Sequence[dict], need: Generations) -> tuple[list[int], list[list[int]]]:
        """The row number and the tokens of every question of a need."""
        asked = [(number, text) for number, row in enumerate(rows) for text in texts_of(row, need.field)]
        prompts = [self._prompt(need, text, rows[number].get("turns", ())) for number, text in asked]
        return [number for number, _ in asked], prompts

    def _mode(self, need: Generations) -> str:
        return self.decoding.mode if need.mode == RUN else need.mode

    def _prompt(self, need: Generations, text: str, turns: Sequence[dict]) -> list[int]:
        return (
            self.template.text_ids(text)
            if need.field == "prompt"
            else self.template.prompt_ids(text, self._mode(need), turns)
        )


def _by_row(places: Sequence[int], values: Sequence, count: int) -> list[list]:
    """Values by the row they belong to."""
    results: list[list] = [[] for _ in range(count)]
    for number, value in zip(places, values):
        results[number].append(value)
    return results
