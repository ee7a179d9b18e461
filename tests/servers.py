"""OpenAI-compatible servers on 127.0.0.1 that answer as a test says, and misbehave where it says so."""

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import pytest
from scripts import REPO, wait_until

KEY = "sk-right-key-123"


class Talk:
    """What a server was asked so far."""

    def __init__(self):
        self.prompts: list[str] = []
        self.seen: list[tuple[str, str | None, float]] = []
        """Prompt, authorization and temperature of every request that was let in."""
        self.lock = Lock()

    def count(self, prompt: str) -> int:
        """How often a prompt came, this time included."""
        with self.lock:
            self.prompts.append(prompt)
            return self.prompts.count(prompt)


@contextlib.contextmanager
def serving(
    answer: Callable[[str, int], str | tuple], key: str | None = None, model: str = "small"
) -> Iterator[tuple[str, Talk]]:
    """A server; gives its base_url and what it was asked. `answer(prompt, times)` gives the reply to the last
    turn, or (status, body bytes, seconds to wait) for what is none; None breaks the connection."""
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
            prompt = body["messages"][-1]["content"]
            talk.seen.append((prompt, self.headers["Authorization"], body["temperature"]))
            said = answer(prompt, talk.count(prompt))
            if said is None:
                return self.connection.close()
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
    Thread(target=server.serve_forever, daemon=True).start()
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
