"""From text to token ids: templates, and labels that are masked by length.

A row is a dict with an `id` and one of
    question, answer[, trace]     asked through the template; a trace stands between the think tags before the answer
    prompt, answer                given to the model as it is, no template (multiple choice, continuations)
    text                          a document; every token after the first is labelled
Prompt and answer are tokenised apart, so no token straddles the border and a prompt is the same with and without answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.files import UserError, fingerprint
from core.likelihood import IGNORE

QA_TEMPLATE = "Question: {question}\nAnswer:\n"
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Encoded:
    """One tokenised row: `input_ids` = prompt + answer + terminator, lengths in tokens."""

    id: str
    input_ids: list[int]
    prompt_length: int
    terminator_length: int

    @property
    def labels(self) -> list[int]:
        """-100 on the prompt, the token ids after it."""
        return [IGNORE] * self.prompt_length + self.input_ids[self.prompt_length:]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.input_ids, self.prompt_length)


class Template:
    """How a question is put to a model.

    `name` is `chat` (the tokenizer's chat template), `qa` (plain question and answer lines), `auto` (chat where the
    tokenizer has one, else qa) or any text with {question} in it, where a written \\n stands for a line break.
    """

    def __init__(self, tokenizer, name: str = "auto"):
        has_chat = bool(getattr(tokenizer, "chat_template", None))
        if name == "chat" and not has_chat:
            raise UserError("dataset.template is 'chat' but the tokenizer has no chat template; use 'qa' or 'auto'")
        self.tokenizer = tokenizer
        self.chat = name == "chat" or (name == "auto" and has_chat)
        self.text = QA_TEMPLATE if name in ("auto", "chat", "qa") else name.replace("\\n", "\n")
        if "{question}" not in self.text:
            raise UserError(f"dataset.template {name!r} has no {{question}} in it; choose auto, chat, qa or such a text")
        self.terminator = self._chat_terminator() if self.chat else self._eos()

    def prompt_ids(self, question: str, thinking: bool = False) -> list[int]:
        """Everything in front of the answer, special tokens included."""
        if self.chat:
            return self._chat_ids(question, thinking)
        if thinking:
            raise UserError("thinking needs a chat template with a thinking switch; this run uses a plain template")
        return self.tokenizer(self.text.replace("{question}", question), add_special_tokens=True)["input_ids"]

    def encode(self, row: dict, max_length: int = 512) -> Encoded:
        """Tokenise a row; UserError naming the row when no answer token is left or it is longer than `max_length`."""
        prompt, answer, terminator = self._parts(row)
        ids = prompt + answer + terminator
        if not answer:
            raise UserError(f"row {row['id']!r} has no answer token")
        if len(ids) > max_length:
            raise UserError(f"row {row['id']!r} has {len(ids)} tokens, more than dataset.max_length {max_length}; "
                            "raise it or shorten the row: cutting it would cut the answer")
        return Encoded(row["id"], ids, len(prompt), len(terminator))

    def _parts(self, row: dict) -> tuple[list[int], list[int], list[int]]:
        if "text" in row:
            start = self._plain(row["text"], special=True)
            return start[:1], start[1:], self._eos()
        if "prompt" in row:
            return self._plain(row["prompt"], special=True), self._plain(" " + row["answer"].lstrip()), self._eos()
        trace = row.get("trace")
        answer = f"{THINK_OPEN}{trace}{THINK_CLOSE}{row['answer']}" if trace else row["answer"]
        return self.prompt_ids(row["question"], thinking=bool(trace)), self._plain(answer), self.terminator

    def _plain(self, text: str, special: bool = False) -> list[int]:
        return self.tokenizer(text, add_special_tokens=special)["input_ids"]

    def _eos(self) -> list[int]:
        eos = self.tokenizer.eos_token_id
        return [] if eos is None else [eos]

    def _chat_ids(self, question: str, thinking: bool) -> list[int]:
        text = self.tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False,
                                                  add_generation_prompt=True, enable_thinking=thinking)
        return self._plain(text)

    def _chat_terminator(self) -> list[int]:
        """What the chat template puts after an assistant's words (end-of-turn, for some a line break too)."""
        turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "answer-mark"}]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False)
        return self._plain(text.rpartition("answer-mark")[2].rstrip("\n")) or self._eos()


def pad_rows(rows: Sequence[tuple[int, Encoded]], pad_id: int) -> dict[str, Tensor]:
    """One batch part from (index, row) pairs: input_ids, attention_mask, labels [B, T] padded on the right to the longest
    row, and `index` [B], the place of each row in its data set. Masks come from lengths, never from `ids != pad`."""
    width = max(len(row.input_ids) for _, row in rows)
    fill = {"input_ids": pad_id, "attention_mask": 0, "labels": IGNORE}
    part = {key: torch.full((len(rows), width), value) for key, value in fill.items()}
    for line, (_, row) in enumerate(rows):
        length = len(row.input_ids)
        part["input_ids"][line, :length] = torch.tensor(row.input_ids)
        part["attention_mask"][line, :length] = 1
        part["labels"][line, :length] = torch.tensor(row.labels)
    part["index"] = torch.tensor([index for index, _ in rows])
    return part
