"""A part of a request is left out only where the server does not accept it at all."""

import pytest

from unlearnkit.core.chat_request import RequestForm, refused_parts, request_fields

SENT = ("messages", "temperature", "max_tokens")


def error(message, param=None, code=None):
    return {"message": message, "param": param, "code": code}


@pytest.mark.parametrize(
    "body, refused",
    [
        (error("Unsupported value", "temperature", "unsupported_value"), "temperature"),
        (error("'temperature' is not supported with this model.", "temperature"), "temperature"),
        (error("Unsupported parameter", "max_tokens", "unsupported_parameter"), "max_tokens"),
        (error("does not support 'system'", "messages[0].role", "unsupported_value"), "system"),
        (error("Use of max_tokens is not supported, use max_completion_tokens."), "max_tokens"),
        (error("litellm: gpt-5 models don't support temperature=0.0. Only temperature=1 is."), "temperature"),
        (error("invalid temperature: only 1 is allowed for this model"), "temperature"),
        (error("`temperature` may only be set to 1 when thinking is enabled"), "temperature"),
        (error("`temperature` is deprecated for this model."), "temperature"),
        (error("Unrecognized request argument supplied: temperature"), "temperature"),
        (error("System role not supported", code=400), "system"),
        (error("Developer instruction is not enabled for models/gemma-3-27b-it"), "system"),
        (error("Conversation roles must alternate user/assistant/user/assistant/..."), "system"),
        (error("Only user and assistant roles are supported!"), "system"),
        (error("Neither a system role nor max_tokens is accepted: unsupported"), "max_tokens system"),
        ("Template error: invalid operation: System role not supported", "system"),
        ("Input validation error: `temperature` must be strictly positive", "temperature"),
        (
            {"detail": [{"loc": ["body", "temperature"], "msg": "Extra inputs are not permitted"}]},
            "temperature",
        ),
        ([{"error": {"message": "Developer instruction is not enabled"}}], "system"),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_parts_that_a_server_refuses(body, refused, status):
    assert refused_parts(SENT, status, body) == set(refused.split())


@pytest.mark.parametrize(
    "status, body",
    [
        (401, error("temperature is not supported", "temperature", "unsupported_value")),
        (404, error("temperature is not supported", "temperature", "unsupported_value")),
        (429, error("temperature is not supported", "temperature", "unsupported_value")),
        (500, error("System role not supported")),
        (400, error("The prompt asks for a temperature that is not supported", "messages", "content_filter")),
        (400, error("top_p is not supported with this model", "top_p", "unsupported_parameter")),
        (400, error("Invalid 'temperature': must be <= 2", "temperature", "decimal_above_max_value")),
        (400, error("temperature 3 is not supported. It must be between 0 and 2.", "temperature")),
        (400, error("max_tokens is too large: 9999. This model supports at most 512", "max_tokens")),
        (
            400,
            error("'max_tokens' or 'max_completion_tokens' is too large: 1024. The maximum context is 512."),
        ),
        (400, error("maximum context length is 512 tokens", "messages", "context_length_exceeded")),
        (400, error("The model's temperature was read. Streaming is not supported.")),
        (400, error(None)),
        (400, {"detail": [{"loc": ["temperature"], "msg": "Input should be less than or equal to 2"}]}),
        (400, None),
        (400, ""),
        (400, ["temperature"]),
        (400, error("unsupported", ["temperature"], {"x": 1})),
    ],
)
def test_any_other_error_leaves_the_request_as_it_is(status, body):
    assert refused_parts(SENT, status, body) == set()


def test_a_part_that_was_not_sent_is_not_refused():
    assert refused_parts(["messages"], 400, error("temperature is not supported")) == set()


def test_fields_of_a_request_without_some_parts():
    build = lambda max_tokens, *unsupported: request_fields("s", "q", 0.5, max_tokens, unsupported)
    assert build(0).keys() == {"messages", "temperature"}
    merged = {"messages": [{"role": "user", "content": "s\n\nq"}], "max_tokens": 8}
    assert build(8, "temperature", "system") == merged
    assert build(8, "max_tokens")["max_completion_tokens"] == 8
    assert build(8, "max_tokens", "max_completion_tokens").keys() == {"messages", "temperature"}


def test_what_is_excluded_is_kept(tmp_path):
    form = RequestForm(tmp_path / "form.json")
    assert form.exclude({"temperature", "system"}) == ["system", "temperature"]
    assert form.exclude({"system"}) == []
    assert RequestForm(form.path).unsupported == form.unsupported == {"temperature", "system"}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", '{"unsupported": 5}', '{"unsupported": [[]]}', "[" * 9999]
)
def test_a_broken_file_of_a_form_counts_as_none(text, tmp_path):
    path = tmp_path / "form.json"
    path.write_text(text)
    assert RequestForm(path).unsupported == frozenset()


def test_a_server_that_accepts_everything_again_is_forgotten_as_another(tmp_path):
    form = RequestForm(tmp_path / "form.json")
    form.exclude({"temperature"})
    form.reset()
    form.settle()
    assert not form.path.exists()
