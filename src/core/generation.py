"""Batched decoding, greedy or sampled."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .files import UserError
from .thinking import SECOND_THOUGHT, TAGS, Tags

POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings")
"""Names of the table of positions in models of the GPT-2, OPT and BERT families."""
SMALL_BATCH = 8
"""A batch of less than this part of its tokens is small."""


@dataclass(frozen=True)
class Generation:
    """What a model wrote for one prompt. `text` keeps the think tags and has no other special token."""

    text: str
    n_tokens: int
    ended: bool
    """True when the model stopped by itself, False when the token budget cut it."""
    ids: tuple[int, ...] = ()


def length_batches(lengths: list[int], batch_tokens: int, narrow: float = 0.0) -> Iterable[list[int]]:
    """Indices in batches of like length, longest first; a padded batch holds at most `batch_tokens` tokens
    (or one row). With `narrow` a row shorter than that share of the longest begins another batch, unless the
    batch is still small: what is padded costs as much as what is read."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        end = start + max(1, batch_tokens // max(1, longest))
        small = start + max(1, batch_tokens // SMALL_BATCH // max(1, longest))
        while narrow and small < end and small < len(order) and lengths[order[small]] >= narrow * longest:
            small += 1
        yield order[start : small if narrow else end]
        start = small if narrow else end


@torch.inference_mode()
def generate(
    model,
    tokenizer,
    prompts: list[list[int]],
    max_new_tokens: int,
    batch_tokens: int = 16384,
    stop_ids: Sequence[int] = (),
    unseen_id: int | None = None,
    on_batch: Callable[[int], None] = lambda rows: None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    repetition_penalty: float = 1.0,
    tags: Tags = TAGS,
    stop_texts: Sequence[str] = (),
    thinks: bool = False,
) -> list[Generation]:
    """Continuations of token prompts, in their order: greedy, or sampled at a temperature above 0 (by torch's
    own generator). They end at EOS, at what the model's config names, at one of `stop_ids`, or in front of
    one of `stop_texts`, which of a model that `thinks` count only after its closed thought. Left padding
    with a mask from lengths (`unseen_id`: see `core.encoding.Encoded`). A batch holds at most `batch_tokens`
    tokens, prompt and answer together. Nothing else of the model's generation config (sampling, penalties,
    minimum lengths) has a say.
    """
    longest, context = max(map(len, prompts), default=0), learned_positions(model)
    if context and longest + max_new_tokens > context:
        raise UserError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the {context} positions that"
            " the model has learned"
        )
    rules = Rules(tuple(sorted({*_end_ids(model, tokenizer), *stop_ids})), tuple(stop_texts), tags, thinks)
    sampling: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
        if temperature
        else {"do_sample": False}
    )
    if repetition_penalty != 1:
        sampling["repetition_penalty"] = repetition_penalty
    texts = [_Text(prompt, answer_from=None if thinks else 0) for prompt in prompts]
    left = texts
    while left:
        # Texts end at different lengths. A batch of which few go on gives its place to others, and these few
        # make a batch with those of other batches: their tokens are read again, all at once.
        batches = list(length_batches([len(t.prompt) + max_new_tokens for t in left], batch_tokens))
        for batch in batches:
            chosen = [left[k] for k in batch]
            _write(model, tokenizer, chosen, max_new_tokens, rules, sampling, unseen_id, len(batches) > 1)
            on_batch(sum(t.ended or len(t.said) >= max_new_tokens for t in chosen))
        left = [t for t in left if not t.ended and len(t.said) < max_new_tokens]
    return [_read(tokenizer, text, rules) for text in texts]


@dataclass(frozen=True)
class Rules:
    """What ends a text: one of the tokens `ends`, or one of `stop_texts`, after the thought of a model that
    `thinks`."""

    ends: tuple[int, ...]
    stop_texts: tuple[str, ...]
    tags: Tags
    thinks: bool


@dataclass
class _Text:
    """What was written to a prompt so far. Its answer begins at token `answer_from`; None in the thought."""

    prompt: list[int]
    answer_from: int | None
    said: list[int] = field(default_factory=list)
    ended: bool = False

    def add(self, token: int, tokenizer, rules: Rules) -> None:
        """Take the next token, unless the text has ended. Transformers' own stop strings know of no thoughts,
        in which they would stop too."""
        if self.ended:
            return
        if token in rules.ends:
            self.ended = True
            return
        self.said.append(token)
        if not rules.stop_texts:
            return
        # As many tokens as the longest text has letters hold it, however short they are.
        recent = len(self.said) - max(map(len, (*rules.stop_texts, rules.tags.close))) - 2
        if self.answer_from is None:
            if rules.tags.close in decode(tokenizer, self.said[max(0, recent) :], rules.tags):
                self.answer_from = len(self.said)
        else:
            tail = decode(tokenizer, self.said[max(self.answer_from, recent) :], rules.tags, strip=False)
            self.ended = any(text in tail for text in rules.stop_texts)


def _write(
    model,
    tokenizer,
    texts: list[_Text],
    budget: int,
    rules: Rules,
    sampling: dict[str, Any],
    unseen_id: int | None,
    may_leave: bool,
) -> None:
    """Go on with a batch of texts until all have ended or have `budget` tokens; with `may_leave`, until no
    more than half go on."""
    from transformers import GenerationConfig, StoppingCriteriaList

    pad = pad_id(tokenizer)
    config = GenerationConfig(
        max_new_tokens=budget - min(len(text.said) for text in texts),
        eos_token_id=list(rules.ends),
        pad_token_id=pad,
        **sampling,
    )
    rows = [text.prompt + text.said for text in texts]
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, width - len(row) :] = torch.tensor(row)
        mask[line, width - len(row) :] = torch.tensor([int(token != unseen_id) for token in row])

    def over(ids: Tensor, scores, **_) -> Tensor:
        for text, token in zip(texts, ids[:, -1].tolist()):
            if len(text.said) < budget:
                text.add(token, tokenizer, rules)
        done = [text.ended or len(text.said) >= budget for text in texts]
        leaves = may_leave and 2 * sum(done) >= len(done)
        return torch.tensor([leaves or one for one in done], device=ids.device)

    with _plain(model, config):
        model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            stopping_criteria=StoppingCriteriaList([over]),
        )


def _read(tokenizer, text: _Text, rules: Rules) -> Generation:
    whole = decode(tokenizer, text.said, rules.tags)
    said = Generation(whole, len(text.said), text.ended, tuple(text.said))
    return _cut(said, rules.stop_texts, rules.tags, rules.thinks)


def _cut(said: Generation, texts: Sequence[str], tags: Tags, thinks: bool) -> Generation:
    """What was said up to the first of `texts`."""
    thought, close, answer = said.text.rpartition(tags.close) if thinks else ("", "", said.text)
    places = [answer.find(text) for text in texts if text in answer]
    if not places or (thinks and not close):
        return said
    return replace(said, text=f"{thought}{close}{answer[: min(places)]}", ended=True)


@contextlib.contextmanager
def _plain(model, config) -> Iterator[None]:
    """The model with `config` in place of its own generation config."""
    own, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = own


def generate_on(
    model, tokenizer, prompts: list[list[int]], max_new_tokens: int, rounds: int, tags: Tags = TAGS, **options
) -> list[Generation]:
    """As `generate`, of prompts after which the model thinks (MoreThink): when it stops thinking, ends, or
    its budget is spent, the closing tag is dropped, it is told to wait and goes on, `rounds` times before it
    may answer. Each of the `rounds` + 1 turns has a budget of `max_new_tokens`; what it was told counts among
    the tokens of the answer."""
    close = tokenizer(tags.close, add_special_tokens=False)["input_ids"]
    if len(close) != 1:
        raise UserError(
            f"MoreThink needs a tokenizer that has {tags.close} as one token; this one has {len(close)}"
        )
    again = tokenizer(f"\n{SECOND_THOUGHT}", add_special_tokens=False)["input_ids"]
    thoughts: list[list[int]] = [[] for _ in prompts]
    stops = tuple(options.pop("stop_ids", ()))
    for _ in range(rounds):
        so_far = [prompt + thought for prompt, thought in zip(prompts, thoughts)]
        written = generate(
            model, tokenizer, so_far, max_new_tokens, stop_ids=(*stops, *close), tags=tags, **options
        )
        for thought, more in zip(thoughts, written):
            thought += [*more.ids, *again]
    last = generate(
        model,
        tokenizer,
        [p + t for p, t in zip(prompts, thoughts)],
        max_new_tokens,
        stop_ids=stops,
        tags=tags,
        **options,
    )
    whole = [(*thought, *end.ids) for thought, end in zip(thoughts, last)]
    return [
        Generation(decode(tokenizer, list(ids), tags), len(ids), end.ended, ids)
        for ids, end in zip(whole, last)
    ]


def decode(tokenizer, ids: list[int], tags: Tags = TAGS, strip: bool = True) -> str:
    """Text without special tokens, but with the think tags even where a tokenizer counts them as special;
    without the blanks around it, unless `strip` is off."""
    vocabulary = tokenizer.get_added_vocab()
    kept = {vocabulary[tag] for tag in (tags.open, tags.close) if tag in vocabulary}
    special = set(tokenizer.all_special_ids) - kept
    text = tokenizer.decode(
        [i for i in ids if i not in special], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text.strip() if strip else text


def _end_ids(model, tokenizer) -> set[int]:
    named = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])} - {None}


def learned_positions(model) -> int | None:
    """How many positions a model has a table of; None for one that computes them (rotary, ALiBi) and reads
    on past its context."""
    tables = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding))
    has_table = any(name.rpartition(".")[2] in POSITION_TABLES for name in tables)
    return model.config.max_position_embeddings if has_table else None


def pad_id(tokenizer) -> int:
    """Any id that the model knows will do: padding is told from text by its mask, never by its id."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(i for i in known if i is not None)
