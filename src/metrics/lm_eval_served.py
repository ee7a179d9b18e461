"""The harness's own backends: a model behind an OpenAI-compatible server, or in vLLM."""

import logging
import os
from dataclasses import dataclass
from typing import Any

import requests
from lm_eval.api.registry import get_model
from lm_eval.models import openai_completions

from ..core.files import UserError
from ..core.thinking import Tags
from .lm_eval import quiet_harness

Chat: Any = openai_completions.LocalChatCompletion
Completions: Any = openai_completions.LocalCompletionsAPI


@dataclass(frozen=True)
class ServedModel:
    """A model behind an OpenAI-compatible server.

    Args:
        model: Name that the server knows it by.
        tokenizer: Folder or hub name of its tokenizer, for scoring.
        base_url: Root of the API, without a last slash.
        key_env: Environment variable with the key, empty where the server needs none.
        concurrency: Requests at a time.
        retries: Attempts after a request that failed.
        seed: Seed that is sent with every request.
    """

    model: str
    tokenizer: str
    base_url: str
    key_env: str
    concurrency: int
    retries: int
    seed: int

    @property
    def key(self) -> str:
        return os.environ.get(self.key_env, "").strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def server_model(served: ServedModel, tags: Tags, thinks: bool) -> Any:
    """The harness's model for a server.

    Questions go to its chat API, with the switch for thinking where it accepts one, continuations to its
    completions API. A reasoning trace in a field of its own is put in front of the answer, between `tags`.
    """
    switch = {"chat_template_kwargs": {"enable_thinking": thinks}}
    has_switch = _accepts(served, {"model": served.model, **switch})
    shared = {
        "model": served.model,
        "num_concurrent": served.concurrency,
        "max_retries": served.retries,
        "seed": served.seed,
    }
    # The harness itself reads OPENAI_API_KEY alone.
    key = property(lambda self: served.key)

    class Scorer(Completions):
        api_key = key

    class Server(Chat):
        api_key = key

        def _create_payload(self, messages, generate=False, gen_kwargs=None, seed=1234, eos=None, **rest):
            payload = super()._create_payload(messages, generate, gen_kwargs, seed, eos, **rest)
            if not payload["stop"]:
                del payload["stop"]  # some servers refuse an empty list
            return {**payload, **(switch if has_switch else {})}

        def parse_generations(self, outputs, **_):
            answers = outputs if isinstance(outputs, list) else [outputs]
            return [_whole_text(choice["message"], tags) for out in answers for choice in out["choices"]]

        def loglikelihood(self, requests, **_):
            scorer = Scorer(
                base_url=f"{served.base_url}/completions",
                tokenizer=served.tokenizer,
                tokenizer_backend="huggingface",
                **shared,
            )
            return scorer.loglikelihood(requests)

    # After a failure, asyncio logs each request that failed with it, with a traceback each.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with quiet_harness():
        return Server(base_url=f"{served.base_url}/chat/completions", tokenizer_backend=None, **shared)


def _accepts(served: ServedModel, fields: dict) -> bool:
    """Does the chat API accept a request with these fields? Some servers refuse unknown ones."""
    request = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0, **fields}
    url = f"{served.base_url}/chat/completions"
    try:
        return requests.post(url, json=request, headers=served.headers, timeout=300).ok
    except requests.RequestException:
        return False


def _whole_text(message: dict, tags: Tags) -> str:
    """Trace and answer of a reply. Servers name the field of the trace differently."""
    trace = message.get("reasoning_content") or message.get("reasoning")
    answer = message.get("content") or ""
    return f"{tags.open}{trace}{tags.close}{answer}" if trace and answer else f"{trace or ''}{answer}"


def scoring_refusal(served: ServedModel) -> str:
    """Why a server cannot score given continuations ("" when it can): its completions API must return the
    log-probabilities of the prompt."""
    request = {
        "model": served.model,
        "prompt": "one two",
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "echo": True,
    }
    url = f"{served.base_url}/completions"
    try:
        reply = requests.post(url, json=request, headers=served.headers, timeout=300)
        probabilities = reply.json()["choices"][0]["logprobs"]["token_logprobs"] if reply.ok else None
    except (requests.RequestException, ValueError, KeyError, TypeError, IndexError):
        probabilities = None
    # Without echo only the one new token has a probability.
    if probabilities and len(probabilities) > 1:
        return ""
    return (
        f"{url} sends back no log-probabilities of the prompt (echo with logprobs), which"
        " scoring needs; take benchmarks.backend transformers or vllm, or tasks that generate"
    )


def check_server(served: ServedModel) -> None:
    """UserError when the server cannot be reached or refuses the key."""
    try:
        reply = requests.get(f"{served.base_url}/models", headers=served.headers, timeout=30)
    except requests.RequestException as error:
        raise UserError(
            f"benchmarks.base_url: {served.base_url} cannot be reached ({type(error).__name__})"
        ) from None
    if reply.status_code in (401, 403):
        raise UserError(
            f"benchmarks.key_env: {served.base_url} refuses the key in the environment variable"
            f" {served.key_env}"
        )


def vllm_model(model: str, tokenizer: str, options: dict[str, Any]) -> Any:
    """A model in vLLM."""
    with quiet_harness():
        return get_model("vllm").create_from_arg_obj({"pretrained": model, "tokenizer": tokenizer, **options})
