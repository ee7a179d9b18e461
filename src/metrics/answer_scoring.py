"""Teacher-forced scores of encoded answers, with each prompt read once for all its answers.

Answers that share a prompt (a row's true, paraphrased and wrong answers, the options of a question) are
scored in two passes: one over the prompts without their last token, whose keys and values are kept, and one
over that last token and the answers, behind copies of them. The head runs on answer tokens alone.
"""

import copy
import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.batching import length_batches, run_batches
from ..core.encoding import Encoded, pad_rows
from ..core.generation import keeps_keys_and_values
from ..core.likelihood import wide
from ..core.sparse_logits import labelled_logits
from .spec import MAX_LOGITS, AnswerScore

UNSCORED = AnswerScore(np.empty(0), np.empty(0, dtype=bool), 0)
PIECE = 2**21
"""Most logits of a piece of a batch."""
PROMPT_PART = 2
"""Keys and values are kept of prompts that have this part of a batch's tokens."""
Scored = Mapping[int, AnswerScore]
"""Place of an answer -> its score."""


@dataclass(frozen=True)
class Prefixes:
    """Prompts without their last token, padded on the left, as the model keeps them.

    Args:
        cache: Keys and values, [P, ..., W, ...].
        mask: Attention mask, [P, W].
    """

    cache: Any
    mask: Tensor

    def chosen(self, lines: Tensor) -> "Prefixes":
        """Copies of some of the prompts, [B]; a prompt may be chosen several times."""
        # The layers are copied so that those of `self` keep all prompts.
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(lines)
        return Prefixes(cache, self.mask[lines])


class AnswerScorer:
    """Scores answers with one model.

    Args:
        model: Causal language model, in eval mode.
        pad: Id of padding.
        batch_tokens: Most padded tokens of a batch.
        moments: Whether scores have mean and variance of log p.
    """

    def __init__(self, model, pad: int, batch_tokens: int, moments: bool = False):
        self.model, self.pad, self.moments = model, pad, moments
        # A large vocabulary makes the logits too big before the batch has batch_tokens.
        self.budget = max(1, min(batch_tokens, MAX_LOGITS // model.config.vocab_size))

    def score(self, rows: Sequence[Encoded], on_scored: Callable[[Scored], None]) -> None:
        """Score all rows; `on_scored` is called with the scores of each batch, by place in `rows`. Without a
        prompt the first token is scored by nothing and left out."""
        rows = [replace(row, prompt_length=max(1, row.prompt_length)) for row in rows]
        prompts = defaultdict(list)
        for place, row in enumerate(rows):
            prompts[tuple(row.input_ids[: row.prompt_length])].append(place)
        shares = shares_prompts(self.model)
        together = {
            ids: places for ids, places in prompts.items() if shares and len(ids) > 1 and len(places) > 1
        }
        paired = {place for places in together.values() for place in places}
        alone = [place for place in range(len(rows)) if place not in paired]
        self._score_alone(rows, alone, on_scored)
        self._score_together(rows, together, on_scored)

    def _score_alone(self, rows: Sequence[Encoded], places: list[int], on_scored) -> None:
        def run(chosen: list[int]) -> None:
            batch = [places[k] for k in chosen]
            part = pad_rows([(place, rows[place]) for place in batch], self.pad)
            part = {name: tensor.to(self.model.device) for name, tensor in part.items()}
            with torch.no_grad():
                found = labelled_logits(self.model, part)
            on_scored(self._scores(rows, batch, *found))

        run_batches(length_batches([len(rows[place].input_ids) for place in places], self.budget), run)

    def _score_together(
        self, rows: Sequence[Encoded], prompts: Mapping[tuple[int, ...], list[int]], on_scored
    ) -> None:
        groups = list(prompts.values())

        def run(chosen: list[int]) -> None:
            firsts = [rows[groups[k][0]] for k in chosen]
            prefixes = self._read_prefixes(firsts)
            width = prefixes.mask.shape[1]
            places = [place for k in chosen for place in groups[k]]
            lines = [line for line, k in enumerate(chosen) for _ in groups[k]]

            def run_answers(some: list[int]) -> None:
                batch = [places[k] for k in some]
                behind = prefixes.chosen(torch.tensor([lines[k] for k in some], device=self.model.device))
                found = self._answers_behind(behind, [rows[place] for place in batch])
                on_scored(self._scores(rows, batch, *found))

            lengths = [width + len(rows[place].input_ids) - rows[place].prompt_length for place in places]
            run_batches(length_batches(lengths, self.budget), run_answers)

        kept_tokens = max(1, self.budget // PROMPT_PART)
        run_batches(length_batches([len(ids) for ids in prompts], kept_tokens), run)

    @torch.no_grad()
    def _read_prefixes(self, rows: Sequence[Encoded]) -> Prefixes:
        """Keys and values of the rows' prompts without their last token."""
        ids = [row.input_ids[: row.prompt_length - 1] for row in rows]
        width = max(map(len, ids))
        pads = [width - len(row) for row in ids]
        mask = [[0] * pad + row.attention[: width - pad] for pad, row in zip(pads, rows)]
        inputs = {
            "input_ids": torch.tensor([[self.pad] * pad + row for pad, row in zip(pads, ids)]),
            "attention_mask": torch.tensor(mask),
            "position_ids": torch.tensor([[0] * pad + list(range(width - pad)) for pad in pads]),
        }
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        found = self.model(**inputs, use_cache=True, **last_logits_only(self.model))
        return Prefixes(found.past_key_values, inputs["attention_mask"])

    @torch.no_grad()
    def _answers_behind(self, prefixes: Prefixes, rows: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
        """Logits that predict the answers' tokens, [N, V] in reading order, and these tokens, [N]."""
        device, starts = self.model.device, [row.prompt_length - 1 for row in rows]
        lengths = [len(row.input_ids) - row.prompt_length for row in rows]
        width = max(lengths)
        padded = lambda ids: ids + [self.pad] * (width - len(ids))
        ids = torch.tensor([padded(row.input_ids[start:-1]) for row, start in zip(rows, starts)])
        targets = torch.tensor([padded(row.input_ids[start + 1 :]) for row, start in zip(rows, starts)])
        # Padding on the right comes after every answer token: the causal mask keeps it from all of them.
        seen = torch.tensor([(row.attention[s:-1] + [1] * width)[:width] for row, s in zip(rows, starts)])
        logits = self.model(
            input_ids=ids.to(device),
            attention_mask=torch.cat([prefixes.mask, seen.to(device)], dim=1),
            position_ids=(torch.tensor(starts)[:, None] + torch.arange(width)).to(device),
            past_key_values=prefixes.cache,
            use_cache=True,
        ).logits
        labelled = (torch.arange(width) < torch.tensor(lengths)[:, None]).to(device)
        return logits[labelled], targets.to(device)[labelled]

    def _scores(self, rows: Sequence[Encoded], batch: list[int], logits: Tensor, targets: Tensor) -> Scored:
        """Scores of a batch; its rows take their own stretches of the list of all labelled tokens."""
        columns = self._columns(logits, targets)
        ends = np.cumsum([len(rows[place].input_ids) - rows[place].prompt_length for place in batch])[:-1]
        stretches = zip(*(np.split(column, ends) for column in columns))
        return {
            place: AnswerScore(logp, hit, rows[place].terminator_length, *moments)
            for place, (logp, hit, *moments) in zip(batch, stretches)
        }

    @torch.no_grad()
    def _columns(self, logits: Tensor, targets: Tensor) -> list[np.ndarray]:
        """log p and hit of every labelled token, [N], and where asked for mean and variance of log p; no
        tensor of the vocabulary outlives the call."""
        # In pieces: the tensors in between are as large as the logits.
        size = max(1, PIECE // logits.shape[-1])
        pieces = [
            self._piece(wide(some), labels) for some, labels in zip(logits.split(size), targets.split(size))
        ]
        return [torch.cat(column).cpu().numpy() for column in zip(*pieces)]

    def _piece(self, scored: Tensor, targets: Tensor) -> list[Tensor]:
        # As log_softmax, without a second tensor of the size of the logits.
        total = scored.logsumexp(-1)
        logp = scored.gather(-1, targets[:, None])[:, 0] - total
        found = [logp.double(), scored.argmax(-1) == targets]
        if self.moments:
            every = scored - total[:, None]
            p = every.exp()
            mean = (p * every).sum(-1)
            # About the mean: E[x²] - mean² would lose the digits of a small variance.
            found += [mean.double(), (p * (every - mean[:, None]) ** 2).sum(-1).double()]
        return found


def shares_prompts(model) -> bool:
    """Whether a prompt's keys and values can be read once and used for several answers: the model keeps them,
    and takes the positions of what follows."""
    return keeps_keys_and_values(model) and "position_ids" in _forward_parameters(model)


def last_logits_only(model) -> dict[str, int]:
    """Keyword that makes a model compute the logits of the last position alone, where it has one."""
    return {"logits_to_keep": 1} if "logits_to_keep" in _forward_parameters(model) else {}


def _forward_parameters(model) -> Mapping[str, Any]:
    # The wrapper of adapters takes anything and hands it on.
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inspect.signature(plain.forward).parameters
