"""What language models answered, kept on disk, and what asking them took."""

import json
import logging
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
    """Counts of a run: requests sent, questions answered, looked up, and without a readable answer; tokens as
    the server counts them, of every attempt; replies without such counts; and the parts of a request that the
    server did not accept."""

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
        """One more request."""
        with self.lock:
            self.requests += 1

    def count(self, reported: Any) -> None:
        """Add the server's `usage` object. A figure that is missing or no count of tokens adds nothing."""
        figures = [getattr(reported, name, None) for name in ("prompt_tokens", "completion_tokens")]
        counts = [figure if _is_count(figure) else None for figure in figures]
        with self.lock:
            self.prompt_tokens += counts[0] or 0
            self.completion_tokens += counts[1] or 0
            self.uncounted += None in counts

    def answered(self) -> None:
        """One more question has an answer."""
        with self.lock:
            self.asked += 1

    def local(self, prompt_tokens: int, completion_tokens: int) -> None:
        """One more question was answered here."""
        self.answered()
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def summary(self, price_in: float = 0.0, price_out: float = 0.0) -> dict[str, Any]:
        """As plain values; `cost` where a price for a million tokens is known. `uncounted` and `unsupported`
        only where there are any."""
        found = {
            name: getattr(self, name)
            for name in ("requests", "asked", "cached", "failed", "prompt_tokens", "completion_tokens")
        }
        cost = (price_in * self.prompt_tokens + price_out * self.completion_tokens) / 1e6
        found |= {"cost": round(cost, 6)} if price_in or price_out else {}
        found |= {"uncounted": self.uncounted} if self.uncounted else {}
        return found | ({"unsupported": list(self.unsupported)} if self.unsupported else {})


def _is_count(figure: Any) -> bool:
    return type(figure) is int and 0 <= figure <= MAX_TOKENS


def well_formed(text: str) -> str:
    """The text with a replacement character for each lone surrogate, which no request, hash or file can
    hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class ReplyCache:
    """Key -> reply, in a file of JSON lines that grows as replies come; without a path only in memory."""

    def __init__(self, path: Path | None):
        self.path, self.known, self.lock = path, _read(path) if path else {}, threading.Lock()
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            _mend(path)

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
    """The replies of earlier runs. A line that broke off, or is not what was written, is left out and asked
    for again."""
    found, changed = {}, set()
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            entry = json.loads(line)
            key, reply = entry["key"], entry["reply"]
            if isinstance(reply, str) and entry.get("checksum") == fingerprint(key, reply):
                found[key] = reply
            else:
                changed.add(key)
        except (ValueError, KeyError, TypeError):
            continue
    # One that was asked for again stands below with its checksum and needs no word any more.
    if changed - found.keys():
        log.warning(
            "%s: %d replies are not what was written there, or were written before replies had a checksum;"
            " they are asked for again",
            path,
            len(changed - found.keys()),
        )
    return found


def _mend(path: Path) -> None:
    """End a last line that broke off, so that the next one stands alone."""
    with path.open("ab+") as file:
        size = file.seek(0, 2)
        if size and (file.seek(size - 1), file.read(1))[1] != b"\n":
            file.write(b"\n")
