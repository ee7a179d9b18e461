"""Replies that are kept on disk are believed only as they were written."""

import json

import pytest

from unlearnkit.core.reply_cache import ReplyCache


def kept(path) -> str:
    """The file's first line, of three replies."""
    replies = ReplyCache(path)
    for key in "abc":
        replies.add(key, "no")
    return path.read_text().splitlines()[0]


@pytest.mark.parametrize("reply", ["yes", None, 5, ["no"]])
def test_a_reply_that_was_edited_is_requested_again(reply, tmp_path, caplog):
    path = tmp_path / "replies.jsonl"
    line = kept(path)
    path.write_text(path.read_text().replace(line, json.dumps({**json.loads(line), "reply": reply})))
    replies = ReplyCache(path)
    assert "a" not in replies
    assert replies.known == {"b": "no", "c": "no"}
    assert len(caplog.records) == 1
    assert f"{path}: 1 replies do not fit their checksum" in caplog.text
    replies.add("a", "no")
    assert ReplyCache(path).known == dict.fromkeys("abc", "no")
    assert len(caplog.records) == 1


def test_a_reply_without_a_checksum_or_under_another_key_is_requested_again(tmp_path, caplog):
    path = tmp_path / "replies.jsonl"
    line = kept(path)
    old = json.dumps({"key": "old", "reply": "no"})
    path.write_text("\n".join([old, line.replace('"a"', '"d"'), "5", '{"key": ["e"], "reply": "no"}']))
    assert ReplyCache(path).known == {}
    assert "2 replies do not fit" in caplog.text
