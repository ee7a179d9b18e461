"""Model passes that feed all metrics, each made once."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..core.batching import clear_memory_errors
from ..core.encoding import CONTEXT, Encoded, Template, pad_rows, text_ids
from ..core.files import UserError, fingerprint
from ..core.generation import (
    DecodingOptions,
    Generation,
    OnTexts,
    decode,
    generate,
    generate_with_rounds,
    pad_id,
)
from ..core.likelihood import wide
from ..core.parity_templates import OPEN_UNLEARNING
from ..core.sharding import is_sharded
from ..core.sharing import Share
from ..core.sparse_logits import labelled_logits
from .answer_scoring import UNSCORED, AnswerScorer
from .inputs import texts_of
from .pass_cache import PassCache
from .spec import CPU_SCORE_TOKENS, RUN, AnswerScore, Decoding, Generations, Samples, Sampling


@dataclass(frozen=True)
class EvalOptions:
    """Limits and decoding of an evaluation.

    Args:
        max_length: Most tokens of a scored row; a longer one is unscored.
        max_new_tokens: Budget of a generated text, in tokens.
        batch_tokens: Most padded tokens of a batch of generated texts.
        decoding: Mode and sampling of generated texts.
        score_tokens: Most padded tokens of a batch of scored answers.
        share: The part of this process in the rows.
        convention: One of `core.parity_templates.CONVENTIONS`: whose definitions are computed where a metric
            has several.
        sampling: Number and sampling of the answers of `Samples`.
    """

    max_length: int
    max_new_tokens: int
    batch_tokens: int
    decoding: Decoding = Decoding()
    score_tokens: int = CPU_SCORE_TOKENS
    share: Share = Share()
    convention: str = "none"
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class Asked:
    """A text to be generated.

    Args:
        prompt: Token ids of its prompt.
        seed: Seed of its random numbers; None for greedy decoding.
    """

    prompt: list[int]
    seed: int | None = None


@dataclass(frozen=True)
class RunnerHooks:
    """What a runner calls.

    Args:
        on_rows: Called with the number of texts that a batch finished.
        original: Returns the model that fluency is measured with, or None.
        cache_of: Returns what is kept of a model's passes.
    """

    on_rows: Callable[[int], None] = lambda rows: None
    original: Callable[[], Any] = lambda: None
    cache_of: Callable[[Any], PassCache] = lambda model: PassCache()


class EvalRunner:
    """Scores and generates what metrics need, with one model.

    Args:
        model: Causal language model, in eval mode.
        template: How rows become tokens; its tokenizer is the model's.
        options: Limits and decoding.
        hooks: Progress, original model and cache.
    """

    def __init__(self, model, template: Template, options: EvalOptions, hooks: RunnerHooks = RunnerHooks()):
        self.model, self.template, self.tokenizer = model, template, template.tokenizer
        self.options, self.hooks, self.on_rows = options, hooks, hooks.on_rows
        self.cache = hooks.cache_of(model)

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
            for name in fields:
                for text in texts_of(row, name):
                    places.append((name, number))
                    encoded.append(self._encode(_asked(row, name, text), before))
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
            found = self.template.pieces(row, self.options.max_length, "first")[0]
        except UserError:
            return None
        if not before:
            return found
        ids = [*before, *found.input_ids]
        if len(ids) > self.options.max_length:
            return None
        return replace(found, input_ids=ids, prompt_length=found.prompt_length + len(before))

    def documents(self, rows: Sequence[dict]) -> list[list[AnswerScore]]:
        """Score the whole of every document in `text`, in pieces of at most `EvalOptions.max_length` tokens.

        Returns:
            Row -> score of each piece, in reading order.
        """
        pieces = [self.template.pieces(row, self.options.max_length, "pieces") for row in rows]
        places = [number for number, some in enumerate(pieces) for _ in some]
        # Documents are counted when all are done: their pieces are not texts of their own.
        silent = EvalRunner(
            self.model, self.template, self.options, replace(self.hooks, on_rows=lambda rows: None)
        )
        whole = [piece for some in pieces for piece in some]
        scored = [piece if len(piece.input_ids) > max(1, piece.prompt_length) else None for piece in whole]
        scores = silent._score(scored)
        self.on_rows(len(rows) // self.options.share.size)
        return _by_row(places, scores, len(rows))

    def token_spans(self, row: dict, name: str, texts: Sequence[str]) -> list[tuple[int, int] | None]:
        """Find texts among the tokens of a row's answer.

        Args:
            row: The row.
            name: Field of its answer.
            texts: Parts of the answer.

        Returns:
            For each text the first token that holds a part of it and the one behind the last, counted from
            the answer's first token; None for a text that is not in the answer, or an answer that cannot be
            scored.
        """
        encoded = self._encode(_asked(row, name, texts_of(row, name)[0]))
        if encoded is None:
            return [None for _ in texts]
        ids = encoded.input_ids[encoded.prompt_length : len(encoded.input_ids) - encoded.terminator_length]
        read = lambda count: decode(self.tokenizer, ids[:count], self.template.tags, strip=False)
        ends, whole = [len(read(count)) for count in range(1, len(ids) + 1)], read(len(ids))
        found: list[tuple[int, int] | None] = []
        for text in texts:
            start = whole.find(text)
            held = [
                place
                for place, (begin, end) in enumerate(zip([0, *ends], ends))
                if begin < start + len(text) and end > start
            ]
            found.append((held[0], held[-1] + 1) if start >= 0 and held else None)
        return found

    def gradient_norms(self, rows: Sequence[dict], name: str) -> list[list[float]]:
        """L2 norm of d(mean NLL of the answer's tokens, terminator left out) / d(all weights), in eval mode;
        in OpenUnlearning's convention the mean of the norms of all weight tensors.

        Returns:
            Row -> norm of each of its answers in field `name`; NaN for one that cannot be scored.

        Raises:
            UserError: Processes share the weights.
        """
        if is_sharded(self.model):
            raise UserError(
                "a gradient for each row cannot be had of sharded weights (FSDP2, ZeRO-3), which sum"
                " gradients over processes; measure the saved model by evaluate_model.py with overall.engine"
                " ddp"
            )
        texts = [texts_of(row, name) for row in rows]
        encoded = [
            self._encode(_asked(row, name, text)) for row, answers in zip(rows, texts) for text in answers
        ]
        norms = iter(self.options.share.spread(encoded, self._own_norms))
        return [[next(norms) for _ in answers] for answers in texts]

    def _own_norms(self, encoded: Sequence[Encoded | None]) -> list[float]:
        weights = list(self.model.parameters())
        trained = [weight.requires_grad for weight in weights]
        try:
            for weight in weights:
                weight.requires_grad_(True)
            return [self._kept_norm(row, weights) for row in encoded]
        finally:
            # The next training must find frozen what it froze.
            for weight, flag in zip(weights, trained):
                weight.requires_grad_(flag)

    def _kept_norm(self, row: Encoded | None, weights: Sequence[Tensor]) -> float:
        self.on_rows(1)
        if row is None:
            return math.nan
        asked = row.input_ids, row.prompt_length, row.attention, self.options.convention
        key = fingerprint("gradient norm", asked)
        norm = self.cache.number(key)
        if norm is None:
            with clear_memory_errors("leave out the attack gradnorm, or use a device with more memory"):
                norm = self._gradient_norm(row, weights)
            self.cache.add_numbers({key: norm})
        return norm

    def _gradient_norm(self, row: Encoded, weights: Sequence[Tensor]) -> float:
        part = pad_rows([(0, row)], pad_id(self.tokenizer))
        part = {name: tensor.to(self.model.device) for name, tensor in part.items()}
        logits, targets = labelled_logits(self.model, part)
        kept = len(targets) - row.terminator_length
        if kept <= 0:
            return math.nan
        with torch.enable_grad():
            loss = torch.nn.functional.cross_entropy(wide(logits[:kept]), targets[:kept])
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        norms = torch.stack([g.double().norm() for g in gradients if g is not None])
        return (norms.mean() if self.options.convention == OPEN_UNLEARNING else norms.norm()).item()

    def _score(self, encoded: Sequence[Encoded | None], moments: bool = False) -> list[AnswerScore]:
        usable = [row for row in encoded if row is not None]
        self.on_rows(len(encoded) - len(usable))
        scored = iter(self.options.share.spread(usable, lambda rows: self._own_scores(rows, moments)))
        return [UNSCORED if row is None else next(scored) for row in encoded]

    def _own_scores(self, rows: Sequence[Encoded], moments: bool) -> list[AnswerScore]:
        """Scores of this process's rows: those that are kept, and new ones of the others."""
        keys = [fingerprint("score", row.input_ids, row.prompt_length, row.attention) for row in rows]
        found = {key: score for key in keys if (score := self.cache.score(key, moments))}
        wanted = {key: row for key, row in zip(keys, rows) if key not in found}
        self.on_rows(len(rows) - len(wanted))
        names = list(wanted)

        def keep(scores: Mapping[int, AnswerScore]) -> None:
            fresh = {names[place]: score for place, score in scores.items()}
            found.update(fresh)
            self.cache.add_scores(fresh)
            self.on_rows(len(fresh))

        scorer = AnswerScorer(self.model, pad_id(self.tokenizer), self.options.score_tokens, moments)
        with clear_memory_errors("lower dataset.max_length, or use a device with more memory"):
            scorer.score(list(wanted.values()), keep)
        return [found[key] for key in keys]

    def generations(self, rows: Sequence[dict], need: Generations) -> list[list[Generation]]:
        """Generate an answer to every question of the need.

        Returns:
            Row -> answer to each of its questions, in the order of the rows.
        """
        decoding = self.options.decoding
        options = replace(
            self._greedy(),
            max_new_tokens=min(need.most or self.options.max_new_tokens, self.options.max_new_tokens),
            stop_texts=need.stops,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            rounds=decoding.rounds,
        )
        places, prompts = self._prompts(rows, need)
        seeds = [self._seed(rows[place], prompt) for place, prompt in zip(places, prompts)]
        asked = [
            Asked(prompt, seed if decoding.temperature else None) for prompt, seed in zip(prompts, seeds)
        ]
        own = lambda some: self._own_generations(some, options, self._mode(need) == "more")
        return _by_row(places, self.options.share.spread(asked, own), len(rows))

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
        options = replace(self._greedy(), temperature=sampling.temperature, top_p=sampling.top_p)
        places, asked = [], []
        for place, prompt in zip(*self._prompts(rows, Generations(need.rows, need.field))):
            for number in range(sampling.count):
                places.append(place)
                asked.append(Asked(prompt, self._seed(rows[place], prompt, number)))
        own = lambda some: self._own_generations(some, options, rounds=False)
        return _by_row(places, self.options.share.spread(asked, own), len(rows))

    def _seed(self, row: dict, prompt: list[int], number: int = 0) -> int:
        """Seed of one sampled answer."""
        return int(fingerprint(self.options.sampling.seed, row["id"], prompt, number), 16)

    def _greedy(self) -> DecodingOptions:
        """Budget and ends of every generated text."""
        return DecodingOptions(
            max_new_tokens=self.options.max_new_tokens,
            batch_tokens=self.options.batch_tokens,
            stop_ids=self.template.stop_ids,
            tags=self.template.tags,
            unseen_id=self.template.unseen_id,
        )

    def _own_generations(
        self, asked: Sequence[Asked], options: DecodingOptions, rounds: bool
    ) -> list[Generation]:
        """Texts of this process's prompts: those that are kept, and new ones of the others."""
        if rounds and options.temperature:
            # Rounds take torch's own random numbers: equal prompts give other texts.
            return self._generate(asked, options, rounds, lambda texts: None)
        ends = list(options.stop_ids), list(options.stop_texts)
        budget = options.max_new_tokens, ends, options.unseen_id, options.rounds * rounds
        sampled = (options.temperature, options.top_p) if options.temperature else ()
        keys = [fingerprint("text", text.prompt, text.seed, budget, sampled) for text in asked]
        found = {key: text for key in keys if (text := self.cache.generation(key))}
        wanted = {key: text for key, text in zip(keys, asked) if key not in found}
        turns = options.rounds + 1 if rounds else 1
        self.on_rows(turns * (len(asked) - len(wanted)))
        names = list(wanted)

        def keep(texts: Mapping[int, Generation]) -> None:
            fresh = {names[place]: text for place, text in texts.items()}
            found.update(fresh)
            self.cache.add_generations(fresh)

        self._generate(list(wanted.values()), options, rounds, keep)
        return [found[key] for key in keys]

    def _generate(
        self, asked: Sequence[Asked], options: DecodingOptions, rounds: bool, keep: OnTexts
    ) -> list[Generation]:
        """Generate, and hand over to `keep` what is finished."""

        def on_texts(texts: Mapping[int, Generation]) -> None:
            self.on_rows(len(texts))
            if not rounds:
                keep(texts)

        if options.temperature and not rounds:
            options = replace(options, seeds=[text.seed for text in asked])
        run, prompts = generate_with_rounds if rounds else generate, [text.prompt for text in asked]
        with clear_memory_errors("lower evaluate.max_new_tokens, or use a device with more memory"):
            written = run(self.model, self.tokenizer, prompts, options, on_texts)
        if rounds:
            keep(dict(enumerate(written)))
        return written

    def cut(self, text: str, most: int) -> str:
        """The beginning of a text: at most `most` tokens, and no more than may be generated."""
        ids, limit = text_ids(self.tokenizer, text), min(most, self.options.max_new_tokens)
        return text if len(ids) <= limit else decode(self.tokenizer, ids[:limit], self.template.tags)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        return text_ids(self.tokenizer, text)

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
        original = self.hooks.original()
        if original is None:
            raise UserError("fluency is judged by the original model: name it with evaluate.original_model")
        places, prompts = self._prompts(rows, need)
        flat = [generation for row in written for generation in row]
        # The ids as generated: the text tokenised again could give others.
        encoded = [
            Encoded("", prompt + list(text.ids), len(prompt), 0) if text.ids else None
            for prompt, text in zip(prompts, flat)
        ]
        scores = EvalRunner(original, self.template, self.options, self.hooks)._score(encoded)
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


def _asked(row: dict, name: str, text: str) -> dict:
    """The row of one scored text: a document, or an answer to the row's question or prompt."""
    if name == "text":
        return {"id": row["id"], "text": text}
    return {**{key: row[key] for key in ("id", *CONTEXT) if key in row}, "answer": text}


def _by_row(places: Sequence[int], values: Sequence, count: int) -> list[list]:
    """Values in one list per row; `places` holds the row number of each value."""
    results: list[list] = [[] for _ in range(count)]
    for number, value in zip(places, values):
        results[number].append(value)
    return results
