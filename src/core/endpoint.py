"""Questions to a language model behind an OpenAI-compatible server: many at once, sent again when they fail,
never asked twice."""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from core.files import UserError, fingerprint
from core.replies import Replies, Usage

log = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
LONGEST_PAUSE = 30.0
"""Seconds between two attempts at most, but where the server itself names more."""
NOT_SENT = "not sent"
PATIENCE = (408, 409, 429)
"""Statuses below 500 after which a request is sent again."""


class Unreadable(Exception):
    """A reply of the server that is none."""


class Unfinished(Unreadable):
    """A reply that the server cut off."""


class Pace:
    """Lets at most so many requests start in a minute (0 is no limit), and none after `stop`."""

    def __init__(self, per_minute: float):
        self.gap = 60 / per_minute if per_minute else 0.0
        self.next, self.lock, self.stopped = 0.0, threading.Lock(), threading.Event()

    def stop(self) -> None:
        self.stopped.set()

    def wait(self, pause: float = 0.0) -> None:
        """Until `pause` seconds are over and the next request may start; Unreadable when there is to be
        none."""
        with self.lock:
            start = max(time.monotonic() + pause, self.next)
            self.next = max(self.next, time.monotonic()) + self.gap
        if self.stopped.wait(max(0.0, start - time.monotonic())):
            raise Unreadable(NOT_SENT)


@dataclass(frozen=True)
class Endpoint:
    """A model and how it is reached. `base_url` None is OpenAI's own server. The key is read from the
    environment variable `key_env` at the moment of asking, and kept nowhere. `section` is where its settings
    stand; `max_tokens` 0 leaves the length of replies to the server; `whole` takes no reply that was cut
    off."""

    model: str
    base_url: str | None = None
    key_env: str = "OPENAI_API_KEY"
    concurrency: int = 8
    retries: int = 4
    timeout: float = 60.0
    cache: Path = Path(".cache")
    requests_per_minute: float = 0.0
    section: str = "judge"
    max_tokens: int = 0
    whole: bool = False
    usage: Usage = field(default_factory=Usage, compare=False)

    @property
    def name(self) -> str:
        return self.model

    @property
    def key(self) -> str:
        return os.environ.get(self.key_env, "").strip()

    def check(self) -> None:
        """UserError when there is no key for a server that needs one, or one that no request can carry."""
        if not self.base_url and not self.key:
            raise UserError(
                f"{self.section}.key_env: the environment variable {self.key_env} holds no key; export it, or"
                f" name a server of your own with {self.section}.base_url"
            )
        if not (self.key.isascii() and self.key.isprintable()):
            raise UserError(
                f"{self.section}.key_env: the key in the environment variable {self.key_env} has characters"
                " that no key has; copy it anew"
            )

    def probe(self) -> None:
        """UserError, with what to do, when the server cannot be reached, refuses the key or does not know the
        model: one short question, sent again as every other."""
        from openai import (
            APIConnectionError,
            APIStatusError,
            AuthenticationError,
            NotFoundError,
            PermissionDeniedError,
        )

        self.check()
        here, url = self.section, self.base_url or "OpenAI's server"
        try:
            self._one(self._client(), "Reply with one word.", "Are you there?", 0.0, Pace(0))
        except (AuthenticationError, PermissionDeniedError):
            raise UserError(
                f"{here}.key_env: {url} refuses the key in the environment variable {self.key_env}"
                + ("" if self.key else ", which is empty")
            ) from None
        except NotFoundError as error:
            raise UserError(
                f"{here}.model, {here}.base_url: {url} does not know {self.model!r} or is not the root of an"
                f" OpenAI-compatible API ({self._short(error)})"
            ) from None
        except APIConnectionError as error:
            raise UserError(
                f"{here}.base_url: {url} cannot be reached ({self._short(error)}); is it running?"
            ) from None
        except APIStatusError as error:
            raise UserError(
                f"{here}: {url} answers with status {error.status_code} ({self._short(error)})"
            ) from None
        except Unfinished:
            pass  # it is there
        except Exception as error:  # what is no answer of the protocol comes as many types
            raise UserError(
                f"{here}.base_url: {url} does not answer as an OpenAI-compatible server does"
                f" ({self._short(error)})"
            ) from None

    def ask(
        self,
        system: str,
        prompts: Sequence[str],
        readable: Callable[[str], bool] = lambda reply: True,
        temperature: float = 0.0,
        turns: Sequence[int] | None = None,
    ) -> list[str | None]:
        """The replies to prompts under a system text, in their order; None where none came after all retries,
        or none that is `readable`. Replies are kept in the cache as they come, and what is there is not asked
        for; failures and what cannot be read are never kept. A prompt that is asked for another reply has
        another of `turns`. When the wait is interrupted, questions that were not sent yet never are; nor are
        they once the server has gone."""
        asked = {"temperature": temperature, "max_tokens": self.max_tokens}
        place = fingerprint(self.base_url, self.model, system, {k: v for k, v in asked.items() if v})
        known = Replies(self.cache / "endpoint" / f"{place}.jsonl")
        keys = (
            [fingerprint(prompt) for prompt in prompts]
            if turns is None
            else list(map(fingerprint, prompts, turns))
        )
        missing = {key: prompt for key, prompt in zip(keys, prompts) if key not in known}
        self.usage.cached += len(prompts) - len(missing)
        failures, unread, lost = [], [], [0]
        client, pace = self._client() if missing else None, Pace(self.requests_per_minute)

        def work(key: str, prompt: str) -> None:
            try:
                reply = self._one(client, system, prompt, temperature, pace)
            except Exception as error:
                # Whatever the client raises: the row stays unscored and the run goes on.
                failures.append(self._short(error))
                lost[0] += _is_lost(error)
                if lost[0] > self.concurrency:
                    pace.stop()
                return
            lost[0] = 0
            if readable(reply):
                known.add(key, reply)
            else:
                unread.append(self._short(reply))

        pool = ThreadPoolExecutor(self.concurrency)
        try:
            for future in as_completed([pool.submit(work, key, prompt) for key, prompt in missing.items()]):
                future.result()
        finally:
            pace.stop()
            pool.shutdown(wait=True, cancel_futures=True)
        self.usage.failed += len(failures) + len(unread)
        if failures:
            gone = (
                f"; it cannot be reached, {failures.count(NOT_SENT)} of them were not sent"
                if NOT_SENT in failures
                else ""
            )
            log.warning(
                "%s gave no answer to %d of %d questions (%s)%s",
                self.model,
                len(failures),
                len(prompts),
                failures[0],
                gone,
            )
        if unread:
            log.warning(
                "%s: %d of %d answers cannot be read (%s)", self.model, len(unread), len(prompts), unread[0]
            )
        return [known.get(key) for key in keys]

    def _client(self):
        from openai import OpenAI

        return OpenAI(
            base_url=self.base_url or OPENAI, api_key=self.key or "none", max_retries=0, timeout=self.timeout
        )

    def _one(self, client, system: str, prompt: str, temperature: float, pace: Pace) -> str:
        """One reply. What fails on the way, or is no reply, is asked for again after growing pauses, at the
        same pace as all."""
        from openai import APIConnectionError, APIStatusError

        pause = 0.0
        for attempt in range(self.retries + 1):
            pace.wait(pause)
            try:
                return self._reply(client, system, prompt, temperature)
            except (APIConnectionError, APIStatusError, Unreadable) as error:
                status = getattr(error, "status_code", 500)
                if (
                    attempt == self.retries
                    or isinstance(error, Unfinished)
                    or (status < 500 and status not in PATIENCE)
                ):
                    raise
                pause = _pause(attempt, error)
        raise Unreadable("no attempt was made")

    def _reply(self, client, system: str, prompt: str, temperature: float) -> str:
        """What the server replies to one request."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        budget = {"max_tokens": self.max_tokens} if self.max_tokens else {}
        self.usage.sent()
        try:
            reply = client.chat.completions.create(
                model=self.model, messages=messages, temperature=temperature, **budget
            )
        except ValueError as error:
            raise Unreadable(f"the server's reply is no JSON: {error}") from None
        self.usage.count(getattr(reply, "usage", None))
        listed = getattr(reply, "choices", None)
        choices = listed if isinstance(listed, list) else []
        text = getattr(getattr(choices[0], "message", None), "content", None) if choices else None
        if not isinstance(text, str) or not text.strip():
            raise Unreadable("the server's reply has no text")
        if self.whole and choices[0].finish_reason == "length":
            raise Unfinished(f"the server cut its reply off at {self.max_tokens or 'its own'} tokens")
        self.usage.answered()
        return text

    def _short(self, error: Exception | str) -> str:
        """An error or a reply in a few words, and never with the key in it, whatever the server sends
        back."""
        text = " ".join(str(error).split())
        return (text.replace(self.key, "***") if self.key else text)[:200]


def _is_lost(error: Exception) -> bool:
    """Is there no server any more?"""
    from openai import APIConnectionError, APITimeoutError

    return isinstance(error, APIConnectionError) and not isinstance(error, APITimeoutError)


def _pause(attempt: int, error: Exception) -> float:
    """Seconds until the next attempt: what the server asks for, else growing ones that differ between
    threads."""
    named = getattr(getattr(error, "response", None), "headers", {}).get("retry-after", "")
    if named.replace(".", "", 1).isdigit():
        return float(named)
    return min(LONGEST_PAUSE, 0.5 * 2**attempt) * random.uniform(0.75, 1.25)
