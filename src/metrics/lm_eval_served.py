"""The harness's own backends: a model behind an OpenAI-compatible server, or in vLLM."""

import logging
import os
from typing import Any

import requests
from lm_eval.api.registry import get_model
from lm_eval.models import openai_completions

from ..core.files import UserError
from ..core.thinking import Tags
from .lm_eval import quiet_harness

Chat: Any = openai_completions.LocalChatCompletion
Completions: Any = openai_completions.LocalCompletionsAPI


def server_model(
    model: str,
    tokenizer: str,
    base_url: str,
    key_env: str,
    concurrency: int,
    retries: int,
    tags: Tags,
    thinks: bool,
    seed: int,
) -> Any:
    """A model behind a server: questions go to its chat, with the switch for thinking where it takes one,
    continuations to its completions. A thought that it sends in a field of its own is put back in front of
    the answer, tags included."""
    key = property(lambda self: _key(key_env))
    switch = {"chat_template_kwargs": {"enable_thinking": thinks}}
    takes_switch = _takes(base_url, key_env, {"model": model, **switch})
    shared = {"model": model, "num_concurrent": concurrency, "max_retries": retries, "seed": seed}

    class Scorer(Completions):
        api_key = key

    class Server(Chat):
        api_key = key

        def _create_payload(self, messages, generate=False, gen_kwargs=None, seed=1234, eos=None, **rest):
            payload = super()._create_payload(messages, generate, gen_kwargs, seed, eos, **rest)
            if not payload["stop"]:
                del payload["stop"]  # some servers refuse an empty list
            return {**payload, **(switch if takes_switch else {})}

        def parse_generations(self, outputs, **_):
            answers = outputs if isinstance(outputs, list) else [outputs]
            return [_whole_text(choice["message"], tags) for out in answers for choice in out["choices"]]

        def loglikelihood(self, requests, **_):
            scorer = Scorer(
                base_url=f"{base_url}/completions",
                tokenizer=tokenizer,
                tokenizer_backend="huggingface",
                **shared,
            )
            return scorer.loglikelihood(requests)

    # Requests that fail together are reported one by one, with a traceback each, when nobody asks any more.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with quiet_harness():
        return Server(base_url=f"{base_url}/chat/completions", tokenizer_backend=None, **shared)


def _key(name: str) -> str:
    return os.environ.get(name, "").strip()


def _headers(key_env: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {_key(key_env)}"} if _key(key_env) else {}


def _takes(base_url: str, key_env: str, fields: dict) -> bool:
    """Does a server's chat take a request with these fields? Some refuse what they do not know."""
    asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0, **fields}
    try:
        return requests.post(
            f"{base_url}/chat/completions", json=asked, headers=_headers(key_env), timeout=300
        ).ok
    except requests.RequestException:
        return False


def _whole_text(message: dict, tags: Tags) -> str:
    """Thought and answer of a reply."""
    thought = message.get("reasoning_content") or message.get("reasoning")
    answer = message.get("content") or ""
    return f"{tags.open}{thought}{tags.close}{answer}" if thought and answer else f"{thought or ''}{answer}"


def scoring_refusal(model: str, base_url: str, key_env: str) -> str:
    """Why a server cannot score given continuations ("" when it can): it must send back the log-probabilities
    of the prompt."""
    asked = {
        "model": model,
        "prompt": "one two",
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "echo": True,
    }
    try:
        reply = requests.post(f"{base_url}/completions", json=asked, headers=_headers(key_env), timeout=300)
        probabilities = reply.json()["choices"][0]["logprobs"]["token_logprobs"] if reply.ok else None
    except (requests.RequestException, ValueError, KeyError, TypeError, IndexError):
        probabilities = None
    if probabilities and len(probabilities) > 1:
        return ""
    return (
        f"{base_url}/completions sends back no log-probabilities of the prompt (echo with logprobs), which"
        " scoring needs; take benchmarks.backend transformers or vllm, or tasks that generate"
    )


def check_server(model: str, base_url: str, key_env: str) -> None:
    """UserError when nothing answers at the server."""
    try:
        reply = requests.get(f"{base_url}/models", headers=_headers(key_env), timeout=30)
    except requests.RequestException as error:
        raise UserError(
            f"benchmarks.base_url: {base_url} cannot be reached ({type(error).__name__})"
        ) from None
    if reply.status_code in (401, 403):
        raise UserError(
            f"benchmarks.key_env: {base_url} refuses the key in the environment variable {key_env}"
        )


def vllm_model(model: str, tokenizer: str, options: dict[str, Any]) -> Any:
    """A model in vLLM."""
    with quiet_harness():
        return get_model("vllm").create_from_arg_obj({"pretrained": model, "tokenizer": tokenizer, **options})
