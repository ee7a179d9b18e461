"""From text to token ids: templates, and labels that are masked by length.

A row is a dict with an `id` and one of
    question, answer[, trace]     asked through the template; a trace stands between the think tags before
                                  the answer; `turns` (of a chat: role and content) stand before the question
    prompt, answer                given to the model as it is, no template (multiple choice, continuations)
    text                          a document; every token after the first is labelled
No token straddles the border of prompt and answer, so a prompt is the same with and without answer.
"""

import contextlib
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import torch
from torch import Tensor

from .files import UserError, fingerprint
from .likelihood import IGNORE
from .thinking import SHORT_TRACE, TAGS, Tags

QA_TEMPLATE = "Question: {question}\nAnswer:\n"
THINKING_SWITCH = "enable_thinking"
MARK = "answer-mark"
CONTEXT = ("question", "prompt", "turns")
"""Keys of a row that decide what stands before its answer."""
SHORTEST_PIECE = 8
"""Tokens below which the end of a long document is no piece of its own."""
EMBEDDING_ROWS = "embedding_rows"
"""Attribute of a tokenizer that has more tokens than the model it is fitted to: the model's number."""
TEMPLATE_SECONDS = 10.0
"""Time that a chat template may take for one text."""
DATE = datetime(2024, 7, 26)
"""The day that chat templates write, whatever day it is: what Llama's falls back on when it knows none."""


@dataclass(frozen=True)
class Encoded:
    """One tokenised row: `input_ids` = prompt + answer + terminator, lengths in tokens."""

    id: str
    input_ids: list[int]
    prompt_length: int
    terminator_length: int
    unseen_id: int | None = None
    """A token that attention never reaches, wherever it stands; None but for a peer's reading
    (`core.parity_templates`)."""
    seen: int | None = None
    """Tokens from the start that attention reaches; None is all."""

    @property
    def attention(self) -> list[int]:
        """1 for every token that attention reaches."""
        end = len(self.input_ids) if self.seen is None else self.seen
        return [int(place < end and token != self.unseen_id) for place, token in enumerate(self.input_ids)]

    @property
    def labels(self) -> list[int]:
        """-100 on the prompt, the token ids after it."""
        return [IGNORE] * self.prompt_length + self.input_ids[self.prompt_length :]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.input_ids, self.prompt_length)


class Template:
    """How a question is put to a model.

    `name` is `chat` (the tokenizer's chat template), `qa` (plain question and answer lines), `auto` (chat
    where the tokenizer has one, else qa) or any text with {question} in it, where a written \\n stands for a
    line break. A text that ends in the opening think tag lets the model think.
    """

    unseen_id: int | None = None

    def __init__(self, tokenizer, name: str = "auto", tags: Tags = TAGS):
        has_chat = chat_template_of(tokenizer) is not None
        if name == "chat" and not has_chat:
            raise UserError(
                "dataset.template is 'chat' but the tokenizer has no chat template; use 'qa' or 'auto'"
            )
        self.tokenizer, self.tags = tokenizer, tags
        self.chat = name == "chat" or (name == "auto" and has_chat)
        self.text = QA_TEMPLATE if name in ("auto", "chat", "qa") else name.replace("\\n", "\n")
        if "{question}" not in self.text:
            raise UserError(
                f"dataset.template {name!r} has no {{question}} in it; choose auto, chat, qa or such a text"
            )
        self._start = leading_ids(tokenizer)
        self.gap = "\n" if re.search(re.escape(tags.open) + r"(\\n|\n)", self._template) else ""
        self.terminator = self._chat_terminator() if self.chat else self._eos()

    @cached_property
    def stop_ids(self) -> list[int]:
        """The special tokens among those that end an answer: a model that writes one has ended. Ordinary
        text among them (Llama 2 ends turns with a blank and EOS) ends nothing."""
        return [token for token in self.terminator if token in self._marks]

    @property
    def _marks(self) -> set[int]:
        """Ids that are no ordinary text: special tokens, and added ones that are neither blanks nor tags."""
        added = {
            number: token.content
            for number, token in self.tokenizer.added_tokens_decoder.items()
            if token.content.strip() and token.content not in (self.tags.open, self.tags.close)
        }
        return {*self.tokenizer.all_special_ids, *added}

    @property
    def fingerprint(self) -> str:
        """A hash of what is put around a question and an answer, as tokens."""
        modes = ("direct", "thinking") if self.supports_thinking() else ("direct",)
        prompts = [self.prompt_ids("Q", mode) for mode in modes]
        return fingerprint(prompts, self.text_ids("Q"), self.terminator)

    def prompt_ids(self, question: str, mode: str = "direct", turns: Sequence[dict] = ()) -> list[int]:
        """Everything in front of what the model says, special tokens included. `mode`: one of
        `core.thinking.MODES`; `turns`: of a chat, before the question. UserError when thoughts are asked of a
        template that knows none."""
        return self._ids(self.prompt_text(question, mode, turns), special=mode == "plain" or not self.chat)

    def open_trace_ids(self, question: str, turns: Sequence[dict] = ()) -> list[int]:
        """The prompt with an opened thought at its end."""
        return self._ids(self._thinking(question, turns), special=not self.chat)

    def text_ids(self, text: str) -> list[int]:
        """A prompt that is given to the model as it is."""
        return self._ids(text, special=True)

    def encode(self, row: dict, max_length: int = 512) -> Encoded:
        """Tokenise a row; UserError naming the row when no answer token is left, it is longer than
        `max_length`, or it has a trace and the template knows no thoughts."""
        try:
            prompt, answer, terminator = self._parts(row)
        except UserError as error:
            raise UserError(f"row {row['id']!r}: {error}") from None
        ids = prompt + answer + terminator
        if not answer:
            raise UserError(f"row {row['id']!r} has no answer token")
        if len(ids) > max_length:
            raise UserError(
                f"row {row['id']!r} has {len(ids)} tokens, more than dataset.max_length {max_length}; "
                "raise it or shorten the row: cutting it would cut the answer"
            )
        return Encoded(row["id"], ids, len(prompt), len(terminator), self.unseen_id)

    def encode_trace(self, row: dict, limit: int, context: str | None = None) -> Encoded:
        """A trace alone, its first `limit` tokens, without closing tag and answer: labelled, after the
        question and the opened tag, or after the text `context` in their place. Row: id, question (or
        `context`), trace."""
        if context is None:
            opened = self._thinking(row["question"], row.get("turns", ()))
            prompt, trace = self._split(opened, row["trace"], special=not self.chat)
        else:
            prompt, trace = self._split(context, row["trace"], special=True)
        if not trace:
            raise UserError(f"row {row['id']!r} has an empty trace")
        return Encoded(row["id"], prompt + trace[:limit], len(prompt), 0)

    def pieces(self, row: dict, max_length: int, long_text: str = "error") -> list[Encoded]:
        """As `encode`; of a document that is too long the `first` max_length tokens, all `pieces` of that
        length, or an error."""
        if "text" not in row or long_text == "error":
            return [self.encode(row, max_length)]
        start, body, end = self._parts(row)
        if len(start + body + end) <= max_length:
            return [Encoded(row["id"], start + body + end, len(start), len(end))]
        if long_text == "first":
            return [Encoded(row["id"], (start + body + end)[:max_length], len(start), 0)]
        lead = start if start == self._start else []
        cuts = _cuts(body + end if lead else start + body + end, max_length - len(lead))
        last = len(cuts) - 1
        return [
            Encoded(f"{row['id']}#{k}", lead + cut, len(lead if k else start), len(end) if k == last else 0)
            for k, cut in enumerate(cuts)
        ]

    def _parts(self, row: dict) -> tuple[list[int], list[int], list[int]]:
        if "text" in row:
            ids, first = self.text_ids(row["text"]), len(self._start) or 1
            return ids[:first], ids[first:], self._eos()
        if "prompt" in row:
            return *self._split(row["prompt"], " " + row["answer"].lstrip(), special=True), self._eos()
        trace, answer = row.get("trace"), row["answer"]
        prompt = self.prompt_text(row["question"], "thinking" if trace else "direct", row.get("turns", ()))
        if trace:
            opening = self._opened(prompt).removeprefix(prompt)
            answer = f"{opening}{trace}{self.gap}{self.tags.close}{2 * self.gap}{answer}"
        return *self._split(prompt, answer, special=not self.chat), self.terminator

    def prompt_text(self, question: str, mode: str, turns: Sequence[dict] = ()) -> str:
        """The prompt as text, special tokens of the template included."""
        if mode == "plain":
            return _asked(QA_TEMPLATE, question, turns)
        if mode != "direct" and not self.supports_thinking():
            raise UserError(
                f"thinking needs a template with {self.tags.open}, or one with a thinking switch and a"
                f" tokenizer that knows {self.tags.open}; see dataset.template and dataset.think_open"
            )
        prompt = (
            _asked(self.text, question, turns)
            if not self.chat
            else self._chat(
                [*turns, {"role": "user", "content": question}],
                add_generation_prompt=True,
                enable_thinking=mode in ("thinking", "less", "more"),
            )
        )
        if mode == "less":
            return f"{self._opened(prompt)}{SHORT_TRACE}{self.gap}{self.tags.close}{2 * self.gap}"
        needless = mode == "zero" and not prompt.rstrip().endswith(self.tags.close)
        if needless or (mode == "direct" and self._opened(prompt) == prompt):
            return f"{self._opened(prompt)}{self.gap}{self.tags.close}{2 * self.gap}"
        return prompt

    def _thinking(self, question: str, turns: Sequence[dict] = ()) -> str:
        """The prompt with an opened thought at its end. Without a chat template the text itself may have the
        tag."""
        if not self.chat and self.tags.open in question:
            return question
        return self._opened(self.prompt_text(question, "thinking", turns))

    def supports_thinking(self) -> bool:
        return self.tags.open in self._template or (
            THINKING_SWITCH in self._template and self.tags.open in self.tokenizer.get_vocab()
        )

    @property
    def _template(self) -> str:
        chat = chat_template_of(self.tokenizer) if self.chat else None
        return chat[1] if chat else self.text

    def _opened(self, prompt: str) -> str:
        """The prompt with the opening tag at its end; some chat templates open the thought themselves."""
        return prompt if prompt.rstrip().endswith(self.tags.open) else f"{prompt}{self.tags.open}{self.gap}"

    def _split(self, prompt: str, answer: str, special: bool) -> tuple[list[int], list[int]]:
        """Ids of prompt and answer. Together where the border is clean, as a tokenizer that marks word starts
        needs it; apart where a token would straddle the border, so that the prompt is the same with and
        without answer."""
        prompt_ids = self._ids(prompt, special)
        joint = self._ids(prompt + answer, special)
        if joint[: len(prompt_ids)] == prompt_ids and answer:
            return prompt_ids, joint[len(prompt_ids) :]
        return prompt_ids, self._ids(answer)

    def _ids(self, text: str, special: bool = False) -> list[int]:
        return text_ids(self.tokenizer, text, self._start if special else [])

    def _eos(self) -> list[int]:
        eos = self.tokenizer.eos_token_id
        return [] if eos is None else [eos]

    def _chat(self, turns: list[dict], **options) -> str:
        return chat_text(self.tokenizer, turns, **options)

    def _chat_terminator(self) -> list[int]:
        """The end-of-turn mark that the chat template puts after an assistant's words. A line break behind it
        belongs to the template, not to the answer."""
        text = self._chat([{"role": "user", "content": "Q"}, {"role": "assistant", "content": MARK}])
        head, found, tail = text.rpartition(MARK)
        return (
            self._eos()
            if not found
            else self._split(head + MARK, tail.rstrip("\n"), special=False)[1] or self._eos()
        )


def _asked(text: str, question: str, turns: Sequence[dict]) -> str:
    """A question in a template without roles: a system text stands above it, earlier questions in the same
    form with their answers."""
    shown = [
        text.replace("{question}", turn["content"]) if turn["role"] == "user" else f"{turn['content']}\n\n"
        for turn in turns
    ]
    return "".join([*shown, text.replace("{question}", question)])


def _cuts(ids: list[int], size: int) -> list[list[int]]:
    """Pieces of at most `size` tokens that joined are the whole. Where the last would be a few tokens, which
    are no row, the last two share evenly."""
    borders = list(range(0, len(ids), size))
    if len(ids) - borders[-1] < SHORTEST_PIECE and len(borders) > 1:
        borders[-1] = (borders[-2] + len(ids)) // 2
    return [ids[a:b] for a, b in zip(borders, [*borders[1:], len(ids)])]


def leading_ids(tokenizer) -> list[int]:
    """What a tokenizer puts in front of every text: its BOS, once, or nothing. What it puts behind a text
    (some add EOS by themselves) would stand between prompt and answer."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    ends = range(len(whole) - len(plain) + 1)
    at = next((k for k in ends if whole[k : k + len(plain)] == plain), 0)
    return list(dict.fromkeys(whole[:at]))


def text_ids(tokenizer, text: str, start: Sequence[int] = ()) -> list[int]:
    """The tokens of a text behind `start`, which a text that brings its own BOS does not get again. UserError
    for a token that the model which the tokenizer is fitted to (`fit_tokenizer`) has no embedding of."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    rows = getattr(tokenizer, EMBEDDING_ROWS, None)
    last = max(ids, default=0)
    if rows is not None and last >= rows:
        raise UserError(
            f"token {last} ({tokenizer.convert_ids_to_tokens(last)}) is beyond the model's embedding of"
            f" {rows} rows: the tokenizer has {len(tokenizer)} tokens, more than the model was saved with."
            " Take the tokenizer that the model was trained with (overall.tokenizer_name), or save the model"
            " again after resize_token_embeddings"
        )
    return ids if ids[: len(start)] == list(start) else [*start, *ids]


def fit_tokenizer(tokenizer, rows: int) -> None:
    """Let a tokenizer know how many `rows` the model's embedding has. A pad token beyond them, which some add
    without resizing the model, is replaced: padding is never read."""
    if len(tokenizer) <= rows:
        return
    setattr(tokenizer, EMBEDDING_ROWS, rows)
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= rows:
        known = (tokenizer.eos_token_id, tokenizer.bos_token_id, 0)
        tokenizer.pad_token_id = next(token for token in known if token is not None and token < rows)


def chat_template_of(tokenizer) -> tuple[str, str] | None:
    """Name and text of the chat template; None without. Of several that are stored by name it is `default`,
    or the first."""
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, dict):
        return next(((name, found[name]) for name in ("default", *found) if found.get(name)), None)
    return ("chat_template", found) if found else None


def chat_text(tokenizer, turns: list[dict], **options) -> str:
    """The chat template's text for these turns, the same on every day: templates that write today's date are
    given a fixed one, and so are those that ask the clock by themselves."""
    from transformers.utils.chat_template_utils import _compile_jinja_template  # slow to load

    chosen = chat_template_of(tokenizer)
    assert chosen is not None
    name, template = chosen
    today = DATE.strftime("%d %b %Y")
    try:
        with time_limit(TEMPLATE_SECONDS):
            # apply_chat_template makes text of functions among its options, so the clock is stopped in the
            # compiled template, which transformers keeps and takes again for the same text.
            _compile_jinja_template(template).globals["strftime_now"] = DATE.strftime
            return tokenizer.apply_chat_template(
                turns, chat_template=template, tokenize=False, date_string=today, **options
            )
    except Exception as error:  # a template is a program of others: it raises what it likes
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the tokenizer's chat template {name!r} fails ({type(error).__name__}: {reason}); use"
            " dataset.template qa, or another tokenizer (overall.tokenizer_name)"
        ) from None


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds. Only where signals arrive: in the main thread of
    a system that has alarms; elsewhere there is no limit."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def late(number, frame):
        raise TimeoutError(f"not done after {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def pad_rows(rows: Sequence[tuple[int, Encoded]], pad_id: int) -> dict[str, Tensor]:
    """One batch part from (index, row) pairs: input_ids, attention_mask, labels [B, T] padded on the right to
    the longest row, and `index` [B], the place of each row in its data set. Masks come from lengths, never
    from `ids != pad`."""
    width = max((len(row.input_ids) for _, row in rows), default=1)
    fill = {"input_ids": pad_id, "attention_mask": 0, "labels": IGNORE}
    part = {key: torch.full((len(rows), width), value) for key, value in fill.items()}
    for line, (_, row) in enumerate(rows):
        length = len(row.input_ids)
        part["input_ids"][line, :length] = torch.tensor(row.input_ids)
        part["attention_mask"][line, :length] = torch.tensor(row.attention)
        part["labels"][line, :length] = torch.tensor(row.labels)
    part["index"] = torch.tensor([index for index, _ in rows], dtype=torch.long)
    return part
