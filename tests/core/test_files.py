import json
import os

import pytest
from scripts import die_at_change

from unlearnkit.core.files import (
    UserError,
    atomic,
    fingerprint,
    lock,
    read_json,
    read_jsonl,
    read_text,
    reading_once,
    write_json,
    write_jsonl,
)


def test_atomic_leaves_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_gone_after_the_next_write_of_the_file(tmp_path):
    path, other = tmp_path / "a.json", tmp_path / ".b.json.x1y2.part"
    for name in (".a.json.k_2lm0.part", ".a.json.q.part"):
        (tmp_path / name).write_text("half")
    other.write_text("half of another")
    write_json(path, 1)
    assert sorted(tmp_path.iterdir()) == sorted([path, other])


def test_a_writer_that_lives_keeps_its_temporary_file(tmp_path):
    path = tmp_path / "a.json"
    with atomic(path) as slow:
        slow.write_text("1")
        write_json(path, 2)
        assert slow.exists()
    assert read_json(path) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", range(1, 6))
def test_a_writer_killed_anywhere_leaves_the_old_file_or_the_new_and_nothing_for_ever(number, tmp_path):
    path = tmp_path / "a.json"
    write_json(path, "old")
    pid = os.fork()
    if pid == 0:
        die_at_change(number, tmp_path)()
        write_json(path, "new")
        os._exit(0)
    os.waitpid(pid, 0)
    assert read_json(path) in ("old", "new")
    write_json(path, "again")
    assert list(tmp_path.iterdir()) == [path]


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": 1,}', "line 1, column"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{\n "a": x}', "line 2, column 7"),
    ],
)
def test_broken_json_is_placed(tmp_path, text, message):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(UserError, match="broken.json") as error:
        read_json(path)
    assert message in str(error.value)


def test_broken_jsonl_names_the_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "a"}\n\n{"id": \n')
    with pytest.raises(UserError, match="line 3"):
        read_jsonl(path)
    path.write_text('{"id": "a"}\n[1]\n')
    with pytest.raises(UserError, match="line 2: expected an object"):
        read_jsonl(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": 1}\n{"a": "x \\ud83d y"}\n', r"line 2, column 10: \\ud83d is half of a character"),
        ('{"a": "\\udE00"}', r"line 1, column 8: \\udE00 is half"),
        ('{"a": "\\ude00\\ud83d"}', r"line 1, column 8: \\ude00 is half"),
        ('{"\\uDBFF": 1}', r"line 1, column 3: \\uDBFF is half"),
        ('{"a": 1}\n{"a": 1, "a": 2}', "line 2: key 'a' stands twice"),
        ('{"a": 1}\n' + '{"a": ' + 5000 * "9" + "}", "line 2: a whole number has more digits"),
        ('{"a": 1}\n' + 9999 * "[", "line 2: nested too deeply"),
    ],
)
def test_json_that_nothing_can_take_is_placed(tmp_path, text, message):
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        read_jsonl(tmp_path / "rows.jsonl")


def test_pairs_of_surrogates_and_escaped_backslashes_are_text(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        r'{"a": "\ud83d\ude00", "b": "\\ud83d", "c": "\\\uD83D\uDE00"}' + "\n"
    )
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"a": "\U0001f600", "b": "\\ud83d", "c": "\\\U0001f600"}]


def test_every_text_survives_writing_and_reading(tmp_path):
    rows = [{"text": "a\u2028b\u0085c\x0bd\n\r\ne"}, {"text": "żółw 龜"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


def test_a_byte_order_mark_is_no_text_at_the_start_of_any_line(tmp_path):
    """Two files with a mark joined by cat, and an editor that put a second one in front."""
    mark = "\ufeff"
    path = tmp_path / "rows.jsonl"
    path.write_text(
        f'{mark}{mark}{{"id": "a"}}\r\n{mark}{{"id": "b\ufeff"}}\n{mark}', encoding="utf-8", newline=""
    )
    assert read_text(path) == f'{{"id": "a"}}\n{{"id": "b{mark}"}}\n'
    assert read_jsonl(path) == [{"id": "a"}, {"id": f"b{mark}"}]


def test_missing_file_and_folder_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "none.json")
    with pytest.raises(UserError, match="is a folder"):
        read_json(tmp_path)


def test_lock_refuses_a_second_holder_and_frees(tmp_path):
    with lock(tmp_path / "lock"), pytest.raises(UserError, match="another run"), lock(tmp_path / "lock"):
        pass
    with lock(tmp_path / "lock"):
        pass


def test_fingerprint_separates_parts():
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint({"a": 1, "b": 2}) == fingerprint(json.loads('{"b": 2, "a": 1}'))


def test_a_file_is_read_once_within_a_run_and_its_rows_stay_apart(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "a"}\n')
    with reading_once():
        first = read_jsonl(path)
        first[0]["added"] = 1
        path.write_text('{"id": "b"}\n')
        assert read_jsonl(path) == [{"id": "a"}]
    assert read_jsonl(path) == [{"id": "b"}]
