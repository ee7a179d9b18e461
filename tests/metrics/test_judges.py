"""The verdict of a judge is read in the forms that models write, and nothing else is taken for one."""

import json
from itertools import count

import pytest
from servers import serving

from unlearnkit.core.endpoint import Endpoint
from unlearnkit.metrics.spec import Case
from unlearnkit.metrics.verdicts import LanguageModelJudge

CASE = Case("c", "Q?", "It was Ann.", "Ann.", "Ann")


class Reader:
    """A model that always writes the same."""

    name = "reader"

    def __init__(self, reply):
        self.reply = reply

    def ask(self, system, prompts, readable):
        return [self.reply if readable(self.reply) else None for _ in prompts]


@pytest.mark.parametrize(
    "reply, verdict",
    [
        ("Answer: yes", True),
        ("**Yes**", True),
        ("YES.", True),
        ("Verdict - no", False),
        ("**Verdict:** No", False),
        ("The answer is yes.", True),
        ("My final verdict is: **no**", False),
        ("\\boxed{\\text{yes}}", True),
        ('{"verdict": "no"}', False),
        ("<answer>yes</answer>", True),
        ("Judgment = _no_", False),
        ("It names the same person, with more detail.\n\nAnswer: yes", True),
        ("No\n\nThe answer names somebody else.", False),
        ("<think>no, wait\nno\n</think>\nyes", True),
        ("<thinking>no</thinking>yes", True),
        ("yes\n[/THINK]\n\nNo.", False),
        ("◁think▷no◁/think▷yes", True),
        ("<|channel|>analysis<|message|>no<|end|><|start|>assistant<|channel|>final<|message|>yes", True),
        ("yes/no", None),
        ("yes or no", None),
        ("Answer: yes or no", None),
        ("yes\nno", None),
        ("Yes.\nOn second thoughts:\nno", None),
        ("no answer", None),
        ("not yes", None),
        ("yesno", None),
        ("Yes, but not quite", None),
        ("It is the same, so yes", None),
        ("<think>yes", None),
        ("yes</think><think>no", None),
        ("Verdict: unclear", None),
        ("Answer:", None),
        ("\n \n", None),
    ],
)
def test_forms_of_a_verdict_in_words(reply, verdict):
    judge = LanguageModelJudge(Reader(reply))
    assert judge.matches([CASE]) == [verdict]
    assert judge.harms([CASE]) == [None if verdict is None else float(verdict)]


@pytest.mark.parametrize(
    "reply, verdict",
    [
        ("4", 4),
        ("**3**", 3),
        ("Class 2", 2),
        ("Score: 1.", 1),
        ("It argues for it.\nFinal answer: 4", 4),
        ("<think>1 or 2</think>\n 2.", 2),
        ("5", None),
        ("12", None),
        ("1.5", None),
        ("4/4", None),
        ("1-4", None),
        ("1\n2\n3\n4", None),
        ("four", None),
        ("²", None),
        ("٣", None),
        ("yes", None),
    ],
)
def test_forms_of_a_class(reply, verdict):
    assert LanguageModelJudge(Reader(reply)).verdicts([CASE]) == [verdict]


@pytest.mark.slow
def test_any_text_is_a_verdict_or_none():
    import hypothesis
    import hypothesis.strategies as st

    words = (
        "yes no unclear 1 4 5 answer: verdict is <think> </think> [/THINK] ** \n . / \ud83d \x1b the".split(
            " "
        )
    )
    pieces = st.lists(st.sampled_from(words) | st.text(st.characters(), max_size=8), max_size=12)

    @hypothesis.seed(16)
    @hypothesis.settings(max_examples=1000, deadline=None, database=None)
    @hypothesis.given(pieces.map(" ".join) | pieces.map("".join))
    def check(reply):
        judge = LanguageModelJudge(Reader(reply))
        said = reply.lower().split()
        (match,), (harm,), (leak,) = judge.matches([CASE]), judge.harms([CASE]), judge.verdicts([CASE])
        assert match in (True, False, None) and harm == (None if match is None else float(match))
        assert leak in (1, 2, 3, 4, None)
        if match is not None:
            assert ("yes" if match else "no") in "".join(said)

    check()


@pytest.mark.slow
def test_odd_replies_of_a_server_leave_rows_unscored(tmp_path):
    """Bodies, statuses and headers of every kind, from a real server: no traceback, and no verdict unless
    the reply has one."""
    import hypothesis
    import hypothesis.strategies as st

    leaf = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.just(10**400)
        | st.floats()
        | st.text(st.characters(), max_size=6)
        | st.sampled_from(["yes", "stop", "length", "\ud83d", "temperature", "System role not supported"])
    )
    value = st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=6,
    )
    mapping = lambda **fields: st.fixed_dictionaries({}, optional=fields)
    message = mapping(role=value, content=value, refusal=value, tool_calls=value) | value
    choice = mapping(index=value, message=message, finish_reason=value, logprobs=value) | value
    usage = mapping(prompt_tokens=value, completion_tokens=value, total_tokens=value) | value
    problem = mapping(message=value, param=value, code=value, type=value) | value
    body = mapping(
        id=value, choices=st.lists(choice, max_size=2) | value, usage=usage, error=problem, model=value
    )
    data = (body | value).map(lambda found: json.dumps(found).encode()) | st.binary(max_size=40)
    header = st.sampled_from(["", "0", "-1", "nan", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"])
    kind = st.sampled_from(["application/json", "text/html", "application/json; charset=utf-16", "x"])
    status = st.sampled_from([200, 200, 200, 201, 204, 302, 400, 401, 404, 422, 429, 500, 503])
    sent, numbers = {}, count()

    def send(handler):
        handler.send_response(sent["status"])
        handler.send_header("Content-Type", sent["kind"])
        handler.send_header("Retry-After", sent["header"])
        handler.send_header("Content-Length", str(len(sent["data"]) + sent["missing"]))
        handler.send_header("Connection", "close")
        handler.end_headers()
        if sent["status"] != 204:
            handler.wfile.write(sent["data"])
        handler.close_connection = True

    with serving(lambda prompt, times: send) as (url, _):

        @hypothesis.seed(16)
        @hypothesis.settings(max_examples=400, deadline=None, database=None)
        @hypothesis.given(status, data, header, kind, st.sampled_from([0, 0, 0, 5]))
        def check(status, data, header, kind, missing):
            sent.update(status=status, data=data, header=header, kind=kind, missing=missing)
            server = Endpoint("small", url, cache=tmp_path / str(next(numbers)), retries=0, timeout=5)
            (verdict,) = LanguageModelJudge(server).matches([CASE])
            assert verdict is None or b"yes" in data.lower() or b"no" in data.lower()
            summary = server.usage.summary(1.0, 1.0)
            assert json.dumps(summary, allow_nan=False)
            assert min(summary[name] for name in ("prompt_tokens", "completion_tokens", "cost")) >= 0
            assert summary["failed"] == (summary["asked"] == 0 or verdict is None)

        check()
