"""Requests to servers that refuse parts of them, ask for pauses, trickle, or send what nobody expects."""

import json
import time
from email.utils import formatdate
from threading import Event

import pytest
from servers import refusal, serving

from unlearnkit.core import endpoint
from unlearnkit.core.endpoint import Endpoint
from unlearnkit.core.files import UserError

PARTS = ("temperature", "system", "max_tokens")
LONE = "a\ud83d"


def completion(text="yes", **rest) -> bytes:
    """The body of a reply."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    known = {"id": "x", "object": "chat.completion", "created": 0, "model": "small"}
    return json.dumps({**known, "choices": [choice], **rest}).encode()


@pytest.mark.parametrize("refuses", [PARTS[:1], PARTS[1:2], PARTS[2:], PARTS[1:], PARTS])
def test_a_refused_part_is_sent_once_in_a_run_and_left_out(refuses, tmp_path, caplog):
    with serving(lambda prompt, times: "yes", refuses=refuses) as (url, talk):
        server = Endpoint("small", url, cache=tmp_path, retries=0, max_tokens=9)
        assert server.ask("the rubric", [f"q{n}" for n in range(20)]) == ["yes"] * 20
        assert len(talk.bodies) == 20 + len(refuses)
        assert server.usage.summary()["unsupported"] == sorted(refuses)
        assert server.usage.summary()["requests"] == len(talk.bodies)
        sent = talk.bodies[-1]
        assert ("temperature" in sent) == ("temperature" not in refuses)
        assert sent["messages"][-1]["content"].startswith("the rubric\n\nq") == ("system" in refuses)
        assert sent.get("max_completion_tokens" if "max_tokens" in refuses else "max_tokens") == 9
        Endpoint("small", url, cache=tmp_path, retries=0, max_tokens=9).ask("the rubric", ["another"])
        assert len(talk.bodies) == 21 + len(refuses)
    assert [caplog.text.count(f"does not accept {name}") for name in ("temperature", "a system role")] == [
        int(part in refuses) for part in PARTS[:2]
    ]


@pytest.mark.parametrize("refuses", [("temperature",), PARTS])
def test_a_probe_learns_what_is_refused_and_the_replies_are_found_again(refuses, tmp_path):
    words = {"cache": tmp_path, "retries": 0, "max_tokens": 9}
    with serving(lambda prompt, times: "yes", refuses=refuses) as (url, talk):
        for _ in range(2):
            Endpoint("small", url, **words).probe()
            server = Endpoint("small", url, **words)
            assert server.ask("s", ["q", "r"]) == ["yes", "yes"]
        assert server.usage.summary() == Endpoint("small").usage.summary() | {
            "cached": 2,
            "unsupported": sorted(refuses),
        }
        assert len(talk.bodies) == 2 * (len(refuses) + 1) + 2
    gone = Endpoint("small", url, **words)
    with pytest.raises(UserError, match="cannot be reached"):
        gone.probe()
    assert Endpoint("small", url, **words).ask("s", ["q", "r"]) == ["yes", "yes"]


def test_a_reply_without_temperature_is_none_with_temperature_0(tmp_path):
    """Another server behind the same address and name, which takes a temperature, is asked anew."""
    refusing = [True]

    def answer(prompt, times):
        refused = refusing[0] and "temperature" in talk.bodies[-1]
        body = json.dumps({"error": refusal("unsupported", "temperature", "unsupported_value")}).encode()
        return (400, body, 0) if refused else "sampled" if refusing[0] else "greedy"

    with serving(answer) as (url, talk):
        ask = lambda: Endpoint("small", url, cache=tmp_path).ask("s", ["q"])
        assert ask() == ["sampled"]
        refusing[0] = False
        Endpoint("small", url, cache=tmp_path).probe()
        assert ask() == ["greedy"]
        refusing[0] = True
        Endpoint("small", url, cache=tmp_path).probe()
        assert ask() == ["sampled"]


def test_any_other_400_stays_the_error_it_is(tmp_path, caplog):
    body = json.dumps(
        {"error": refusal("'temperature' must be at most 2", "temperature", "too_high")}
    ).encode()
    with serving(lambda prompt, times: (400, body, 0)) as (url, talk):
        server = Endpoint("small", url, cache=tmp_path, temperature=3.0)
        assert server.ask("s", ["q"]) == [None]
        assert len(talk.bodies) == 1
        assert (
            "gave no answer to 1 of 1 questions (Error code: 400 - 'temperature' must be at most 2)"
            in caplog.text
        )
        with pytest.raises(UserError, match="answers with status 400"):
            server.probe()
    with serving(lambda prompt, times: (400, completion(), 0), refuses=["system"]) as (url, talk):
        assert Endpoint("small", url, cache=tmp_path).ask("s", ["q"]) == [None]


def test_the_pace_holds_for_what_is_sent_again_without_a_part(tmp_path):
    with serving(lambda prompt, times: "yes", refuses=PARTS) as (url, talk):
        start = time.monotonic()
        server = Endpoint("small", url, cache=tmp_path, requests_per_minute=600, max_tokens=9)
        assert server.ask("s", ["q", "r"]) == ["yes", "yes"]
    assert len(talk.bodies) == 5
    assert time.monotonic() - start >= 0.4


def test_a_reply_is_kept_under_the_form_of_its_request(tmp_path):
    """Servers behind one address differ: a retry after another thread was refused is a new request."""

    def answer(prompt, times):
        if prompt == "slow" and "temperature" in talk.bodies[-1]:
            refused.wait(5)
            return 500, b"{}", 0
        if prompt == "refused" and times == 1:
            body = json.dumps({"error": refusal("unsupported", "temperature", "unsupported_value")}).encode()
            refused.set()
            return 400, body, 0
        return "yes"

    refused = Event()
    with serving(answer) as (url, talk):
        server = Endpoint("small", url, cache=tmp_path)
        assert server.ask("s", ["first"]) == ["yes"]
        assert server.ask("s", ["slow", "refused"]) == ["yes", "yes"]
    assert [sum(prompt == name for prompt in talk.prompts) for name in ("slow", "refused")] == [2, 2]
    assert "temperature" not in talk.bodies[-1]
    files = sorted((tmp_path / "endpoint").glob("*.jsonl"), key=lambda path: path.read_text().count("\n"))
    assert [path.read_text().count('"reply"') for path in files] == [1, 2]


def test_an_error_without_a_message_is_shown_as_it_came(tmp_path, caplog):
    with serving(lambda prompt, times: (422, b'{"detail": "too warm"}', 0)) as (url, _):
        Endpoint("small", url, cache=tmp_path).ask("s", ["q"])
    assert "(Error code: 422 - {'detail': 'too warm'})" in caplog.text


def busy(value: str):
    """A reply that asks for a pause."""

    def reply(handler):
        handler.send_response(429)
        handler.send_header("Retry-After", value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return reply


@pytest.mark.parametrize(
    "value, least, most, reported",
    [
        ("3600", 60, 60, "asks for a pause of 3600 seconds (Retry-After); the next attempt comes after 60"),
        ("1e999", 60, 60, "the next attempt comes after 60"),
        (40, 30, 41, "asks for a pause of"),
        (1e6, 60, 60, "the next attempt comes after 60"),
        (-1e6, 0.3, 0.7, ""),
        ("1.5", 1.5, 1.5, ""),
        ("0", 0, 0, ""),
        ("-5", 0.3, 0.7, ""),
        ("nan", 0.3, 0.7, ""),
        ("\u00b2", 0.3, 0.7, ""),
        ("soon", 0.3, 0.7, ""),
        ("Mon, 99 Foo 2020 00:00:00 GMT", 0.3, 0.7, ""),
    ],
)
def test_a_pause_that_a_server_asks_for(value, least, most, reported, tmp_path, caplog, monkeypatch):
    """A number stands for a date so many seconds from now."""
    if not isinstance(value, str):
        value = formatdate(time.time() + value, usegmt=True)
    pauses = []
    monkeypatch.setattr(endpoint.RateLimiter, "wait", lambda self, pause=0.0: pauses.append(pause))
    answer = lambda prompt, times: busy(value) if times < 3 else "yes"
    with serving(answer) as (url, _):
        assert Endpoint("small", url, cache=tmp_path).ask("s", ["q"]) == ["yes"]
    assert least <= pauses[1] <= most
    assert caplog.text.count("(Retry-After)") == bool(reported)
    assert reported in caplog.text


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_trickles_is_given_up_at_the_deadline(part, tmp_path, caplog):
    def trickle(handler):
        opening = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        handler.wfile.write(opening if part == "headers" else opening + b"Content-Length: 9999\r\n\r\n")
        while not ended:
            handler.wfile.write(b"X-A: b\r\n" if part == "headers" else b" ")
            time.sleep(0.02)

    ended = []
    with serving(lambda prompt, times: trickle) as (url, _):
        start = time.monotonic()
        server = Endpoint("small", url, cache=tmp_path, timeout=0.1, retries=0)
        assert server.ask("s", ["q", "r"]) == [None, None]
        assert time.monotonic() - start < 4
        with pytest.raises(UserError, match="reply was not whole after 0.5 seconds"):
            server.probe()
        ended.append(True)
    assert "small gave no answer to 2 of 2 questions (the server's reply was not whole after" in caplog.text


@pytest.mark.parametrize(
    "usage, counted",
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, (3, 2, 0)),
        ({"prompt_tokens": None, "completion_tokens": 2}, (0, 2, 1)),
        ({"prompt_tokens": "3", "completion_tokens": -2}, (0, 0, 1)),
        ({"prompt_tokens": 3}, (3, 0, 1)),
        ({"prompt_tokens": True, "completion_tokens": 2.5}, (0, 0, 1)),
        ({"prompt_tokens": 10**400, "completion_tokens": [2]}, (0, 0, 1)),
        ("three", (0, 0, 1)),
        ([3, 2], (0, 0, 1)),
        (None, (0, 0, 1)),
    ],
)
def test_figures_of_usage_that_are_no_counts_add_nothing(usage, counted, tmp_path):
    with serving(lambda prompt, times: (200, completion(usage=usage), 0)) as (url, _):
        server = Endpoint("small", url, cache=tmp_path)
        assert server.ask("s", ["q"]) == ["yes"]
    summary = server.usage.summary(1.0, 1.0)
    assert (summary["prompt_tokens"], summary["completion_tokens"], summary.get("uncounted", 0)) == counted
    assert summary["cost"] == pytest.approx(sum(counted[:2]) / 1e6)


def test_lone_surrogates_are_replaced_in_prompts_and_replies(tmp_path, caplog):
    with serving(lambda prompt, times: (200, completion(LONE), 0)) as (url, talk):
        ask = lambda readable=str: Endpoint("small", url, cache=tmp_path).ask(f"s{LONE}", [LONE], readable)
        assert ask(lambda reply: False) == [None]
        assert ask() == ["a\ufffd"]
        assert ask() == ["a\ufffd"]
        assert len(talk.bodies) == 2
    assert talk.bodies[0]["messages"][1]["content"] == "a\ufffd"
    assert "1 of 1 answers cannot be read (a\ufffd)" in caplog.text
