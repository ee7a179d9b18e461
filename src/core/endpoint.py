"""Questions to a language model behind an OpenAI-compatible server: many at once, sent again when they fail, never asked twice."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from core.files import UserError, fingerprint
from core.replies import Replies, Usage

log = logging.getLogger(__name__)


class Pace:
    """Lets at most so many requests start in a minute; 0 is no limit."""

    def __init__(self, per_minute: float):
        self.gap = 60 / per_minute if per_minute else 0.0
        self.next, self.lock = 0.0, threading.Lock()

    def wait(self) -> None:
        with self.lock:
            start = max(time.monotonic(), self.next)
            self.next = start + self.gap
        time.sleep(max(0.0, start - time.monotonic()))


class Unreadable(ValueError):
    """A reply of the server that is none."""


@dataclass(frozen=True)
class Endpoint:
    """A model and how it is reached. `base_url` None is OpenAI's own server. The key is read from the environment variable
    `key_env` at the moment of asking, and kept nowhere. `section` is where its settings stand; `max_tokens` 0 leaves the length of
    replies to the server."""

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
    usage: Usage = field(default_factory=Usage, compare=False)

    @property
    def name(self) -> str:
        return self.model

    def check(self) -> None:
        """UserError when there is no key for a server that needs one."""
        if not self.base_url and not os.environ.get(self.key_env):
            raise UserError(f"{self.section}.key_env: the environment variable {self.key_env} holds no key; export it, or name a server of "
                            f"your own with {self.section}.base_url")

    def probe(self) -> None:
        """UserError, with what to do, when the server cannot be reached, refuses the key or does not know the model: one short
        question, sent again as every other."""
        from openai import APIConnectionError, APIStatusError, AuthenticationError, NotFoundError, PermissionDeniedError

        self.check()
        here, url = self.section, self.base_url or "OpenAI's server"
        try:
            self._one(self._client(), "Reply with one word.", "Are you there?", 0.0, Pace(0))
        except (AuthenticationError, PermissionDeniedError):
            raise UserError(f"{here}.key_env: {url} refuses the key in the environment variable {self.key_env}"
                            + ("" if os.environ.get(self.key_env) else ", which is empty")) from None
        except NotFoundError as error:
            raise UserError(f"{here}.model, {here}.base_url: {url} does not know {self.model!r} or is not the root of an OpenAI-compatible "
                            f"API ({_short(error)})") from None
        except APIConnectionError as error:
            raise UserError(f"{here}.base_url: {url} cannot be reached ({_short(error)}); is it running?") from None
        except APIStatusError as error:
            raise UserError(f"{here}: {url} answers with status {error.status_code} ({_short(error)})") from None
        except Exception as error:  # what is no answer of the protocol comes as many types
            raise UserError(f"{here}.base_url: {url} does not answer as an OpenAI-compatible server does ({_short(error)})") from None

    def ask(self, system: str, prompts: Sequence[str], readable: Callable[[str], bool] = lambda reply: True,
            temperature: float = 0.0, keep: bool = True) -> list[str | None]:
        """The replies to prompts under a system text, in their order; None where none came after all retries, or none that is
        `readable`. With `keep`, replies are kept in the cache as they come, and what is there is not asked for; failures and what
        cannot be read are never kept."""
        self.check()
        known = Replies(self.cache / "endpoint" / f"{fingerprint(self.base_url, self.model, system)}.jsonl" if keep else None)
        keys = [fingerprint(prompt) for prompt in prompts] if keep else list(map(str, range(len(prompts))))
        missing = {key: prompt for key, prompt in zip(keys, prompts) if key not in known}
        self.usage.cached += len(prompts) - len(missing)
        failures, unread = [], []
        with ThreadPoolExecutor(self.concurrency) as pool:
            client, pace = self._client() if missing else None, Pace(self.requests_per_minute)
            futures = {pool.submit(self._one, client, system, prompt, temperature, pace): key for key, prompt in missing.items()}
            for future in as_completed(futures):
                try:
                    reply = future.result()
                except Exception as error:  # whatever the client raises: the row stays unscored and the run goes on
                    failures.append(_short(error))
                    continue
                if not readable(reply):
                    unread.append(" ".join(reply.split())[:200])
                    continue
                known.add(futures[future], reply)
        self.usage.failed += len(failures) + len(unread)
        if failures:
            log.warning("%s gave no answer to %d of %d questions (%s)", self.model, len(failures), len(prompts), failures[0])
        if unread:
            log.warning("%s: %d of %d answers cannot be read (%s)", self.model, len(unread), len(prompts), unread[0])
        return [known.get(key) for key in keys]

    def _client(self):
        from openai import OpenAI

        key = os.environ.get(self.key_env) or "none"
        return OpenAI(base_url=self.base_url, api_key=key, max_retries=self.retries, timeout=self.timeout)

    def _one(self, client, system: str, prompt: str, temperature: float, pace: Pace) -> str:
        """One reply. The client itself sends again what fails on the way, with growing pauses; a reply that is none is asked for
        again here."""
        turns = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        budget = {"max_tokens": self.max_tokens} if self.max_tokens else {}
        for attempt in range(self.retries + 1):
            pace.wait()
            try:
                reply = client.chat.completions.create(model=self.model, messages=turns, temperature=temperature, **budget)
                text = reply.choices[0].message.content if getattr(reply, "choices", None) else None
                if not text:
                    raise Unreadable("the server's reply has no text")
            except ValueError:
                if attempt == self.retries:
                    raise
                continue
            self.usage.count(getattr(reply, "usage", None))
            return text
        raise Unreadable("no attempt was made")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
