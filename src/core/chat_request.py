"""Form of a chat request: the parts of it that a server accepts, found out from its errors."""

import contextlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from threading import Lock
from typing import Any

from .files import write_json

FALLBACKS = {
    "temperature": "the server samples at its own temperature, and replies may differ between runs",
    "system": "the instructions are put before the question in the user's turn",
    "max_tokens": "the limit is sent as max_completion_tokens",
    "max_completion_tokens": "no limit is sent",
}
"""Parts of a request that a server may refuse -> what is sent in their place, for messages."""

NAMES = {
    "temperature": re.compile(r"\btemperature\b"),
    "system": re.compile(
        r"\bsystem\b|\bdeveloper instruction|\broles? must alternate|\broles are supported|\brole\b.*'user'"
    ),
    "max_tokens": re.compile(r"\bmax_tokens\b"),
    "max_completion_tokens": re.compile(r"\bmax_completion_tokens\b"),
}
REFUSAL = re.compile(
    r"\bnot (?:\w+ )?(?:support|allow|permit|accept|enabl|availab|recogni)|n't (?:support|allow|accept)"
    r"|unsupported|unrecogni[sz]ed|unknown|unexpected|forbidden|deprecated|invalid role|must alternate"
    r"|\bonly (?:the default|\S+ is\b|be set to|user)|should be 'user'|strictly positive"
)
OUT_OF_RANGE = re.compile(r"\bbetween\b|\brange\b|\bat most\b|\bmaximum\b|\bless than\b|<=|≤")
"""An error about the value of a part that the server does accept."""
CLAUSE = re.compile(r"[.;!?]\s|[\n}]")


class RequestForm:
    """Parts of a request that one server refuses, in a file of the cache.

    The file serves the next Endpoint, and a run whose replies are all cached while the server is down: the
    form is part of their keys. `settled` is true once the server has replied to a request of this form.
    """

    def __init__(self, path: Path):
        self.path, self.lock, self.settled = path, Lock(), False
        self.unsupported = frozenset(_read(path))

    def exclude(self, parts: Collection[str]) -> list[str]:
        """Leave out `parts` from now on; returns those that were still sent."""
        with self.lock:
            new = sorted(set(parts) - self.unsupported)
            if new:
                self.unsupported, self.settled = self.unsupported.union(new), False
                write_json(self.path, {"unsupported": sorted(self.unsupported)})
            return new

    def reset(self) -> None:
        """Send all parts again: the server at this address may have changed."""
        self.unsupported, self.settled = frozenset(), False

    def settle(self) -> None:
        """Note that the server accepts this form."""
        if not self.settled and not self.unsupported:
            self.path.unlink(missing_ok=True)
        self.settled = True


def request_fields(
    system: str, prompt: str, temperature: float, max_tokens: int, unsupported: Collection[str]
) -> dict[str, Any]:
    """Fields of a request without its `unsupported` parts; `max_tokens` 0 sends no limit."""
    turns = [("system", system), ("user", prompt)]
    if "system" in unsupported:
        turns = [("user", f"{system}\n\n{prompt}")]
    fields: dict[str, Any] = {"messages": [{"role": role, "content": text} for role, text in turns]}
    if "temperature" not in unsupported:
        fields["temperature"] = temperature
    limits = [name for name in ("max_tokens", "max_completion_tokens") if name not in unsupported]
    if limits and max_tokens:
        fields[limits[0]] = max_tokens
    return fields


def refused_parts(fields: Collection[str], status: int, body: Any) -> set[str]:
    """Parts of a request that a server does not accept at all, by its error.

    An error about a value out of range is not such a refusal: the user has to change the value.

    Args:
        fields: Names of the fields that were sent; `messages` held a system role.
        status: HTTP status of the error. Only 400 and 422 concern the form of a request.
        body: The `error` object (or text) of the reply. Its `param` has priority over names in the message.

    Returns:
        Names among `FALLBACKS`.
    """
    if status not in (400, 422):
        return set()
    details = body if isinstance(body, dict) else {}
    param, message = details.get("param"), details.get("message")
    text = f"{message} {details.get('code')}" if isinstance(message, str) else str(body)
    sent = {"system" if name == "messages" else name for name in fields}
    if isinstance(param, str) and param:
        return sent & _refused_param(param, text.lower())
    # By clause, since a message may refuse one part and name others: "use max_completion_tokens instead".
    refusing = [clause for clause in CLAUSE.split(text.lower()) if _refuses(clause)]
    return {part for part in sent & set(NAMES) if any(NAMES[part].search(clause) for clause in refusing)}


def _refused_param(param: str, text: str) -> set[str]:
    if param.startswith(("messages", "system")) or param.endswith("role"):
        # Every server accepts the user role, so an error about a role is about the system role.
        about_system = param.endswith("role") or (_refuses(text) and NAMES["system"].search(text))
        return {"system"} if about_system else set()
    return {param.rpartition(".")[2]} & set(NAMES) if _refuses(text) else set()


def _refuses(text: str) -> bool:
    return bool(REFUSAL.search(text)) and not OUT_OF_RANGE.search(text)


def _read(path: Path) -> set[str]:
    """Parts that an earlier run found out; none for a missing or broken file, since they are found again."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        return set(json.loads(path.read_bytes())["unsupported"]) & set(FALLBACKS)
    return set()
