"""Model passes that feed all metrics, each made once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.encoding import CONTEXT, Encoded, Template, pad_rows, text_ids
from ..core.files import UserError, fingerprint
from ..core.generation import (
    DecodingOptions,
    Generation,
    decode,
    generate,
    generate_with_rounds,
    length_batches,
    pad_id,
)
from ..core.likelihood import IGNORE, wide
from ..core.sparse_logits import kept_logits
from .inputs import texts_of
from .spec import MAX_LOGITS, RUN, AnswerScore, Decoding, Generations, Samples, Sampling


@dataclass(frozen=True)
class EvalOptions:
    """Limits and decoding of an evaluation.

    Args:
        max_length: Most tokens of a scored row; a longer one is unscored.
        max_new_tokens: Budget of a generated text, in tokens.
        batch_tokens: Most padded tokens of a batch.
        decoding: Mode and sampling of generated texts.
        sampling: Number and sampling of the answers of `Samples`.
    """

    max_length: int
    max_new_tokens: int
    batch_tokens: int
    decoding: Decoding = Decoding()
    sampling: Sampling = Sampling()


class EvalRunner:
    """Scores and generates what metrics need, with one model.

    Args:
        model: Causal language model, in eval mode.
        template: How rows become tokens; its tokenizer is the model's.
        options: Limits and decoding.
        on_rows: Called with the number of texts that a batch finished.
        original: Returns the model that fluency is measured with, or None.
    """

    def __init__(
        self,
        model,
        template: Template,
        options: EvalOptions,
        on_rows: Callable[[int], None] = lambda rows: None,
        original: Callable[[], Any] = lambda: None,
    ):
        self.model, self.template, self.tokenizer = model, template, template.tokenizer
        self.options, self.on_rows, self.original = options, on_rows, original

    def likelihoods(
        self,
        rows: Sequence[dict],
        fields: Sequence[str],
        moments: bool = False,
        prefix: Sequence[dict] = (),
    ) -> dict[str, list[list[AnswerScore]]]:
        """Score all answers in `fields` of a row set in one teacher-forced pass.

        Args:
            rows: The row set.
            fields: Fields that hold an answer or a list of them.
            moments: Whether scores have mean and variance of log p.
            prefix: Rows whose questions and answers stand before each question.

        Returns:
            Field -> row -> score of each answer, in the order of the rows.
        """
        before = self._prefix_ids(prefix)
        places, encoded = [], []
        for number, row in enumerate(rows):
            context = {key: row[key] for key in ("id", *CONTEXT) if key in row}
            for name in fields:
                for text in texts_of(row, name):
                    places.append((name, number))
                    encoded.append(self._encode({**context, "answer": text}, before))
        results = {name: [[] for _ in rows] for name in fields}
        for (name, number), score in zip(places, self._score(encoded, moments)):
            results[name][number].append(score)
        return results

    def _prefix_ids(self, rows: Sequence[dict]) -> list[int]:
        """Token ids of whole rows, one after the other."""
        encoded = [
            self._encode({key: row[key] for key in ("id", *CONTEXT, "answer") if key in row}) for row in rows
        ]
        return [token for row in encoded if row is not None for token in row.input_ids]

    def _encode(self, row: dict, before: Sequence[int] = ()) -> Encoded | None:
        """None for an answer that cannot be scored: its row counts as unscored and the run continues."""
        try:
            found = self.template.encode(row, self.options.max_length)
        except UserError:
            return None
        if not before:
            return found
        ids = [*before, *found.input_ids]
        if len(ids) > self.options.max_length:
            return None
        return replace(found, input_ids=ids, prompt_length=found.prompt_length + len(before))

    def gradient_norms(self, rows: Sequence[dict], name: str) -> list[list[float]]:
        """L2 norm of d(mean NLL of the answer's tokens, terminator left out) / d(all weights), in eval mode.

        Returns:
            Row -> norm of each of its answers in field `name`; NaN for one that cannot be scored.
        """
        weights = list(self.model.parameters())
        trained = [weight.requires_grad for weight in weights]
        found: list[list[float]] = []
        try:
            for weight in weights:
                weight.requires_grad_(True)
            for row in rows:
                context = {key: row[key] for key in ("id", *CONTEXT) if key in row}
                encoded = [self._encode({**context, "answer": text}) for text in texts_of(row, name)]
                found.append([self._gradient_norm(one, weights) for one in encoded])
                self.on_rows(len(encoded))
        finally:
            # The next training must find frozen what it froze.
            for weight, flag in zip(weights, trained):
                weight.requires_grad_(flag)
        return found

    def _gradient_norm(self, row: Encoded | None, weights: Sequence[Tensor]) -> float:
        if row is None:
            return math.nan
        part = pad_rows([(0, row)], pad_id(self.tokenizer))
        scored, targets = self._scored_logits(part)
        kept = len(targets) - row.terminator_length
        if kept <= 0:
            return math.nan
        with torch.enable_grad():
            loss = torch.nn.functional.cross_entropy(scored[:kept], targets[:kept])
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        squares = [g.double().pow(2).sum() for g in gradients if g is not None]
        return torch.stack(squares).sum().sqrt().item()

    def _score(self, encoded: list[Encoded | None], moments: bool = False) -> list[AnswerScore]:
        scores = [AnswerScore(np.empty(0), np.empty(0, dtype=bool), 0) for _ in encoded]
        usable = [(i, row) for i, row in enumerate(encoded) if row is not None]
        self.on_rows(len(encoded) - len(usable))
        # A large vocabulary makes the logits too big before the batch has batch_tokens.
        budget = max(1, min(self.options.batch_tokens, MAX_LOGITS // self.model.config.vocab_size))
        for chosen in length_batches([len(row.input_ids) for _, row in usable], budget):
            batch = [usable[k] for k in chosen]
            found = self._forward(pad_rows(batch, pad_id(self.tokenizer)), moments)
            # The labelled tokens of all rows come in one list; each row takes its own stretch of it.
            ends = np.cumsum([len(row.input_ids) - row.prompt_length for _, row in batch])[:-1]
            for (i, row), *columns in zip(batch, *(np.split(column, ends) for column in found)):
                logp, hit, *rest = columns
                scores[i] = AnswerScore(logp, hit, row.terminator_length, *rest)
            self.on_rows(len(batch))
        return scores

    @torch.inference_mode()
    def _forward(self, part: dict[str, Tensor], moments: bool) -> list[np.ndarray]:
        """log p and hit of every labelled token of a batch, [N] in reading order, and with `moments` mean and
        variance of log p; no tensor of the vocabulary outlives the call."""
        scored, targets = self._scored_logits(part)
        # As log_softmax, without a second tensor of the size of the logits.
        total = scored.logsumexp(-1)
        logp = scored.gather(-1, targets[:, None])[:, 0] - total
        found = [logp.double(), scored.argmax(-1) == targets]
        if moments:
            every = scored - total[:, None]
            p = every.exp()
            mean = (p * every).sum(-1)
            # About the mean: E[x²] - mean² would lose the digits of a small variance.
            found += [mean.double(), (p * (every - mean[:, None]) ** 2).sum(-1).double()]
        return [column.cpu().numpy() for column in found]

    def _scored_logits(self, part: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits that predict the labelled tokens of a batch, [N, V] in reading order, and these tokens, [N].
        The language-model head runs where some row has a label: prompts take no memory for logits."""
        part = {name: tensor.to(self.model.device) for name, tensor in part.items()}
        targets = part["labels"][:, 1:]
        labelled = targets != IGNORE
        wanted = torch.nn.functional.pad(labelled, (0, 1))
        logits = kept_logits(self.model, part["input_ids"], part["attention_mask"], wanted)
        return wide(logits), targets[labelled]

    def generations(self, rows: Sequence[dict], need: Generations) -> list[list[Generation]]:
        """Generate an answer to every question of the need.

        Returns:
            Row -> answer to each of its questions, in the order of the rows.
        """
        places, prompts = self._prompts(rows, need)
        decoding = self.options.decoding
        options = replace(
            self._greedy(), temperature=decoding.temperature, top_p=decoding.top_p, rounds=decoding.rounds
        )
        run = generate_with_rounds if self._mode(need) == "more" else generate
        written = run(self.model, self.tokenizer, prompts, options, self.on_rows)
        return _by_row(places, written, len(rows))

    def samples(self, rows: Sequence[dict], need: Samples) -> list[list[Generation]]:
        """Sample answers to every question of the need, each with a seed of its own: they do not depend on
        batches, on the order of the rows or on the other rows.

        Returns:
            Row -> `Sampling.count` answers to each of its questions.

        Raises:
            UserError: No answers are to be sampled, or the model's logits are not finite.
        """
        sampling = self.options.sampling
        if not sampling.count:
            raise UserError("needs sampled answers: set evaluate.samples to their number per question (128)")
        asked = zip(*self._prompts(rows, Generations(need.rows, need.field)))
        wanted = [(place, prompt, number) for place, prompt in asked for number in range(sampling.count)]
        places, prompts = [place for place, _, _ in wanted], [prompt for _, prompt, _ in wanted]
        seeds = [
            int(fingerprint(sampling.seed, rows[place]["id"], prompt, number), 16)
            for place, prompt, number in wanted
        ]
        options = replace(self._greedy(), temperature=sampling.temperature, top_p=sampling.top_p, seeds=seeds)
        written = generate(self.model, self.tokenizer, prompts, options, self.on_rows)
        return _by_row(places, written, len(rows))

    def _greedy(self) -> DecodingOptions:
        """Budget and ends of every generated text."""
        return DecodingOptions(
            max_new_tokens=self.options.max_new_tokens,
            batch_tokens=self.options.batch_tokens,
            stop_ids=self.template.stop_ids,
            tags=self.template.tags,
            unseen_id=self.template.unseen_id,
        )

    def cut(self, text: str, most: int) -> str:
        """The beginning of a text: at most `most` tokens, and no more than may be generated."""
        ids, limit = text_ids(self.tokenizer, text), min(most, self.options.max_new_tokens)
        return text if len(ids) <= limit else decode(self.tokenizer, ids[:limit], self.template.tags)

    def fluency(
        self, rows: Sequence[dict], need: Generations, written: list[list[Generation]]
    ) -> list[list[float]]:
        """Score generated texts with the original model.

        Args:
            rows: Rows of the need.
            need: Questions that the texts answer.
            written: Row -> generated texts, as `generations` returns them.

        Returns:
            Row -> mean log p per token of each text; NaN for an empty one.

        Raises:
            UserError: There is no original model.
        """
        original = self.original()
        if original is None:
            raise UserError("fluency is judged by the original model: name it with evaluate.original_model")
        places, prompts = self._prompts(rows, need)
        flat = [generation for row in written for generation in row]
        # The ids as generated: the text tokenised again could give others.
        encoded = [
            Encoded("", prompt + list(text.ids), len(prompt), 0) if text.ids else None
            for prompt, text in zip(prompts, flat)
        ]
        options = replace(self.options, max_new_tokens=0)
        scores = EvalRunner(original, self.template, options, self.on_rows)._score(encoded)
        values = [-score.loss if len(score.logp) else math.nan for score in scores]
        return _by_row(places, values, len(rows))

    def _prompts(self, rows: Sequence[dict], need: Generations) -> tuple[list[int], list[list[int]]]:
        """The row number and the token ids of every question of a need."""
        questions = [(number, text) for number, row in enumerate(rows) for text in texts_of(row, need.field)]
        prompts = [self._prompt(need, text, rows[number].get("turns", ())) for number, text in questions]
        return [number for number, _ in questions], prompts

    def _mode(self, need: Generations) -> str:
        return self.options.decoding.mode if need.mode == RUN else need.mode

    def _prompt(self, need: Generations, text: str, turns: Sequence[dict]) -> list[int]:
        if need.field == "prompt":
            return self.template.text_ids(text)
        return self.template.prompt_ids(text, self._mode(need), turns)


def _by_row(places: Sequence[int], values: Sequence, count: int) -> list[list]:
    """Values in one list per row; `places` holds the row number of each value."""
    results: list[list] = [[] for _ in range(count)]
    for number, value in zip(places, values):
        results[number].append(value)
    return results
