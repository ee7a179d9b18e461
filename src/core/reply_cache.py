"""Replies of language models cached on disk, and counts of what they cost."""

import json
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import append_jsonl, fingerprint

log = logging.getLogger(__name__)

MAX_TOKENS = 10**9
"""More than any request has: a higher figure is not a count."""


@dataclass
class Usage:
    """Counts of a run.

    Args:
        requests: Requests sent, retries included.
        asked: Questions with a reply.
        cached: Questions whose reply came from the cache.
        failed: Questions without a readable reply.
        prompt_tokens: Tokens of the prompts of every attempt, as the server counts them.
        completion_tokens: Tokens of the replies of every attempt, as the server counts them.
        uncounted: Replies without such counts.
        unsupported: Parts of a request that the server refuses.
    """

    requests: int = 0
    asked: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    unsupported: Sequence[str] = ()
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def sent(self) -> None:
        """Count a request."""
        with self.lock:
            self.requests += 1

    def count(self, reported: Any) -> None:
        """Add the server's `usage` object; a figure that is missing or not a count of tokens adds nothing."""
        figures = [getattr(reported, name, None) for name in ("prompt_tokens", "completion_tokens")]
        # `type` instead of isinstance: true and false are not counts.
        valid = [type(figure) is int and figure in range(MAX_TOKENS + 1) for figure in figures]
        counts = [figure if ok else None for figure, ok in zip(figures, valid)]
        with self.lock:
            self.prompt_tokens += counts[0] or 0
            self.completion_tokens += counts[1] or 0
            self.uncounted += None in counts

    def answered(self) -> None:
        """Count a question with a reply."""
        with self.lock:
            self.asked += 1

    def local(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count a question with a reply of a model in this process."""
        self.answered()
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def summary(self, price_in: float = 0.0, price_out: float = 0.0) -> dict[str, Any]:
        """The counts as a dict.

        Args:
            price_in: Price of a million prompt tokens.
            price_out: Price of a million tokens of replies.

        Returns:
            Name -> count; `cost` with a price, `uncounted` and `unsupported` where there are any.
        """
        found = {
            name: getattr(self, name)
            for name in ("requests", "asked", "cached", "failed", "prompt_tokens", "completion_tokens")
        }
        cost = (price_in * self.prompt_tokens + price_out * self.completion_tokens) / 1e6
        found |= {"cost": round(cost, 6)} if price_in or price_out else {}
        found |= {"uncounted": self.uncounted} if self.uncounted else {}
        return found | ({"unsupported": list(self.unsupported)} if self.unsupported else {})


def well_formed(text: str) -> str:
    """Replace lone surrogates, which fit in no request, hash or file."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class ReplyCache:
    """Key -> reply, in a file of JSON lines that each reply is appended to; without a path only in memory."""

    def __init__(self, path: Path | None):
        self.path, self.lock = path, threading.Lock()
        self.known = _read(path) if path else {}
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            _end_last_line(path)

    def __contains__(self, key: str) -> bool:
        return key in self.known

    def get(self, key: str) -> str | None:
        return self.known.get(key)

    def add(self, key: str, reply: str) -> None:
        with self.lock:
            self.known[key] = reply
            if self.path:
                append_jsonl(self.path, {"key": key, "reply": reply, "checksum": fingerprint(key, reply)})


def _read(path: Path) -> dict[str, str]:
    """Replies of earlier runs. A line that is cut, or does not fit its checksum, is left out, so that its
    question is sent again."""
    if not path.is_file():
        return {}
    found, changed = {}, set()
    # Bytes, split at newlines alone: a cut line may not be UTF-8, and replies may hold other line separators.
    for line in path.read_bytes().split(b"\n"):
        try:
            entry = json.loads(line)
            key, reply = entry["key"], entry["reply"]
            if isinstance(reply, str) and entry.get("checksum") == fingerprint(key, reply):
                found[key] = reply
            else:
                changed.add(key)
        except (ValueError, KeyError, TypeError):
            continue
    # A reply that an earlier run has requested again stands further down, with its checksum.
    if changed - found.keys():
        log.warning(
            "%s: %d replies do not fit their checksum, or were written before replies had one; they are"
            " requested again",
            path,
            len(changed - found.keys()),
        )
    return found


def _end_last_line(path: Path) -> None:
    """End a line that a killed run cut, so that the next reply is not appended to it."""
    with path.open("ab+") as file:
        if size := file.seek(0, os.SEEK_END):
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")
