"""Batched decoding, greedy or sampled."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from .files import UserError
from .seeded_sampling import draw_tokens, uniform_numbers
from .thinking import TAGS, WAIT, Tags

POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings")
"""Names of the table of positions in models of the GPT-2, OPT and BERT families."""
SMALL_BATCH = 8
"""A batch of less than this part of its tokens is small."""


@dataclass(frozen=True)
class DecodingOptions:
    """Budget, end and sampling of generated texts.

    Args:
        max_new_tokens: Most tokens generated per prompt; in `generate_with_rounds`, per turn.
        batch_tokens: Most padded tokens of a batch, prompt and generated text together.
        stop_ids: Token ids that end a text, beside EOS and those of the model's own generation config.
        stop_texts: Strings in front of which a text ends; with `thinks` only after the closed trace.
        thinks: Whether a text begins with a reasoning trace.
        tags: Opening and closing tag of the trace.
        unseen_id: Token id that attention never reaches, see `core.encoding.Encoded`.
        temperature: 0 is greedy decoding; above 0 tokens are sampled, with torch's own generator unless there
            are `seeds`.
        top_p: Probability mass that is sampled from.
        top_k: Number of tokens that are sampled from; 0 is all.
        repetition_penalty: Divisor of the logits of repeated tokens; 1 is none.
        rounds: Rounds of MoreThink, used by `generate_with_rounds` alone.
        seeds: Seed of each prompt's text in `generate`, which then depends on no other text; see
            `seeded_sampling`.
    """

    max_new_tokens: int
    batch_tokens: int = 16384
    stop_ids: Sequence[int] = ()
    stop_texts: Sequence[str] = ()
    thinks: bool = False
    tags: Tags = TAGS
    unseen_id: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    rounds: int = 0
    seeds: Sequence[int] = ()

    def sampling(self) -> dict[str, Any]:
        """Keywords for transformers' GenerationConfig."""
        chosen: dict[str, Any] = {"do_sample": False}
        if self.temperature and not self.seeds:
            chosen = {"do_sample": True, "temperature": self.temperature}
            chosen |= {"top_p": self.top_p, "top_k": self.top_k}
        if self.repetition_penalty != 1:
            chosen["repetition_penalty"] = self.repetition_penalty
        return chosen


@dataclass(frozen=True)
class Generation:
    """Generated text of one prompt. `text` keeps the think tags and has no other special token."""

    text: str
    n_tokens: int
    ended: bool
    """True when the model ended the text, False when the token budget cut it."""
    ids: tuple[int, ...] = ()


def length_batches(lengths: list[int], batch_tokens: int, narrow: float = 0.0) -> Iterable[list[int]]:
    """Split rows into batches of like length, longest first.

    Args:
        lengths: Tokens of each row.
        batch_tokens: Most padded tokens of a batch; a longer row is a batch of its own.
        narrow: Share of its longest row that a batch's rows must have; a shorter row begins another batch,
            unless the batch is still small (padding costs as much compute as text). 0 is no such limit.

    Yields:
        Indices into `lengths`.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        end = start + max(1, batch_tokens // max(1, longest))
        if narrow:
            small = start + max(1, batch_tokens // SMALL_BATCH // max(1, longest))
            while small < min(end, len(order)) and lengths[order[small]] >= narrow * longest:
                small += 1
            end = small
        yield order[start:end]
        start = end


@torch.inference_mode()
def generate(
    model,
    tokenizer,
    prompts: list[list[int]],
    options: DecodingOptions,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> list[Generation]:
    """Generate a text for each prompt.

    A text ends at EOS, at an end token of the model's generation config, at one of `options.stop_ids`, or in
    front of one of `options.stop_texts`. Nothing else of the model's generation config (sampling, penalties,
    minimum lengths) is used.

    Args:
        model: Causal language model of transformers.
        tokenizer: Its tokenizer.
        prompts: Token ids of each prompt; padded on the left, with a mask from lengths.
        options: Budget, end and sampling.
        on_batch: Called with the number of texts that a batch finished.

    Returns:
        One generation per prompt, in the order of the prompts.

    Raises:
        UserError: A prompt and its budget exceed the model's learned positions.
    """
    longest, context = max(map(len, prompts), default=0), learned_positions(model)
    if context and longest + options.max_new_tokens > context:
        raise UserError(
            f"a prompt of {longest} tokens and {options.max_new_tokens} new ones exceed the {context}"
            " positions that the model has learned"
        )
    decoder = _Decoder(model, tokenizer, options)
    answer_from = None if options.thinks else 0
    seeds = options.seeds or [None] * len(prompts)
    texts = [_Text(prompt, answer_from, seed=seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    unfinished = texts
    while unfinished:
        # Texts end at different lengths. A batch of which at most half is unfinished is broken off, and its
        # unfinished texts make a batch with those of others: their tokens are read again, all at once.
        lengths = [len(text.prompt) + options.max_new_tokens for text in unfinished]
        batches = list(length_batches(lengths, options.batch_tokens))
        for batch in batches:
            chosen = [unfinished[k] for k in batch]
            decoder.extend(chosen, may_break_off=len(batches) > 1)
            on_batch(sum(map(decoder.is_done, chosen)))
        unfinished = [text for text in unfinished if not decoder.is_done(text)]
    return [decoder.read(text) for text in texts]


@dataclass
class _Text:
    """A text in the making. Its answer begins at token `answer_from`; None inside the reasoning trace."""

    prompt: list[int]
    answer_from: int | None
    tokens: list[int] = field(default_factory=list)
    ended: bool = False
    seed: int | None = None


class _Decoder:
    """Extends batches of texts with one model under fixed options."""

    def __init__(self, model, tokenizer, options: DecodingOptions):
        self.model, self.tokenizer, self.options = model, tokenizer, options
        own = model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
        self.end_ids = sorted({*ends, *options.stop_ids})

    def is_done(self, text: _Text) -> bool:
        return text.ended or len(text.tokens) >= self.options.max_new_tokens

    def extend(self, texts: list[_Text], may_break_off: bool) -> None:
        """Generate until all texts are done; with `may_break_off`, until at least half are."""
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        budget = self.options.max_new_tokens - min(len(text.tokens) for text in texts)
        pad = pad_id(self.tokenizer)
        config = GenerationConfig(
            max_new_tokens=budget,
            eos_token_id=list(self.end_ids),
            pad_token_id=pad,
            **self.options.sampling(),
        )
        ids, mask = self._left_padded([text.prompt + text.tokens for text in texts], pad)

        # Called after each token, with all ids so far [B, T]; true ends a row.
        def stop(ids: Tensor, scores, **_) -> Tensor:
            for text, token in zip(texts, ids[:, -1].tolist()):
                if not self.is_done(text):
                    self._add(text, token)
            done = [self.is_done(text) for text in texts]
            if may_break_off and 2 * sum(done) >= len(done):
                done = [True] * len(done)
            return torch.tensor(done, device=ids.device)

        with _replaced_config(self.model, config):
            self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                logits_processor=LogitsProcessorList(self._seeded(texts)),
                stopping_criteria=StoppingCriteriaList([stop]),
            )

    def _seeded(self, texts: list[_Text]) -> list[Any]:
        """Processors of the logits that leave one token to each text, drawn with its own random numbers;
        greedy decoding then takes it."""
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        options = self.options
        if not (options.seeds and options.temperature):
            return []
        # Of a text that is resumed, the numbers that its tokens used are passed over by place.
        numbers = [uniform_numbers(cast(int, text.seed), options.max_new_tokens) for text in texts]

        def keep_drawn(ids: Tensor, scores: Tensor) -> Tensor:
            # A text that is done waits for the others of its batch: its tokens are not read.
            places = [min(len(text.tokens), options.max_new_tokens - 1) for text in texts]
            drawn = draw_tokens(scores, [row[place] for row, place in zip(numbers, places)])
            return torch.full_like(scores, -torch.inf).scatter(1, drawn[:, None], 0.0)

        processors: list[Any] = [TemperatureLogitsWarper(options.temperature)]
        if options.top_k:
            processors.append(TopKLogitsWarper(options.top_k))
        if options.top_p < 1:
            processors.append(TopPLogitsWarper(options.top_p))
        return [*processors, keep_drawn]

    def _left_padded(self, rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, [B, T]."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), pad)
        mask = torch.zeros_like(ids)
        for line, row in enumerate(rows):
            ids[line, width - len(row) :] = torch.tensor(row)
            mask[line, width - len(row) :] = torch.tensor([int(id_ != self.options.unseen_id) for id_ in row])
        return ids, mask

    def _add(self, text: _Text, token: int) -> None:
        """Append a token, or end the text. (Transformers' own stop strings would also stop inside traces.)"""
        if token in self.end_ids:
            text.ended = True
            return
        text.tokens.append(token)
        stops, tags = self.options.stop_texts, self.options.tags
        if not stops:
            return
        # A token has at least one character, so the last N tokens hold any string of N characters; two more
        # for characters that are split over tokens. The whole text need not be decoded at each token.
        recent = len(text.tokens) - max(map(len, (*stops, tags.close))) - 2
        if text.answer_from is None:
            if tags.close in decode(self.tokenizer, text.tokens[max(0, recent) :], tags):
                text.answer_from = len(text.tokens)
        else:
            tail = decode(self.tokenizer, text.tokens[max(text.answer_from, recent) :], tags, strip=False)
            text.ended = any(stop in tail for stop in stops)

    def read(self, text: _Text) -> Generation:
        """The finished text, up to the first of the stop texts."""
        options = self.options
        whole = Generation(
            decode(self.tokenizer, text.tokens, options.tags),
            len(text.tokens),
            text.ended,
            tuple(text.tokens),
        )
        trace, close, answer = "", "", whole.text
        if options.thinks:
            trace, close, answer = whole.text.rpartition(options.tags.close)
            if not close:
                return whole
        places = [answer.find(stop) for stop in options.stop_texts if stop in answer]
        if not places:
            return whole
        return replace(whole, text=f"{trace}{close}{answer[: min(places)]}", ended=True)


@contextlib.contextmanager
def _replaced_config(model, config) -> Iterator[None]:
    """Put `config` in place of the model's own generation config: transformers fills unset fields of a config
    that is passed as an argument from the model's own."""
    own, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = own


def generate_with_rounds(
    model,
    tokenizer,
    prompts: list[list[int]],
    options: DecodingOptions,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> list[Generation]:
    """Generate with MoreThink: `options.rounds` times, when the trace closes, the text ends or its budget is
    spent, the closing tag is replaced by "Wait" and the trace resumes; after the last round the model may
    answer.

    Each of the `options.rounds` + 1 turns has a budget of `options.max_new_tokens`; the inserted tokens count
    among those of the text. Arguments and result are those of `generate`; the prompts open a trace.

    Raises:
        UserError: The tokenizer has no single token for the closing tag.
    """
    tags = options.tags
    close = tokenizer(tags.close, add_special_tokens=False)["input_ids"]
    if len(close) != 1:
        raise UserError(
            f"MoreThink needs a tokenizer that has {tags.close} as one token; this one has {len(close)}"
        )
    wait = tokenizer(f"\n{WAIT}", add_special_tokens=False)["input_ids"]
    traces: list[list[int]] = [[] for _ in prompts]
    # An end token is not part of a generation's ids, so stopping at the closing tag also drops it.
    thinking = replace(options, stop_ids=(*options.stop_ids, *close))
    for _ in range(options.rounds):
        so_far = [prompt + trace for prompt, trace in zip(prompts, traces)]
        for trace, more in zip(traces, generate(model, tokenizer, so_far, thinking, on_batch)):
            trace += [*more.ids, *wait]
    so_far = [prompt + trace for prompt, trace in zip(prompts, traces)]
    last = generate(model, tokenizer, so_far, options, on_batch)
    whole = [(*trace, *end.ids) for trace, end in zip(traces, last)]
    return [
        Generation(decode(tokenizer, list(ids), tags), len(ids), end.ended, ids)
        for ids, end in zip(whole, last)
    ]


def decode(tokenizer, ids: list[int], tags: Tags = TAGS, strip: bool = True) -> str:
    """Decode without special tokens, but with the think tags, which some tokenizers count as special; without
    surrounding blanks unless `strip` is off."""
    vocabulary = tokenizer.get_added_vocab()
    kept = {vocabulary[tag] for tag in (tags.open, tags.close) if tag in vocabulary}
    special = set(tokenizer.all_special_ids) - kept
    text = tokenizer.decode(
        [i for i in ids if i not in special], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text.strip() if strip else text


def learned_positions(model) -> int | None:
    """Number of positions in the model's position table; None for a model that computes them (rotary, ALiBi)
    and reads on past its context."""
    tables = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding))
    has_table = any(name.rpartition(".")[2] in POSITION_TABLES for name in tables)
    return model.config.max_position_embeddings if has_table else None


def pad_id(tokenizer) -> int:
    """The pad token, or any other id in the vocabulary: a mask separates padding from text, never
    the id."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(i for i in known if i is not None)
