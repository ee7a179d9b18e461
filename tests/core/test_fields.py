"""Checks of what stands in JSON records of others."""

import math

import pytest

from unlearnkit.core.files import UserError
from unlearnkit.core.json_fields import (
    LOSS,
    PROBABILITY,
    TEXT,
    TEXTS,
    check_fields,
    is_number,
    number,
    or_null,
    shown,
)


def test_numbers_are_finite_and_no_flags():
    assert all(map(is_number, (0, -1, 1.5, 1e300, 2**63)))
    assert not any(map(is_number, (True, False, math.nan, math.inf, -math.inf, 10**400, "1", None, [1])))


@pytest.mark.parametrize(
    "kind, right, wrong",
    [
        (PROBABILITY, (0, 1, 0.5, 1.0000001), (-0.1, 1.1, "0.5", True, None)),
        (LOSS, (0, 7.5, 1e4, -1e-7), (-1e4, math.inf, 10**400)),
        (TEXT, ("a",), ("", " \n", 5, None, ["a"])),
        (TEXTS, (["a"],), ([], ["a", ""], ["a", 5], "a", {"a": "b"})),
        (or_null(number(0)), (None, 0), (-1, "")),
    ],
)
def test_kinds(kind, right, wrong):
    assert all(map(kind.holds, right))
    assert not any(map(kind.holds, wrong))


@pytest.mark.parametrize(
    "record, message",
    [
        ({}, "f, line 3: 'a' is missing, expected a text with words in it; mend it"),
        ({"a": None}, "f, line 3: 'a' must be a text with words in it, got null; mend it"),
        ({"a": "x", "b": True}, "f, line 3: 'b' must be a finite number of at least 0, got true; mend it"),
        ({"a": "\ud83d" * 99, "b": [1]}, r"'b' must be a finite number of at least 0, got \[1\]; mend it"),
    ],
)
def test_a_wrong_field_is_named_with_its_place_and_what_was_expected(record, message):
    with pytest.raises(UserError, match=message):
        check_fields("f, line 3", record, {"a": TEXT}, {"b": number(0)}, "; mend it")


def test_what_is_shown_is_short_and_can_be_printed():
    deep = [1]
    for _ in range(5000):
        deep = [deep]
    for value in (deep, "\ud83d" * 500, 10**400, {"a": deep}, "line\nline"):
        assert len(shown(value)) <= 64
        assert "\n" not in shown(value)
        shown(value).encode()
