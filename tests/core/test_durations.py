"""Durations of a training."""

import pytest

from unlearnkit.core.durations import duration_text, parse_duration
from unlearnkit.core.files import UserError


@pytest.mark.parametrize(
    "text, usual",
    [
        ("1 epoch", "1 epoch"),
        ("1 epochs", "1 epoch"),
        ("0.5 epochs", "0.5 epochs"),
        (".1epoch", "0.1 epochs"),
        ("20 steps", "20 steps"),
        ("1 step", "1 step"),
        ("2.0 steps", "2 steps"),
    ],
)
def test_a_duration_is_read_and_written_in_one_spelling(text, usual):
    assert duration_text(text) == usual
    assert duration_text(usual) == usual


def test_decimal_epochs_are_exact():
    assert parse_duration("0.1 epochs").amount * 10 == 1


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "number and a unit"),
        ("5", "number and a unit"),
        (5, "number and a unit"),
        ("epoch", "number and a unit"),
        ("-1 epoch", "number and a unit"),
        ("1 epoch and a half", "number and a unit"),
        ("2 minutes", "number and a unit"),
        ("0 steps", "above 0"),
        ("0.5 steps", "whole"),
        ("nan epochs", "number and a unit"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_reason(text, told):
    with pytest.raises(UserError, match=told):
        parse_duration(text)
