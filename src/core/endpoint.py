"""Questions to a language model behind an OpenAI-compatible server: many at once, sent again when they fail, never asked twice."""

import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from core.files import UserError, append_jsonl, fingerprint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoint:
    """A model and how it is reached. `base_url` None is OpenAI's own server. The key is read from the environment variable
    `key_env` at the moment of asking, and kept nowhere."""

    model: str
    base_url: str | None = None
    key_env: str = "OPENAI_API_KEY"
    concurrency: int = 8
    retries: int = 4
    timeout: float = 60.0
    cache: Path = Path(".cache")

    def check(self) -> None:
        """UserError when there is no key for a server that needs one."""
        if not self.base_url and not os.environ.get(self.key_env):
            raise UserError(f"judge.key_env: the environment variable {self.key_env} holds no key; export it, or name a server of your own "
                            "with judge.base_url")

    def ask(self, system: str, prompts: Sequence[str], readable: Callable[[str], bool] = lambda reply: True) -> list[str | None]:
        """The replies to prompts under a system text, at temperature 0, in their order; None where none came after all retries, or
        none that is `readable`. Replies are kept in the cache as they come; failures and what cannot be read are not."""
        self.check()
        path = self.cache / "endpoint" / f"{fingerprint(self.base_url, self.model, system)}.jsonl"
        known = _read(path)
        keys = [fingerprint(prompt) for prompt in prompts]
        path.parent.mkdir(parents=True, exist_ok=True)
        missing = {key: prompt for key, prompt in zip(keys, prompts) if key not in known}
        failures, unread = [], []
        with ThreadPoolExecutor(self.concurrency) as pool:
            client = self._client() if missing else None
            futures = {pool.submit(self._one, client, system, prompt): key for key, prompt in missing.items()}
            for future in as_completed(futures):
                try:
                    reply = future.result()
                except Exception as error:  # whatever the client raises: the row stays unscored and the run goes on
                    failures.append(" ".join(str(error).split())[:200])
                    continue
                if not readable(reply):
                    unread.append(" ".join(reply.split())[:200])
                    continue
                known[futures[future]] = reply
                append_jsonl(path, {"key": futures[future], "reply": reply})
        if failures:
            log.warning("%s gave no answer to %d of %d questions (%s)", self.model, len(failures), len(prompts), failures[0])
        if unread:
            log.warning("%s: %d of %d answers cannot be read (%s)", self.model, len(unread), len(prompts), unread[0])
        return [known.get(key) for key in keys]

    def _client(self):
        from openai import OpenAI

        key = os.environ.get(self.key_env) or "none"
        return OpenAI(base_url=self.base_url, api_key=key, max_retries=self.retries, timeout=self.timeout)

    def _one(self, client, system: str, prompt: str) -> str:
        turns = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        reply = client.chat.completions.create(model=self.model, messages=turns, temperature=0)
        text = reply.choices[0].message.content if reply.choices else None
        if not text:
            raise ValueError("the server's reply has no text")
        return text


def _read(path: Path) -> dict[str, str]:
    """The replies of earlier runs. A line that broke off is left out and asked for again."""
    found = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
            found[entry["key"]] = entry["reply"]
        except (ValueError, KeyError, TypeError):
            continue
    return found
