"""Encoding of rows as token ids: templates, and labels masked by length.

A row is a dict with an `id` and one of
    question, answer[, trace]     put into the template; the trace goes between the think tags before the
                                  answer, `turns` (of a chat: role and content) before the question
    prompt, answer                verbatim, without template (multiple choice, continuations)
    text                          a document; every token after the first is labelled
No token straddles the border of prompt and answer, so a prompt has the same ids with and without answer.
"""

import contextlib
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
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
"""Keys of a row that its prompt is made of."""
SHORTEST_PIECE = 8
"""Number of tokens below which the end of a long document is not a piece of its own."""
EMBEDDING_ROWS = "embedding_rows"
"""Attribute of a tokenizer with more tokens than the model's embedding has rows: the number of rows."""
TEMPLATE_SECONDS = 10.0
"""Time limit of a chat template for one text."""
DATE = datetime(2024, 7, 26)
"""Date in chat templates, fixed so that prompts are the same on every day: the fallback of Llama's
template."""


@dataclass(frozen=True)
class Encoded:
    """A tokenised row.

    Args:
        id: Id of the row.
        input_ids: Prompt, answer and terminator.
        prompt_length: Number of prompt tokens.
        terminator_length: Number of last tokens that end the answer.
        unseen_id: Token id that attention reaches nowhere; None but in `core.parity_templates`.
        seen: Number of first tokens that attention reaches; None is all.
    """

    id: str
    input_ids: list[int]
    prompt_length: int
    terminator_length: int
    unseen_id: int | None = None
    seen: int | None = None

    @property
    def attention(self) -> list[int]:
        """Attention mask: 1 for every token that attention reaches."""
        end = len(self.input_ids) if self.seen is None else self.seen
        return [int(place < end and token != self.unseen_id) for place, token in enumerate(self.input_ids)]

    @property
    def labels(self) -> list[int]:
        """-100 on the prompt, token ids after it."""
        return [IGNORE] * self.prompt_length + self.input_ids[self.prompt_length :]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.input_ids, self.prompt_length)


class Latest:
    """A function that remembers its latest arguments and result."""

    def __init__(self, compute: Callable):
        self.compute, self.known = compute, None

    def __call__(self, *arguments):
        if self.known is None or self.known[0] != arguments:
            self.known = arguments, self.compute(*arguments)
        return self.known[1]


class Template:
    """Prompt format of a model, and the encoding of rows in it.

    Args:
        tokenizer: Tokenizer of the model.
        name: `chat` (the tokenizer's chat template), `qa` (plain question and answer lines), `auto` (chat
            where the tokenizer has one, else qa), or a text with {question} in it, where a written \\n is a
            line break. A text that ends in the opening think tag lets the model think.
        tags: Opening and closing tag of reasoning traces.

    Raises:
        UserError: The tokenizer has no chat template, or the text has no {question}.
    """

    unseen_id: int | None = None
    allows_empty_answers = False
    """Whether a row may have no answer token but its terminator."""

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
        # The answers of a row come one after the other, all to the same prompt.
        self._latest_text, self._latest_ids = Latest(self._render_prompt), Latest(self._ids)
        self.gap = "\n" if re.search(re.escape(tags.open) + r"(\\n|\n)", self._template) else ""
        self.terminator = self._chat_terminator() if self.chat else self._eos()

    @cached_property
    def stop_ids(self) -> list[int]:
        """Special tokens of the terminator: generation stops at them."""
        # Not at ordinary text in the terminator: Llama 2 ends turns with a blank and EOS.
        return [token for token in self.terminator if token in self._marks]

    @property
    def _marks(self) -> set[int]:
        """Ids other than ordinary text: special tokens, and added ones that are neither blanks nor tags."""
        added = {
            number: token.content
            for number, token in self.tokenizer.added_tokens_decoder.items()
            if token.content.strip() and token.content not in (self.tags.open, self.tags.close)
        }
        return {*self.tokenizer.all_special_ids, *added}

    @property
    def fingerprint(self) -> str:
        """Hash of the tokens around a question and an answer, for cache keys: tokens, not settings, since a
        tokenizer may change under the same name."""
        modes = ("direct", "thinking") if self.supports_thinking() else ("direct",)
        prompts = [self.prompt_ids("Q", mode) for mode in modes]
        return fingerprint(prompts, self.text_ids("Q"), self.terminator)

    def prompt_ids(self, question: str, mode: str = "direct", turns: Sequence[dict] = ()) -> list[int]:
        """Encode a prompt, special tokens included.

        Args:
            question: The question.
            mode: One of `core.thinking.MODES`.
            turns: Earlier turns of the chat.

        Raises:
            UserError: The mode needs a template that supports thinking.
        """
        return self._ids(self.prompt_text(question, mode, turns), special=mode == "plain" or not self.chat)

    def open_trace_ids(self, question: str, turns: Sequence[dict] = ()) -> list[int]:
        """Encode a prompt that ends with the opening think tag."""
        return self._ids(self._thinking_prompt(question, turns), special=not self.chat)

    def text_ids(self, text: str) -> list[int]:
        """Encode a verbatim prompt."""
        return self._ids(text, special=True)

    def encode(self, row: dict, max_length: int = 512) -> Encoded:
        """Encode a row.

        Args:
            row: The row, see the module's docstring.
            max_length: Most tokens of prompt, answer and terminator.

        Raises:
            UserError: The row has no answer token, is longer than `max_length`, or has a trace that the
                template does not support; the message names the row.
        """
        try:
            prompt, answer, terminator = self._parts(row)
        except UserError as error:
            raise UserError(f"row {row['id']!r}: {error}") from None
        ids = prompt + answer + terminator
        if not answer and not (terminator and self.allows_empty_answers):
            raise UserError(f"row {row['id']!r} has no answer token")
        if len(ids) > max_length:
            raise UserError(
                f"row {row['id']!r} has {len(ids)} tokens, more than dataset.max_length {max_length}; "
                "raise it or shorten the row: cutting it would cut the answer"
            )
        return Encoded(row["id"], ids, len(prompt), len(terminator), self.unseen_id)

    def encode_trace(self, row: dict, limit: int, context: str | None = None) -> Encoded:
        """Encode the first tokens of a trace, without closing tag and answer.

        Args:
            row: Row with id, question and trace.
            limit: Most tokens of the trace, all labelled.
            context: Text in place of question and opening tag.

        Raises:
            UserError: The trace is empty.
        """
        if context is None:
            opened = self._thinking_prompt(row["question"], row.get("turns", ()))
            prompt, trace = self._split(opened, row["trace"], special=not self.chat)
        else:
            prompt, trace = self._split(context, row["trace"], special=True)
        if not trace:
            raise UserError(f"row {row['id']!r} has an empty trace")
        return Encoded(row["id"], prompt + trace[:limit], len(prompt), 0)

    def pieces(self, row: dict, max_length: int, long_text: str = "error") -> list[Encoded]:
        """Encode a row; a document longer than `max_length` by `long_text`.

        Args:
            row: The row.
            max_length: Most tokens of a piece.
            long_text: `first` for the first `max_length` tokens, `pieces` for pieces of that length, or
                `error`.

        Returns:
            One encoded row, or one per piece, with ids `<id>#<number>`.
        """
        if "text" not in row or long_text == "error":
            return [self.encode(row, max_length)]
        start, body, end = self._parts(row)
        if len(start + body + end) <= max_length:
            return [Encoded(row["id"], start + body + end, len(start), len(end))]
        if long_text == "first":
            return [Encoded(row["id"], (start + body + end)[:max_length], len(start), 0)]
        # BOS, where there is one, begins every piece. Without it `start` is the text's first token, which
        # has no context to predict it from: part of the first piece alone, unlabelled.
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
            blank = "" if row["prompt"][-1:].isspace() else " "
            return *self._split(row["prompt"], blank + row["answer"].lstrip(), special=True), self._eos()
        trace, answer = row.get("trace"), row["answer"]
        prompt = self.prompt_text(row["question"], "thinking" if trace else "direct", row.get("turns", ()))
        if trace:
            opening = self._with_open_tag(prompt).removeprefix(prompt)
            answer = f"{opening}{trace}{self.gap}{self.tags.close}{2 * self.gap}{answer}"
        return *self._split(prompt, answer, special=not self.chat), self.terminator

    def prompt_text(self, question: str, mode: str, turns: Sequence[dict] = ()) -> str:
        """Prompt as text, special tokens of the template included; arguments as in `prompt_ids`."""
        return self._latest_text(question, mode, tuple(map(dict, turns)))

    def _render_prompt(self, question: str, mode: str, turns: Sequence[dict]) -> str:
        if mode == "plain":
            return _plain_prompt(QA_TEMPLATE, question, turns)
        if mode != "direct" and not self.supports_thinking():
            raise UserError(
                f"thinking needs a template with {self.tags.open}, or one with a thinking switch and a"
                f" tokenizer that knows {self.tags.open}; see dataset.template and dataset.think_open"
            )
        if self.chat:
            prompt = self._chat(
                [*turns, {"role": "user", "content": question}],
                add_generation_prompt=True,
                enable_thinking=mode in ("thinking", "less", "more"),
            )
        else:
            prompt = _plain_prompt(self.text, question, turns)
        opened = self._with_open_tag(prompt)
        if mode == "less":
            return f"{opened}{SHORT_TRACE}{self.gap}{self.tags.close}{2 * self.gap}"
        # Some chat templates add the empty trace themselves when thinking is off, others open a trace
        # whatever the switch says.
        lacks_empty_trace = mode == "zero" and not prompt.rstrip().endswith(self.tags.close)
        opens_trace = mode == "direct" and opened == prompt
        if lacks_empty_trace or opens_trace:
            return f"{opened}{self.gap}{self.tags.close}{2 * self.gap}"
        return prompt

    def _thinking_prompt(self, question: str, turns: Sequence[dict] = ()) -> str:
        """Prompt that ends with the opening think tag; without a chat template the question itself may have
        it."""
        if not self.chat and self.tags.open in question:
            return question
        return self._with_open_tag(self.prompt_text(question, "thinking", turns))

    def supports_thinking(self) -> bool:
        """Whether the template contains the opening tag, or has a thinking switch for a tokenizer that
        does."""
        return self.tags.open in self._template or (
            THINKING_SWITCH in self._template and self.tags.open in self.tokenizer.get_vocab()
        )

    @property
    def _template(self) -> str:
        chat = chat_template_of(self.tokenizer) if self.chat else None
        return chat[1] if chat else self.text

    def _with_open_tag(self, prompt: str) -> str:
        """The prompt with the opening tag at its end; some chat templates put it there themselves."""
        return prompt if prompt.rstrip().endswith(self.tags.open) else f"{prompt}{self.tags.open}{self.gap}"

    def _split(self, prompt: str, answer: str, special: bool) -> tuple[list[int], list[int]]:
        """Ids of prompt and answer. No token straddles their border, so that the prompt has the same ids with
        and without answer."""
        # Tokenised together where that leaves the prompt as it is: a tokenizer that marks the starts of words
        # needs to see the text before the answer.
        prompt_ids = list(self._latest_ids(prompt, special))
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
        """Ids that the chat template puts after an assistant's text, without the line break at their end,
        which begins the next turn."""
        text = self._chat([{"role": "user", "content": "Q"}, {"role": "assistant", "content": MARK}])
        head, found, tail = text.rpartition(MARK)
        if not found:  # a template may drop assistant turns
            return self._eos()
        return self._split(head + MARK, tail.rstrip("\n"), special=False)[1] or self._eos()


def _plain_prompt(text: str, question: str, turns: Sequence[dict]) -> str:
    """A question in a template without roles, after a system text and earlier questions with their
    answers."""
    parts = [
        text.replace("{question}", turn["content"]) if turn["role"] == "user" else f"{turn['content']}\n\n"
        for turn in turns
    ]
    return "".join([*parts, text.replace("{question}", question)])


def _cuts(ids: list[int], size: int) -> list[list[int]]:
    """Cut ids into pieces of at most `size` tokens. Where the last would be shorter than `SHORTEST_PIECE`,
    the last two get equal shares."""
    borders = list(range(0, len(ids), size))
    if len(ids) - borders[-1] < SHORTEST_PIECE and len(borders) > 1:
        borders[-1] = (borders[-2] + len(ids)) // 2
    return [ids[a:b] for a, b in zip(borders, [*borders[1:], len(ids)])]


def leading_ids(tokenizer) -> list[int]:
    """Ids that a tokenizer puts in front of every text: BOS once, or nothing. (Ids that it appends, as EOS,
    are left out: they would stand between prompt and answer.)"""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    ends = range(len(whole) - len(plain) + 1)
    at = next((k for k in ends if whole[k : k + len(plain)] == plain), 0)
    return list(dict.fromkeys(whole[:at]))


def text_ids(tokenizer, text: str, start: Sequence[int] = ()) -> list[int]:
    """Encode a text.

    Args:
        tokenizer: Tokenizer, after `fit_tokenizer` if its model's embedding may be smaller.
        text: The text.
        start: Ids to put in front, unless the text begins with them already (its own BOS).

    Raises:
        UserError: A token is beyond the model's embedding.
    """
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
    """Record on a tokenizer how many `rows` the model's embedding has. A pad token beyond them (added without
    resizing the model) is replaced: the embedding of padding has no effect, but must exist."""
    if len(tokenizer) <= rows:
        return
    setattr(tokenizer, EMBEDDING_ROWS, rows)
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= rows:
        known = (tokenizer.eos_token_id, tokenizer.bos_token_id, 0)
        tokenizer.pad_token_id = next(token for token in known if token is not None and token < rows)


def chat_template_of(tokenizer) -> tuple[str, str] | None:
    """Name and text of the chat template; of several, `default` or else the first; None without one."""
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, dict):
        return next(((name, found[name]) for name in ("default", *found) if found.get(name)), None)
    return ("chat_template", found) if found else None


def chat_text(tokenizer, turns: list[dict], **options) -> str:
    """Text of a chat in the tokenizer's chat template, with a fixed date where the template writes today's.

    Args:
        tokenizer: Tokenizer with a chat template.
        turns: Dicts with role and content.
        options: Further variables of the template.

    Raises:
        UserError: The template fails, or exceeds its time limit.
    """
    from transformers.utils.chat_template_utils import _compile_jinja_template  # slow to load

    chosen = chat_template_of(tokenizer)
    assert chosen is not None
    name, template = chosen
    today = DATE.strftime("%d %b %Y")
    try:
        with time_limit(TEMPLATE_SECONDS):
            # apply_chat_template turns functions among its options into text, so strftime_now is replaced in
            # the compiled template, which transformers caches by its text.
            _compile_jinja_template(template).globals["strftime_now"] = DATE.strftime
            return tokenizer.apply_chat_template(
                turns, chat_template=template, tokenize=False, date_string=today, **options
            )
    except Exception as error:  # a template is a program of its author and may raise anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the tokenizer's chat template {name!r} fails ({type(error).__name__}: {reason}); use"
            " dataset.template qa, or another tokenizer (overall.tokenizer_name)"
        ) from None


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`. No limit outside the main thread or on a system
    without alarms, where the signal does not arrive."""
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
    """Pad rows on the right to a batch part.

    Args:
        rows: (index in the data set, encoded row) pairs.
        pad_id: Id of padding. Masks come from lengths, never from `ids != pad_id`: EOS is often the pad
            token.

    Returns:
        input_ids, attention_mask and labels, [B, T], and index, [B].
    """
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
