"""Client of an OpenAI-compatible server: concurrent requests, retries, and a cache of replies."""

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
"""Most seconds of a server's Retry-After that are waited: rate limits are mostly per minute."""
NOTABLE_RETRY_AFTER = 10.0
"""Seconds of a Retry-After from which the wait is reported."""
DEADLINE = 5
"""Timeouts within which a reply must be complete. The client's timeout is for each read, so a server that
sends a byte now and then would never reach it."""
NOT_SENT = "not sent"
RETRYABLE_STATUS = (408, 409, 429)
"""Statuses below 500 after which a request is sent again."""

Result = TypeVar("Result")


class InvalidReply(Exception):
    """No reply, or one without text."""


class TruncatedReply(InvalidReply):
    """A reply that the server cut off."""


class FormChanged(Exception):
    """Signal that the server refused a part of the request, which is left out from now on."""


class RateLimiter:
    """Limit of the requests that start in a minute (0 is none); none start after `stop`."""

    def __init__(self, per_minute: float):
        self.gap = 60 / per_minute if per_minute else 0.0
        self.next, self.lock, self.stopped = 0.0, threading.Lock(), threading.Event()

    def stop(self) -> None:
        self.stopped.set()

    def wait(self, pause: float = 0.0) -> None:
        """Wait at least `pause` seconds, until the next request may start. InvalidReply after `stop`."""
        # Each caller reserves its start under the lock and sleeps outside it, so that pauses overlap.
        with self.lock:
            start = max(time.monotonic() + pause, self.next)
            self.next = max(self.next, time.monotonic()) + self.gap
        if self.stopped.wait(max(0.0, start - time.monotonic())):
            raise InvalidReply(NOT_SENT)


@dataclass
class _Batch:
    """Prompts that are sent in the same form, with the errors of their requests."""

    system: str
    readable: Callable[[str], bool]
    unsupported: frozenset[str]
    limiter: RateLimiter
    failures: list[str] = field(default_factory=list)
    """Error of each prompt without a reply."""
    unreadable: list[str] = field(default_factory=list)
    """Replies that are not `readable`."""


@dataclass(frozen=True)
class Endpoint:
    """A language model behind an OpenAI-compatible server.

    Parts of a request that the server refuses (`temperature`, the system role, `max_tokens`) are left out
    from then on.

    Args:
        model: Name that the server knows it by.
        base_url: Root of the API; None is OpenAI's own server.
        key_env: Environment variable with the key, read at each request and stored nowhere.
        concurrency: Requests at a time.
        retries: Attempts after a request that failed.
        timeout: Seconds for each read from the server.
        cache: Folder of the caches.
        requests_per_minute: Rate limit; 0 is none.
        section: Config section of these settings, for messages.
        max_tokens: Most tokens of a reply; 0 leaves it to the server.
        whole: Refuse replies that were cut off.
        temperature: Sampling temperature of the replies.
        usage: Counts of requests, tokens and failures.
    """

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
        """Parts of a request that the server accepts."""
        # The temperature is part of the key: some servers accept a single value of it.
        place = fingerprint(self.base_url, self.model, self.temperature)
        return RequestForm(self.cache / "endpoint" / f"{place}.json")

    def check(self) -> None:
        """UserError when a key is needed and there is none, or it cannot be put into a request header."""
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
        """Send one short prompt, again for each part of the request that the server refuses.

        Raises:
            UserError: The server cannot be reached, refuses the key, or does not know the model; with a
                remedy.
        """
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
        except Exception as error:  # replies outside the protocol raise many types
            raise UserError(
                f"{here}.base_url: {url} does not answer as an OpenAI-compatible server does"
                f" ({self._short(error)})"
            ) from None

    def _first_reply(self, client) -> None:
        """Send one short prompt until the server refuses no part of the request."""
        while True:
            limiter = RateLimiter(self.requests_per_minute)
            batch = _Batch("Reply with one word.", bool, self.form.unsupported, limiter)
            try:
                self._request(client, "Are you there?", batch)
            except FormChanged:
                continue
            except TruncatedReply:
                pass  # a truncated reply proves the server as well
            return self.form.settle()

    def ask(
        self,
        system: str,
        prompts: Sequence[str],
        readable: Callable[[str], bool] = lambda reply: True,
        turns: Sequence[int] | None = None,
    ) -> list[str | None]:
        """Replies to prompts, from the cache or the server.

        Replies are cached as they come; failures and unreadable replies never are. After an interrupt, or
        once the server is gone, no further request is sent.

        Args:
            system: System text of all requests.
            prompts: User text of each request.
            readable: Whether a reply can be used.
            turns: Number of each prompt's turn: another number asks for another reply to the same prompt.

        Returns:
            A reply per prompt, in order; None where no readable reply came after all retries.
        """
        # Lone surrogates fit in no request, hash or file.
        system, prompts = well_formed(system), [well_formed(prompt) for prompt in prompts]
        if turns is None:
            keys = [fingerprint(prompt) for prompt in prompts]
        else:
            keys = [fingerprint(prompt, turn) for prompt, turn in zip(prompts, turns)]
        limiter = RateLimiter(self.requests_per_minute)
        while True:
            batch = _Batch(system, readable, self.form.unsupported, limiter)
            cache = self._reply_cache(system)
            missing = {key: prompt for key, prompt in zip(keys, prompts) if key not in cache}
            if missing:
                self._fill(cache, missing, batch)
            # Replies to another form of request are other replies, and may be in the cache.
            if self.form.unsupported == batch.unsupported:
                break
        self.usage.cached += len(prompts) - len(missing)
        self.usage.failed += len(batch.failures) + len(batch.unreadable)
        self.usage.unsupported = sorted(batch.unsupported)
        self._report(batch, len(prompts))
        return [cache.get(key) for key in keys]

    def _reply_cache(self, system: str) -> ReplyCache:
        """Cached replies to requests of the present form."""
        facts = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "unsupported": sorted(self.form.unsupported),
        }
        # Without values at their default, so that caches from before a setting existed stay valid.
        place = fingerprint(self.base_url, self.model, system, {k: v for k, v in facts.items() if v})
        return ReplyCache(self.cache / "endpoint" / f"{place}.jsonl")

    def _fill(self, cache: ReplyCache, missing: Mapping[str, str], batch: _Batch) -> None:
        """Put the replies to `missing` (key -> prompt) into the cache, until the server refuses one more part
        of the request."""
        unreachable = 0  # failures to connect since the last reply

        def work(key: str, prompt: str) -> None:
            nonlocal unreachable
            try:
                reply = self._request(client, prompt, batch)
            except FormChanged:
                return
            except Exception as error:
                # Whatever the client raises: the row stays unscored and the run continues.
                batch.failures.append(self._short(error))
                unreachable += _is_unreachable(error)
                # More failures than requests under way: the server is gone, not one connection.
                if unreachable > self.concurrency:
                    batch.limiter.stop()
                return
            unreachable = 0
            self.form.settle()
            if batch.readable(reply):
                cache.add(key, reply)
            else:
                batch.unreadable.append(self._short(reply))

        # The first request goes alone and learns what the server refuses, or every thread would be refused.
        items = list(missing.items())
        groups = [items] if self.form.settled else [items[:1], items[1:]]
        pool = ThreadPoolExecutor(self.concurrency)
        with self._client() as client:
            try:
                for group in groups:
                    for future in as_completed([pool.submit(work, *item) for item in group]):
                        future.result()
            except BaseException:
                # After an interrupt threads may still sleep in the limiter: without this they would send.
                batch.limiter.stop()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _report(self, batch: _Batch, total: int) -> None:
        failures, unreadable = batch.failures, batch.unreadable
        if failures:
            not_sent = failures.count(NOT_SENT)
            gone = f"; it cannot be reached, {not_sent} of them were not sent" if not_sent else ""
            log.warning(
                "%s gave no answer to %d of %d questions (%s)%s",
                self.model,
                len(failures),
                total,
                failures[0],
                gone,
            )
        if unreadable:
            log.warning(
                "%s: %d of %d answers cannot be read (%s)", self.model, len(unreadable), total, unreadable[0]
            )

    def _client(self):
        from openai import OpenAI

        # No retries by the client itself: they would keep no rate limit, be counted nowhere, sleep through an
        # interrupt, and accept a reply without text.
        return OpenAI(
            base_url=self.base_url or OPENAI, api_key=self.key or "none", max_retries=0, timeout=self.timeout
        )

    def _request(self, client, prompt: str, batch: _Batch) -> str:
        """The reply to one prompt, with retries after growing pauses, under the rate limit. FormChanged when
        the server refuses one more part of the request."""
        from openai import APIConnectionError, APIStatusError

        pause = 0.0
        for attempt in range(self.retries + 1):
            batch.limiter.wait(pause)
            try:
                # Another thread may have been refused meanwhile.
                if self.form.unsupported != batch.unsupported:
                    raise FormChanged
                return self._send(client, prompt, batch)
            except (APIConnectionError, APIStatusError, InvalidReply) as error:
                # Connection errors and invalid replies have no status and are retried as server errors are.
                status = getattr(error, "status_code", 500)
                permanent = status < 500 and status not in RETRYABLE_STATUS
                # The same prompt would be truncated again.
                if attempt == self.retries or permanent or isinstance(error, TruncatedReply):
                    raise
                pause = self._pause(attempt, error)
        raise InvalidReply("no attempt was made")

    def _send(self, client, prompt: str, batch: _Batch) -> str:
        """The text of the reply to one request. FormChanged when the server refuses a part of it."""
        from openai import APIStatusError

        request = request_fields(batch.system, prompt, self.temperature, self.max_tokens, batch.unsupported)
        self.usage.sent()
        try:
            reply = within(
                DEADLINE * self.timeout,
                lambda: client.chat.completions.create(model=self.model, **request),
            )
        except APIStatusError as error:
            self._exclude(refused_parts(request.keys(), error.status_code, error.body), error)
            if self.form.unsupported != batch.unsupported:
                raise FormChanged from None
            raise
        except ValueError as error:
            raise InvalidReply(f"the server's reply is no JSON: {error}") from None
        # The client does not check the form of a reply: servers may send any JSON.
        self.usage.count(getattr(reply, "usage", None))
        listed = getattr(reply, "choices", None)
        choice = listed[0] if isinstance(listed, list) and listed else None
        text = getattr(getattr(choice, "message", None), "content", None)
        if not isinstance(text, str) or not text.strip():
            raise InvalidReply("the server's reply has no text")
        if self.whole and getattr(choice, "finish_reason", None) == "length":
            raise TruncatedReply(f"the server cut its reply off at {self.max_tokens or 'its own'} tokens")
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
        """Seconds until the next attempt: the server's Retry-After within limits, else growing pauses."""
        requested = _retry_after(getattr(getattr(error, "response", None), "headers", {}))
        if requested is None:
            # Random, or threads that failed together would send again together.
            return min(LONGEST_PAUSE, 0.5 * 2**attempt) * random.uniform(0.75, 1.25)
        if requested >= NOTABLE_RETRY_AFTER and not self.pause_reported.is_set():
            self.pause_reported.set()
            cut = (
                f"; the next attempt comes after {LONGEST_RETRY_AFTER:g}"
                if requested > LONGEST_RETRY_AFTER
                else ""
            )
            log.warning("%s asks for a pause of %.0f seconds (Retry-After)%s", self.model, requested, cut)
        return min(requested, LONGEST_RETRY_AFTER)

    def _short(self, error: Exception | str) -> str:
        """At most 200 characters of an error or a reply, with the key replaced: some servers return it."""
        text = str(error)
        if getattr(error, "body", None) and " - " not in text:  # the client shows a `message` alone
            text = f"{text} - {getattr(error, 'body', '')}"
        text = " ".join(well_formed(text).split())
        return (text.replace(self.key, "***") if self.key else text)[:200]


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """The result of `call()`; InvalidReply when it takes longer. The call then continues in its own thread,
    which ends with its connection."""
    outcome: Future = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if not wait([outcome], seconds).done:
        raise InvalidReply(f"the server's reply was not whole after {seconds:g} seconds")
    return outcome.result()


def _is_unreachable(error: Exception) -> bool:
    """Whether no connection could be made. A timeout is a connection error too, but of a server that is
    there."""
    from openai import APIConnectionError, APITimeoutError

    return isinstance(error, APIConnectionError) and not isinstance(error, APITimeoutError)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; None without a valid one."""
    named = headers.get("retry-after", "").strip()
    try:
        seconds = float(named)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(named).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
        # Clocks differ: a date in the past is no reason to send at once.
        return seconds if seconds > 0 else None
    return seconds if seconds >= 0 else None
