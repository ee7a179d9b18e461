"""Batched decoding, greedy or sampled."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from core.files import UserError
from core.thinking import SECOND_THOUGHT, TAGS, Tags

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
    from transformers import GenerationConfig

    results: dict[int, Generation] = {}
    ends = sorted({*_end_ids(model, tokenizer), *stop_ids})
    pad = pad_id(tokenizer)
    sampling: dict[str, float] = (
        {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
        if temperature
        else {"do_sample": False}
    )
    if repetition_penalty != 1:
        sampling["repetition_penalty"] = repetition_penalty
    with _plain(
        model,
        GenerationConfig(max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=pad, **sampling),
    ):
        for batch in length_batches([len(p) + max_new_tokens for p in prompts], batch_tokens):
            width = max(len(prompts[i]) for i in batch)
            ids = torch.full((len(batch), width), pad)
            mask = torch.zeros_like(ids)
            for line, i in enumerate(batch):
                ids[line, width - len(prompts[i]) :] = torch.tensor(prompts[i])
                mask[line, width - len(prompts[i]) :] = torch.tensor(
                    [int(token != unseen_id) for token in prompts[i]]
                )
            stop = _stop_at(tokenizer, stop_texts, len(batch), width, tags, thinks)
            output = model.generate(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device), stopping_criteria=stop
            )
            for line, i in enumerate(batch):
                text = _read(tokenizer, output[line, width:].tolist(), ends, tags)
                results[i] = _cut(text, stop_texts, tags, thinks)
            on_batch(len(batch))
    return [results[i] for i in range(len(prompts))]


def _stop_at(tokenizer, texts: Sequence[str], rows: int, start: int, tags: Tags, thinks: bool):
    """What ends the rows of a batch, whose answers begin at place `start`, at one of `texts`; None without
    any. Transformers' own stop strings know of no thoughts, in which they would stop too."""
    if not texts:
        return None
    from transformers import StoppingCriteriaList

    # Tokens at the end of a row that hold the longest text, however short they are.
    window = max(map(len, (*texts, tags.close))) + 2
    begins: list[int | None] = [None if thinks else start] * rows

    def ended(ids: torch.Tensor, scores, **_) -> torch.Tensor:
        found = []
        for line, row in enumerate(ids.tolist()):
            at = begins[line]
            if at is None:
                closed = tags.close in decode(tokenizer, row[max(start, len(row) - window) :], tags)
                begins[line] = len(row) if closed else None
                found.append(False)
            else:
                tail = decode(tokenizer, row[max(at, len(row) - window) :], tags, strip=False)
                found.append(any(text in tail for text in texts))
        return torch.tensor(found, device=ids.device)

    return StoppingCriteriaList([ended])


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


def _read(tokenizer, ids: list[int], ends: list[int], tags: Tags) -> Generation:
    stop = next((k for k, token in enumerate(ids) if token in ends), None)
    kept = ids[:stop]
    return Generation(decode(tokenizer, kept, tags), len(kept), stop is not None, tuple(kept))


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


def pad_id(tokenizer) -> int:
    """Any id will do: padding is told from text by its mask, never by its id."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(i for i in known if i is not None)
