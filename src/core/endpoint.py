"""Questions to a language model behind an OpenAI-compatible server: many at once, sent again when they fail,
never asked twice."""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from .chat_request import FALLBACKS, RequestForm, refused_parts, request_fields
from .files import UserError, fingerprint
from .reply_cache import ReplyCache, Usage, well_formed

log = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
LONGEST_PAUSE = 30.0
"""Seconds between two attempts at most, unless the server names more."""
LONGEST_RETRY_AFTER = 60.0
"""Seconds of a server's Retry-After that are waited at most: limits are mostly per minute."""
NOTABLE_RETRY_AFTER = 10.0
"""Seconds of a Retry-After from which on the wait is reported."""
DEADLINE = 5
"""Times the timeout in which a reply must be whole. The client's timeout is for each read, so a server that
sends a byte now and then would never reach it."""
NOT_SENT = "not sent"
RETRYABLE_STATUS = (408, 409, 429)
"""Statuses below 500 after which a request is sent again."""

Result = TypeVar("Result")


class Unreadable(Exception):
    """A reply of the server that is none."""


class Unfinished(Unreadable):
    """A reply that the server cut off."""


class FormChanged(Exception):
    """The server refused a part of the request, which is left out from now on."""


@dataclass
class Problems:
    """Questions without a reply, by their errors, and replies that cannot be read."""

    failures: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


class RateLimiter:
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
    off. What the server refuses of a request (`temperature`, the system role, `max_tokens`) is left out from
    then on."""

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
    temperature: float = 0.0
    usage: Usage = field(default_factory=Usage, compare=False)
    pause_reported: threading.Event = field(default_factory=threading.Event, compare=False)

    @property
    def name(self) -> str:
        return self.model

    @property
    def key(self) -> str:
        return os.environ.get(self.key_env, "").strip()

    @cached_property
    def form(self) -> RequestForm:
        """What the server accepts. By temperature, since some accept a single one."""
        place = fingerprint(self.base_url, self.model, self.temperature)
        return RequestForm(self.cache / "endpoint" / f"{place}.json")

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
        model: one short question, sent again as every other, and again for each part of it that the server
        refuses."""
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
            with self._client() as client:
                self.form.reset()
                self._first_reply(client)
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
        except Exception as error:  # what is no answer of the protocol comes as many types
            raise UserError(
                f"{here}.base_url: {url} does not answer as an OpenAI-compatible server does"
                f" ({self._short(error)})"
            ) from None

    def _first_reply(self, client) -> None:
        """Send one short question until the server refuses no part of it."""
        while True:
            try:
                words = "Reply with one word.", "Are you there?"
                self._one(client, *words, self.form.unsupported, RateLimiter(self.requests_per_minute))
            except FormChanged:
                continue
            except Unfinished:
                pass  # it is there
            return self.form.settle()

    def ask(
        self,
        system: str,
        prompts: Sequence[str],
        readable: Callable[[str], bool] = lambda reply: True,
        turns: Sequence[int] | None = None,
    ) -> list[str | None]:
        """The replies to prompts under a system text, in their order; None where none came after all retries,
        or none that is `readable`. Replies are kept in the cache as they come, and what is there is not asked
        for; failures and what cannot be read are never kept. A prompt that is asked for another reply has
        another of `turns`. When the wait is interrupted, questions that were not sent yet never are; nor are
        they once the server has gone."""
        system, prompts = well_formed(system), [well_formed(prompt) for prompt in prompts]
        keys = (
            [fingerprint(prompt) for prompt in prompts]
            if turns is None
            else list(map(fingerprint, prompts, turns))
        )
        pace = RateLimiter(self.requests_per_minute)
        while True:
            unsupported, known, problems = self.form.unsupported, self._known(system), Problems()
            missing = {key: prompt for key, prompt in zip(keys, prompts) if key not in known}
            if missing:
                self._fill(known, system, missing, readable, unsupported, pace, problems)
            # Replies to another form of request are other replies, and may be known.
            if self.form.unsupported == unsupported:
                break
        self.usage.cached += len(prompts) - len(missing)
        self.usage.failed += len(problems.failures) + len(problems.unread)
        self.usage.unsupported = sorted(unsupported)
        self._report(problems, len(prompts))
        return [known.get(key) for key in keys]

    def _known(self, system: str) -> ReplyCache:
        """The replies that are kept for requests of the present form."""
        asked = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "unsupported": sorted(self.form.unsupported),
        }
        place = fingerprint(self.base_url, self.model, system, {k: v for k, v in asked.items() if v})
        return ReplyCache(self.cache / "endpoint" / f"{place}.jsonl")

    def _fill(
        self,
        known: ReplyCache,
        system: str,
        missing: Mapping[str, str],
        readable: Callable[[str], bool],
        unsupported: frozenset[str],
        pace: RateLimiter,
        problems: Problems,
    ) -> None:
        """Put the replies to `missing` into `known`, until the server refuses one more part of the
        request."""
        lost = [0]

        def work(key: str, prompt: str) -> None:
            try:
                reply = self._one(client, system, prompt, unsupported, pace)
            except FormChanged:
                return
            except Exception as error:
                # Whatever the client raises: the row stays unscored and the run goes on.
                problems.failures.append(self._short(error))
                lost[0] += _is_lost(error)
                if lost[0] > self.concurrency:
                    pace.stop()
                return
            lost[0] = 0
            self.form.settle()
            if readable(reply):
                known.add(key, reply)
            else:
                problems.unread.append(self._short(reply))

        # One request alone learns what the server refuses, so that not every thread is refused.
        items = list(missing.items())
        batches = [items] if self.form.settled else [items[:1], items[1:]]
        pool = ThreadPoolExecutor(self.concurrency)
        with self._client() as client:
            try:
                for batch in batches:
                    for future in as_completed([pool.submit(work, *item) for item in batch]):
                        future.result()
            except BaseException:
                pace.stop()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _report(self, problems: Problems, asked: int) -> None:
        failures, unread = problems.failures, problems.unread
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
                asked,
                failures[0],
                gone,
            )
        if unread:
            log.warning("%s: %d of %d answers cannot be read (%s)", self.model, len(unread), asked, unread[0])

    def _client(self):
        from openai import OpenAI

        # The client would send again by itself, but neither at our pace nor counted, it sleeps through an
        # interruption, and it takes a reply without text for a good one.
        return OpenAI(
            base_url=self.base_url or OPENAI, api_key=self.key or "none", max_retries=0, timeout=self.timeout
        )

    def _one(self, client, system: str, prompt: str, unsupported: frozenset[str], pace: RateLimiter) -> str:
        """One reply to a request without its `unsupported` parts; FormChanged when those are not all. What
        fails on the way, or is no reply, is asked for again after growing pauses, at the same pace as
        all."""
        from openai import APIConnectionError, APIStatusError

        pause = 0.0
        for attempt in range(self.retries + 1):
            pace.wait(pause)
            try:
                # Another thread may have been refused meanwhile.
                if self.form.unsupported != unsupported:
                    raise FormChanged
                return self._reply(client, system, prompt, unsupported)
            except (APIConnectionError, APIStatusError, Unreadable) as error:
                status = getattr(error, "status_code", 500)
                if (
                    attempt == self.retries
                    or isinstance(error, Unfinished)
                    or (status < 500 and status not in RETRYABLE_STATUS)
                ):
                    raise
                pause = self._pause(attempt, error)
        raise Unreadable("no attempt was made")

    def _reply(self, client, system: str, prompt: str, unsupported: frozenset[str]) -> str:
        """What the server replies to one request. FormChanged when it refuses a part of it."""
        from openai import APIStatusError

        request = request_fields(system, prompt, self.temperature, self.max_tokens, unsupported)
        self.usage.sent()
        try:
            reply = within(
                DEADLINE * self.timeout,
                lambda: client.chat.completions.create(model=self.model, **request),
            )
        except APIStatusError as error:
            self._exclude(refused_parts(request.keys(), error.status_code, error.body), error)
            if self.form.unsupported != unsupported:
                raise FormChanged from None
            raise
        except ValueError as error:
            raise Unreadable(f"the server's reply is no JSON: {error}") from None
        self.usage.count(getattr(reply, "usage", None))
        listed = getattr(reply, "choices", None)
        choice = listed[0] if isinstance(listed, list) and listed else None
        text = getattr(getattr(choice, "message", None), "content", None)
        if not isinstance(text, str) or not text.strip():
            raise Unreadable("the server's reply has no text")
        if self.whole and getattr(choice, "finish_reason", None) == "length":
            raise Unfinished(f"the server cut its reply off at {self.max_tokens or 'its own'} tokens")
        self.usage.answered()
        return well_formed(text)

    def _exclude(self, parts: set[str], error: Exception) -> None:
        """Leave out parts of the request that the server refused, and report each once."""
        for part in self.form.exclude(parts):
            name = "a system role" if part == "system" else part
            log.warning(
                "%s does not accept %s (%s): %s", self.model, name, self._short(error), FALLBACKS[part]
            )

    def _pause(self, attempt: int, error: Exception) -> float:
        """Seconds until the next attempt: what the server asks for within limits, else growing ones that
        differ between threads."""
        asked = _retry_after(getattr(getattr(error, "response", None), "headers", {}))
        if asked is None:
            return min(LONGEST_PAUSE, 0.5 * 2**attempt) * random.uniform(0.75, 1.25)
        if asked >= NOTABLE_RETRY_AFTER and not self.pause_reported.is_set():
            self.pause_reported.set()
            cut = (
                f"; the next attempt comes after {LONGEST_RETRY_AFTER:g}"
                if asked > LONGEST_RETRY_AFTER
                else ""
            )
            log.warning("%s asks for a pause of %.0f seconds (Retry-After)%s", self.model, asked, cut)
        return min(asked, LONGEST_RETRY_AFTER)

    def _short(self, error: Exception | str) -> str:
        """An error or a reply in a few words, and never with the key in it, whatever the server sends
        back."""
        text = str(error)
        if getattr(error, "body", None) and " - " not in text:  # the client shows a `message` alone
            text = f"{text} - {getattr(error, 'body', '')}"
        text = " ".join(well_formed(text).split())
        return (text.replace(self.key, "***") if self.key else text)[:200]


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """The result of `call()`. Unreadable when it takes longer; it then goes on in a thread of its own, which
    ends with its connection."""
    outcome: Future = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if not wait([outcome], seconds).done:
        raise Unreadable(f"the server's reply was not whole after {seconds:g} seconds")
    return outcome.result()


def _is_lost(error: Exception) -> bool:
    """Is there no server any more?"""
    from openai import APIConnectionError, APITimeoutError

    return isinstance(error, APIConnectionError) and not isinstance(error, APITimeoutError)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date; None where there is none to read."""
    named = headers.get("retry-after", "").strip()
    try:
        seconds = float(named)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(named).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
        # Clocks differ: a date that is over is no reason to send at once.
        return seconds if seconds > 0 else None
    return seconds if seconds >= 0 else None
