"""OpenAI-compatible servers on 127.0.0.1 that answer as a test says, and misbehave where it says so."""

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import pytest
from scripts import REPO, wait_until

KEY = "sk-right-key-123"


class Talk:
    """What a server was asked so far."""

    def __init__(self):
        self.prompts: list[str] = []
        self.seen: list[tuple[str, str | None, float | None]] = []
        """Prompt, authorization and temperature of every request that was let in."""
        self.bodies: list[dict] = []
        """Every request with the right key, those that were refused too."""
        self.lock = Lock()

    def count(self, prompt: str) -> int:
        """How often a prompt came, this time included."""
        with self.lock:
            self.prompts.append(prompt)
            return self.prompts.count(prompt)


def refusal(text: str, param: str, code: str) -> dict:
    return {"message": text, "type": "invalid_request_error", "param": param, "code": code}


REFUSALS = {
    "temperature": refusal(
        "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is"
        " supported.",
        "temperature",
        "unsupported_value",
    ),
    "system": refusal(
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        "messages[0].role",
        "unsupported_value",
    ),
    "max_tokens": refusal(
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'"
        " instead.",
        "max_tokens",
        "unsupported_parameter",
    ),
}


def sends(body: dict, part: str) -> bool:
    return part in body or (part == "system" and body["messages"][0]["role"] == "system")


@contextlib.contextmanager
def serving(
    answer: Callable[[str, int], str | tuple | Callable],
    key: str | None = None,
    model: str = "small",
    refuses: Sequence[str] = (),
) -> Iterator[tuple[str, Talk]]:
    """A server; gives its base_url and what it was asked. `answer(prompt, times)` gives the reply to the last
    turn, or (status, body bytes, seconds to wait) for what is none; None breaks the connection, and a
    function is called with the handler. `refuses`: "temperature", "system", "max_tokens", as OpenAI does."""
    talk = Talk()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if key and self.headers["Authorization"] != f"Bearer {key}":
                return self.reply(401, json.dumps({"error": {"message": "wrong key"}}).encode())
            if body["model"] != model:
                return self.reply(
                    404, json.dumps({"error": {"message": f"no model {body['model']}"}}).encode()
                )
            talk.bodies.append(body)
            refused = next((part for part in refuses if sends(body, part)), None)
            if refused:
                return self.reply(400, json.dumps({"error": REFUSALS[refused]}).encode())
            prompt = body["messages"][-1]["content"]
            talk.seen.append((prompt, self.headers["Authorization"], body.get("temperature")))
            said = answer(prompt, talk.count(prompt))
            if said is None:
                return self.connection.close()
            if callable(said):
                return said(self)
            if isinstance(said, tuple):
                status, data, seconds = said
                time.sleep(seconds)
                return self.reply(status, data)
            usage = {
                "prompt_tokens": len(prompt.split()),
                "completion_tokens": len(said.split()),
                "total_tokens": 0,
            }
            reply = {
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
                ],
                "usage": usage,
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": model,
            }
            return self.reply(200, json.dumps(reply).encode())

        def reply(self, status: int, data: bytes):
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                if status == 429:
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", talk
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def transformers_serve(model):
    """`transformers serve`, an OpenAI-protocol server that is not ours."""
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [
        str(REPO / ".venv/bin/transformers") if (REPO / ".venv/bin/transformers").exists() else "transformers"
    ]
    server = subprocess.Popen(
        [*program, "serve", str(model), "--host", "127.0.0.1", "--port", str(port)],
        cwd=REPO,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(20)


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1):
        return True
    return False
