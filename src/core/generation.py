"""Batched decoding, greedy or sampled."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from .batching import length_batches, run_batches
from .files import UserError
from .seeded_sampling import draw_tokens, uniform_numbers
from .thinking import TAGS, WAIT, Tags

POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings")
"""Names of the table of positions in models of the GPT-2, OPT and BERT families."""
LEAVING_PART = 4
"""Texts that are done leave their batch when they are this part of it; when only this part is not done, the
batch is left."""


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


OnTexts = Callable[[Mapping[int, Generation]], None]
"""Called with the texts that a batch finished, by the place of their prompts."""


@torch.no_grad()
def generate(
    model,
    tokenizer,
    prompts: Sequence[list[int]],
    options: DecodingOptions,
    on_texts: OnTexts = lambda texts: None,
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
        on_texts: Called with the texts that a batch finished.

    Returns:
        One generation per prompt, in the order of the prompts.

    Raises:
        UserError: A prompt and its budget exceed the model's learned positions.
        RuntimeError: There is too little memory for one text (torch's own error).
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
    results: dict[int, Generation] = {}
    while len(results) < len(texts):
        # Texts end at different lengths. The last few of a batch are left to a batch with those of others:
        # their tokens are read again, all at once.
        waiting = [place for place in range(len(texts)) if place not in results]
        lengths = [len(texts[place].prompt) + options.max_new_tokens for place in waiting]
        batches = list(length_batches(lengths, options.batch_tokens))
        several = len(batches) > 1

        def run(batch: list[int], waiting=waiting, several=several) -> None:
            chosen = [waiting[k] for k in batch]
            decoder.extend([texts[place] for place in chosen], may_leave=several)
            fresh = {place: decoder.read(texts[place]) for place in chosen if decoder.is_done(texts[place])}
            results.update(fresh)
            on_texts(fresh)

        run_batches(batches, run)
    return [results[place] for place in range(len(texts))]


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

    def extend(self, texts: list[_Text], may_leave: bool) -> None:
        """Generate until all texts are done; with `may_leave`, until at most a quarter of them is not."""
        width, cache = max((len(text.prompt) + len(text.tokens) for text in texts), default=0), None
        # A batch that ran out of memory may have texts that are done.
        active = [text for text in texts if not self.is_done(text)]
        while active and not (may_leave and LEAVING_PART * len(active) <= len(texts)):
            before = [len(text.tokens) for text in active]
            cache = self._decode(active, width, cache)
            width += max(len(text.tokens) - n for text, n in zip(active, before))
            going = [line for line, text in enumerate(active) if not self.is_done(text)]
            active = [active[line] for line in going]
            if cache is None and may_leave:
                return
            if cache is not None and active:
                cache.batch_select_indices(torch.tensor(going, device=self.model.device))

    def _decode(self, texts: list[_Text], width: int, cache) -> Any:
        """Extend texts until a quarter of them is done.

        Args:
            texts: Texts that are not done.
            width: Tokens of prompt and text, padding on the left included.
            cache: Keys and values of all tokens of these texts but the last; None to read all.

        Returns:
            Keys and values, with which decoding resumes; None for a model that has none.
        """
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        keeps = keeps_keys_and_values(self.model)
        pad = pad_id(self.tokenizer)
        config = GenerationConfig(
            max_new_tokens=self.options.max_new_tokens - min(len(text.tokens) for text in texts),
            eos_token_id=list(self.end_ids),
            pad_token_id=pad,
            return_dict_in_generate=True,
            **self.options.sampling(),
        )
        ids, mask = self._left_padded([text.prompt + text.tokens for text in texts], width, pad)

        # Called after each token, with all ids so far [B, T]; true ends a row. Done rows would be decoded on,
        # so decoding stops when they are a share of the batch, and resumes without them.
        def stop(ids: Tensor, scores, **_) -> Tensor:
            for text, token in zip(texts, ids[:, -1].tolist()):
                if not self.is_done(text):
                    self._add(text, token)
            done = [self.is_done(text) for text in texts]
            if LEAVING_PART * sum(done) >= len(done):
                done = [True] * len(done)
            return torch.tensor(done, device=ids.device)

        known = {} if cache is None else {"past_key_values": cache}
        with _replaced_config(self.model, config):
            found = self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                logits_processor=LogitsProcessorList([_refuse_nan, *self._seeded(texts)]),
                stopping_criteria=StoppingCriteriaList([stop]),
                # Processes that share weights keep step by `sharding.lockstep`, whatever each decodes.
                synced_gpus=False,
                **known,
            )
        return found.past_key_values if keeps else None

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

    def _left_padded(self, rows: list[list[int]], width: int, pad: int) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, [B, T]."""
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


def _refuse_nan(ids: Tensor, scores: Tensor) -> Tensor:
    """Logits as they are. UserError where a row has none: its argmax would be a text that the model never
    wrote, and would count as forgotten."""
    if not bool(scores.amax(-1).isfinite().all()):
        raise UserError("the model's logits are not finite numbers, so no text can be generated")
    return scores


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
    prompts: Sequence[list[int]],
    options: DecodingOptions,
    on_texts: OnTexts = lambda texts: None,
) -> list[Generation]:
    """Generate with MoreThink: `options.rounds` times, when the trace closes, the text ends or its budget is
    spent, the closing tag is replaced by "Wait" and the trace resumes; after the last round the model may
    answer.

    Each of the `options.rounds` + 1 turns has a budget of `options.max_new_tokens`; the inserted tokens count
    among those of the text. Arguments and result are those of `generate`; the prompts open a trace, and
    `on_texts` is called in every turn.

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
        for trace, more in zip(traces, generate(model, tokenizer, so_far, thinking, on_texts)):
            trace += [*more.ids, *wait]
    so_far = [prompt + trace for prompt, trace in zip(prompts, traces)]
    last = generate(model, tokenizer, so_far, options, on_texts)
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


def keeps_keys_and_values(model) -> bool:
    """Whether the model keeps keys and values of what it has read, from which rows can be chosen; a recurrent
    state cannot be gone on from at a token of one's choice."""
    return not getattr(model, "_is_stateful", False)


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
