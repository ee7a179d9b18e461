"""Measuring with a judge behind a real server on 127.0.0.1: one that answers, one that misbehaves, one that
dies, and transformers' own."""

import json
import re
import signal
import subprocess
import time

import pytest
from conftest import FICTIONAL, REPO
from scripts import command, run_script, wait_until
from servers import KEY, serving, transformers_serve

from unlearnkit.core.endpoint import Endpoint
from unlearnkit.core.files import UserError, read_json, read_jsonl
from unlearnkit.exec.config.reader import ConfigError, StrictConfig, resolve_settings

pytestmark = pytest.mark.run

ROWS = 12
JUDGED = 2 * ROWS  # forget and retain answers, each one another


def truth(prompt: str, times: int = 1) -> str:
    """The right verdict: does the answer hold what matters?"""
    if "there?" in prompt:
        return "yes"
    reference, said = re.search(r'Reference: (.*)\n\nAnswer:\n"""\n(.*)\n"""', prompt).groups()
    return "Yes." if reference == said else "no"


def measure(folder, name, *words, cache="cache", **environment):
    return run_script(
        "evaluate_model",
        "--overall.model_name",
        FICTIONAL / "target",
        "--evaluate.metrics",
        "semantic/coverage,semantic/forget_accuracy_upper,semantic/retain_accuracy_lower,semantic/judge_kappa",
        "--evaluate.rows",
        ROWS,
        "--evaluate.max_new_tokens",
        "24",
        "--logger.json.root",
        folder,
        "--logger.name",
        name,
        "--overall.cache_dir",
        folder / cache,
        *words,
        **environment,
    )


def lm(url, *words):
    return ["--judge.kind", "lm", "--judge.base_url", url, "--judge.model", "small", *words]


def test_a_judge_behind_a_server(tmp_path):
    with serving(truth, KEY) as (url, talk):
        run = measure(
            tmp_path, "run", *lm(url, *"--judge.price_in 1 --judge.price_out 2".split()), OPENAI_API_KEY=KEY
        )
    assert run.returncode == 0, run.stderr
    metrics, told = read_json(tmp_path / "run/metrics.json"), read_json(tmp_path / "run/judge.json")
    assert (
        metrics["semantic/forget_accuracy"]
        == metrics["semantic/retain_accuracy"]
        == metrics["semantic/coverage"]
        == 1
    )
    assert (told["asked"], told["cached"], told["failed"]) == (JUDGED, 0, 0)
    assert len(set(talk.prompts)) == len(talk.prompts) == JUDGED + 1
    words = [prompt.split() for prompt in talk.prompts if "there?" not in prompt]
    assert told["prompt_tokens"] == sum(map(len, words))
    assert told["completion_tokens"] == JUDGED
    assert told["cost"] == pytest.approx(
        (told["prompt_tokens"] + 2 * told["completion_tokens"]) / 1e6, abs=1e-6
    )
    assert f"judge: {JUDGED} questions asked" in run.stdout
    written = "".join(path.read_text(errors="ignore") for path in tmp_path.rglob("*.json*"))
    assert KEY not in written + run.stdout + run.stderr


@pytest.mark.parametrize("refuses", [["temperature"], ["max_tokens", "system", "temperature"]])
def test_a_judge_that_refuses_parts_of_a_request(refuses, tmp_path):
    with serving(truth, refuses=refuses) as (url, talk):
        run = measure(tmp_path, "run", *lm(url, "--judge.retries", "0"))
        again = measure(tmp_path, "again", *lm(url, "--judge.retries", "0"))
    assert run.returncode == again.returncode == 0, run.stderr + again.stderr
    assert read_json(tmp_path / "run/metrics.json")["semantic/forget_accuracy"] == 1
    told = [read_json(tmp_path / name / "judge.json") for name in ("run", "again")]
    assert told[0]["unsupported"] == told[1]["unsupported"] == refuses
    assert (told[1]["asked"], told[1]["cached"]) == (0, JUDGED)
    assert len(talk.bodies) == JUDGED + 2 * (1 + len(refuses))
    assert run.stderr.count("does not accept temperature") == 1


@pytest.mark.slow
def test_a_server_that_misbehaves_costs_retries_and_verdicts_but_no_run(tmp_path):
    """Of the forget rows some are answered late, after a 429, a 500 or a reply that is no JSON; two never get
    a readable verdict."""

    def trouble(prompt, times):
        kind = sum(map(ord, prompt)) % 6
        if "there?" in prompt or kind == 0:
            return truth(prompt)
        if times == 1:
            return {
                1: (429, b"{}", 0),
                2: (500, b"{}", 0),
                3: (200, b'{"choices": [', 0),
                4: (200, b"<html>busy</html>", 0),
                5: (200, b"{}", 1.5),
            }[kind]
        return truth(prompt)

    with serving(trouble) as (url, talk):
        run = measure(tmp_path, "run", *lm(url, *"--judge.timeout 1 --judge.retries 3".split()))
    assert run.returncode == 0, run.stderr
    metrics = read_json(tmp_path / "run/metrics.json")
    assert metrics["semantic/coverage"] == metrics["semantic/forget_accuracy"] == 1
    assert len(talk.prompts) > JUDGED + 5


def test_rows_that_never_get_a_verdict_are_unscored_and_asked_again_alone(tmp_path):
    def stubborn(prompt, times):
        if "Reference: It was in Low Ford." in prompt and "Jasper Nightshade" in prompt:
            return 500, b"{}", 0
        return "I would rather not say." if "horn combs" in prompt else truth(prompt)

    with serving(stubborn) as (url, talk):
        run = measure(tmp_path, "run", *lm(url, "--judge.retries", "0"))
        assert run.returncode == 0, run.stderr
        metrics, detail = (
            read_json(tmp_path / "run/metrics.json"),
            read_json(tmp_path / "run/metrics_detail.json"),
        )
        assert metrics["semantic/forget_accuracy"] is None
        assert detail["semantic/forget_accuracy"]["unscored"] == 2
        assert metrics["semantic/forget_accuracy_upper"] == 1
        assert metrics["semantic/coverage"] == pytest.approx((JUDGED - 2) / JUDGED)
        assert "gave no answer to 1 of 12" in run.stderr
        assert "1 of 12 answers cannot be read" in run.stderr
        samples = read_jsonl(tmp_path / "run/samples/forget.jsonl")
        assert [row["forget_accuracy"] for row in samples[:3]] == [None, None, 1.0]
        asked = len(talk.prompts)
        again = measure(tmp_path, "again", *lm(url, "--judge.retries", "0"))
    assert again.returncode == 0
    assert len(talk.prompts) == asked + 3
    assert read_json(tmp_path / "again/judge.json")["cached"] == JUDGED - 2


def test_a_server_that_dies_in_the_middle(tmp_path):
    """The run ends with what was judged; the next one asks for the rest only."""
    alive = lambda prompt, times: truth(prompt) if len(talk.prompts) <= 8 else None

    with serving(lambda prompt, times: alive(prompt, times)) as (url, talk):
        words = lm(url, *"--judge.retries 0 --judge.concurrency 1".split())
        run = measure(tmp_path, "run", *words)
        assert run.returncode == 0, run.stderr
        assert read_json(tmp_path / "run/metrics.json")["semantic/coverage"] == pytest.approx(7 / JUDGED)
        judged = set(talk.prompts[:8])
        talk.prompts.clear()
        alive = truth
        again = measure(tmp_path, "again", *words)
    assert again.returncode == 0
    assert read_json(tmp_path / "again/metrics.json")["semantic/coverage"] == 1
    assert not (set(talk.prompts) - {"Are you there?"}) & judged
    assert len(talk.prompts) == JUDGED - 7 + 1


@pytest.mark.parametrize(
    "words, key, said",
    [
        (
            ["--judge.base_url", "http://127.0.0.1:9/v1"],
            KEY,
            "judge.base_url: http://127.0.0.1:9/v1 cannot be reached",
        ),
        ([], "sk-wrong", "refuses the key in the environment variable OPENAI_API_KEY"),
        ([], "", "refuses the key in the environment variable OPENAI_API_KEY, which is empty"),
        (["--judge.model", "large"], KEY, "judge.model, judge.base_url:"),
        (
            ["--judge.base_url", "null"],
            "",
            "judge.key_env: the environment variable OPENAI_API_KEY holds no key",
        ),
        (["--judge.model", "null"], KEY, "judge.model: judge.kind lm needs the name of a model"),
    ],
)
def test_a_judge_that_is_not_to_be_had_is_found_before_anything_is_done(words, key, said, tmp_path):
    with serving(truth, KEY) as (url, talk):
        run = measure(tmp_path, "run", *lm(url, "--judge.retries", "0", *words), OPENAI_API_KEY=key)
    assert run.returncode in (1, 2)
    assert said in run.stderr
    assert "Traceback" not in run.stderr
    assert "sk-" not in run.stderr
    assert not (tmp_path / "run").exists()
    assert len(talk.prompts) == 0


def test_allow_unscored_goes_on_without_the_judge(tmp_path):
    words = [
        *(
            "--judge.kind lm --judge.base_url http://127.0.0.1:9/v1 --judge.model small --judge.retries 0"
        ).split(),
    ]
    run = measure(tmp_path, "run", *words, "--allow-unscored")
    assert run.returncode == 0 and "going on, its rows will be unscored" in run.stderr, run.stderr
    metrics = read_json(tmp_path / "run/metrics.json")
    assert metrics["semantic/forget_accuracy"] is None
    assert metrics["semantic/coverage"] == 0
    assert metrics["semantic/forget_accuracy_upper"] == 1


@pytest.mark.slow
def test_requests_keep_their_pace_when_they_fail_too_and_are_sent_so_often(tmp_path):
    with serving(lambda prompt, times: (500, b"{}", 0) if times % 2 else (200, b"{", 0)) as (url, talk):
        start = time.monotonic()
        said = Endpoint("small", url, cache=tmp_path, requests_per_minute=300, retries=2).ask(
            "s", [f"q{n}" for n in range(3)]
        )
    assert said == [None] * 3
    assert len(talk.prompts) == 9
    assert time.monotonic() - start >= 1.6


def test_a_key_is_asked_for_where_it_is_needed(monkeypatch):
    monkeypatch.chdir(REPO)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    read = lambda **said: resolve_settings(
        StrictConfig(),
        [],
        {"judge.kind": "lm", "judge.model": "m"}
        | {key.replace("__", "."): value for key, value in said.items()},
        {},
    )
    with pytest.raises(
        ConfigError, match="judge.key_env: the environment variable OPENAI_API_KEY holds no key"
    ):
        read(evaluate__metrics="semantic")
    assert read(evaluate__metrics="semantic", judge__allow_unscored="true").judge.allow_unscored
    assert read(evaluate__metrics="tofu").judge.kind == "lm"
    with pytest.raises(ConfigError, match="judge.base_url: expected a text of the form"):
        read(judge__base_url="http://me:secret@host/v1")


@pytest.mark.parametrize("content", [["yes"], [{"type": "text", "text": "yes"}], 5, True, None, "  "])
def test_a_reply_whose_content_is_no_text_is_none(content, tmp_path):
    body = json.dumps(
        {
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
            ],
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "small",
        }
    ).encode()
    with serving(lambda prompt, times: (200, body, 0)) as (url, _):
        assert Endpoint("small", url, cache=tmp_path, retries=0).ask("s", ["q"], str.strip) == [None]


@pytest.mark.slow
def test_an_interrupted_wait_keeps_what_came_and_sends_no_more(tmp_path):
    """Ctrl-C while a hundred questions wait: those in flight are kept, the rest is asked by the next run."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(REPO / 'src/exec')!r})\n"
        "import checkout\n"
        "from unlearnkit.core.endpoint import Endpoint\n"
        f"server = Endpoint('small', sys.argv[1], cache=Path({str(tmp_path)!r}), concurrency=4)\n"
        "server.ask('s', [f'q{n}' for n in range(100)])"
    )
    slow = lambda prompt, times: time.sleep(0.1) or "yes"
    with serving(slow) as (url, talk):
        process = subprocess.Popen(
            command("-c", code, url),
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        wait_until(lambda: len(talk.prompts) >= 10)
        process.send_signal(signal.SIGINT)
        process.wait(20)
        asked = len(talk.prompts)
        assert process.returncode != 0
        assert asked < 40
        said = Endpoint("small", url, cache=tmp_path).ask("s", [f"q{n}" for n in range(100)])
    assert said == ["yes"] * 100
    assert len(talk.prompts) == len(set(talk.prompts)) == 100


def test_a_key_never_comes_back(tmp_path, caplog, monkeypatch):
    """A server that repeats what it was sent; a key that no request can carry."""
    monkeypatch.setenv("K", KEY)
    echo = json.dumps({"error": {"message": f"bad request: Authorization: Bearer {KEY}"}}).encode()
    with serving(lambda prompt, times: (400, echo, 0) if prompt == "q" else f"no {KEY}") as (url, _):
        Endpoint("small", url, "K", cache=tmp_path).ask("s", ["q", "r"], lambda reply: False)
    assert KEY not in caplog.text
    assert "***" in caplog.text
    monkeypatch.setenv("K", "sk-schlüssel")
    with pytest.raises(
        UserError, match="judge.key_env: the key in the environment variable K has characters that no key has"
    ):
        Endpoint("small", url, "K").probe()


def test_replies_survive_strange_bytes(tmp_path):
    from unlearnkit.core.reply_cache import ReplyCache

    path = tmp_path / "replies.jsonl"
    ReplyCache(path).add("a", "one\u2028line")
    path.write_bytes(path.read_bytes() + b'{"key": "b", "reply": "caf\xc3')
    assert ReplyCache(path).known == {"a": "one\u2028line"}
    ReplyCache(path).add("c", "x")
    assert ReplyCache(path).known == {"a": "one\u2028line", "c": "x"}


@pytest.mark.slow
def test_the_embedding_judge_agrees_with_the_rule_as_far_as_kappa_says(tmp_path):
    run = measure(tmp_path, "run", "--judge.kind", "embedding")
    assert run.returncode == 0, run.stderr
    assert (
        read_json(tmp_path / "run/metrics.json")["semantic/forget_accuracy"] == 1
    )  # the target answers to the letter
    retain = measure(
        tmp_path, "retain", "--judge.kind", "embedding", "--overall.model_name", FICTIONAL / "retain"
    )
    metrics = read_json(tmp_path / "retain/metrics.json")
    assert retain.returncode == 0
    assert metrics["semantic/retain_accuracy"] == 1
    assert 0.4 < metrics["semantic/judge_kappa"] < 1
    assert metrics["semantic/forget_accuracy"] > 0
    detail = read_json(tmp_path / "run/metrics_detail.json")
    assert "embedding minilm" in detail["semantic/forget_accuracy"]["judge"]
    refused = measure(tmp_path, "other", *"--judge.kind embedding --judge.embedder no/such-model".split())
    assert refused.returncode == 1
    assert "sentence embedder 'no/such-model' cannot be loaded" in refused.stderr
    traces = measure(tmp_path, "other", *"--judge.kind embedding --evaluate.metrics reasoning".split())
    assert traces.returncode == 2
    assert "judge.kind embedding compares answers and reads no traces" in traces.stderr


def test_a_local_model_judges(tmp_path):
    """The fictional model gives no verdict that can be read: all rows are unscored."""
    run = measure(
        tmp_path,
        "run",
        "--judge.kind",
        "local",
        "--judge.model",
        FICTIONAL / "retain",
        "--judge.max_tokens",
        "8",
    )
    assert run.returncode == 0, run.stderr
    told = read_json(tmp_path / "run/judge.json")
    assert told["asked"] == told["failed"] == JUDGED
    assert told["prompt_tokens"] > 1000
    assert read_json(tmp_path / "run/metrics.json")["semantic/coverage"] == 0
    refused = measure(tmp_path, "other", *"--judge.kind local --judge.model no-such-folder".split())
    assert refused.returncode == 2
    assert "judge.model: there is no folder no-such-folder" in refused.stderr


@pytest.mark.slow
def test_transformers_serve_is_spoken_to_as_a_judge(tmp_path):
    """Its model, the fictional one, answers and knows no verdicts: every reply comes, is counted, and leaves
    its row unscored."""
    with transformers_serve(FICTIONAL / "target") as url:
        run = measure(
            tmp_path,
            "run",
            "--judge.kind",
            "lm",
            "--judge.base_url",
            url,
            "--judge.model",
            FICTIONAL / "target",
            *"--judge.concurrency 2 --judge.max_tokens 8".split(),
        )
    assert run.returncode == 0, run.stderr
    told = read_json(tmp_path / "run/judge.json")
    assert told["asked"] == told["failed"] == JUDGED
    assert told["prompt_tokens"] > 1000
    assert told["completion_tokens"] > 0
    assert read_json(tmp_path / "run/metrics.json")["semantic/coverage"] == 0
