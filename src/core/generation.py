"""Batched decoding, greedy or sampled, and the split of what a reasoning model wrote into trace and answer."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from core.encoding import THINK_CLOSE, THINK_OPEN


@dataclass(frozen=True)
class Generation:
    """What a model wrote for one prompt. `text` keeps the think tags and has no other special token."""

    text: str
    n_tokens: int
    ended: bool
    """True when the model stopped by itself, False when the token budget cut it."""


@dataclass(frozen=True)
class Thought:
    """`answer` is None when the trace never closed: an unfinished thought is not an answer."""

    trace: str
    answer: str | None

    @property
    def closed(self) -> bool:
        return self.answer is not None


def split_thought(text: str) -> Thought:
    """Trace = between the tags, answer = after the last closing tag."""
    trace, close, answer = text.rpartition(THINK_CLOSE)
    if not close:
        return Thought(text.removeprefix(THINK_OPEN).strip(), None)
    return Thought(trace.strip().removeprefix(THINK_OPEN).strip(), answer.strip())


def length_batches(lengths: list[int], batch_tokens: int) -> Iterable[list[int]]:
    """Indices in batches of like length, longest first; a padded batch holds at most `batch_tokens` tokens (or one row)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, lengths[order[start]]))
        yield order[start:start + size]
        start += size


@torch.inference_mode()
def generate(model, tokenizer, prompts: list[list[int]], max_new_tokens: int, batch_tokens: int = 16384,
             stop_ids: Sequence[int] = (), unseen_id: int | None = None,
             on_batch: Callable[[int], None] = lambda rows: None, temperature: float = 0.0) -> list[Generation]:
    """Continuations of token prompts, in their order: greedy, or sampled at a temperature above 0 (by torch's own generator).
    They end at EOS, at what the model's config names, or at one of `stop_ids`. Left padding
    with a mask from lengths (`unseen_id`: see `core.encoding.Encoded`). A batch holds at most `batch_tokens` tokens, prompt
    and answer together. Nothing else of the model's generation config (sampling, penalties, minimum lengths) has a say."""
    from transformers import GenerationConfig

    results: list[Generation | None] = [None] * len(prompts)
    ends = sorted({*_end_ids(model, tokenizer), *stop_ids})
    pad = pad_id(tokenizer)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    with _plain(model, GenerationConfig(max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=pad, **sampling)):
        for batch in length_batches([len(p) + max_new_tokens for p in prompts], batch_tokens):
            width = max(len(prompts[i]) for i in batch)
            ids = torch.full((len(batch), width), pad)
            mask = torch.zeros_like(ids)
            for line, i in enumerate(batch):
                ids[line, width - len(prompts[i]):] = torch.tensor(prompts[i])
                mask[line, width - len(prompts[i]):] = torch.tensor([int(token != unseen_id) for token in prompts[i]])
            output = model.generate(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
            for line, i in enumerate(batch):
                results[i] = _read(tokenizer, output[line, width:].tolist(), ends)
            on_batch(len(batch))
    return results


@contextlib.contextmanager
def _plain(model, config) -> Iterator[None]:
    """The model with `config` in place of its own generation config."""
    own, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = own


def _read(tokenizer, ids: list[int], ends: list[int]) -> Generation:
    stop = next((k for k, token in enumerate(ids) if token in ends), None)
    kept = ids[:stop]
    return Generation(decode(tokenizer, kept), len(kept), stop is not None)


def decode(tokenizer, ids: list[int]) -> str:
    """Text without special tokens, but with the think tags even where a tokenizer counts them as special."""
    vocabulary = tokenizer.get_added_vocab()
    tags = {vocabulary[tag] for tag in (THINK_OPEN, THINK_CLOSE) if tag in vocabulary}
    special = set(tokenizer.all_special_ids) - tags
    return tokenizer.decode([i for i in ids if i not in special], skip_special_tokens=False,
                            clean_up_tokenization_spaces=False).strip()


def _end_ids(model, tokenizer) -> set[int]:
    named = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])} - {None}


def pad_id(tokenizer) -> int:
    """Any id will do: padding is told from text by its mask, never by its id."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(i for i in known if i is not None)
