"""What is shown is literal, holds no control code, and fails no run."""

import ast
import errno
import io
import logging
import os
import re
import subprocess
import sys

import pytest
from conftest import REPO
from rich.table import Table
from scripts import command

from unlearnkit.core.files import UserError
from unlearnkit.core.screen import (
    SafeStream,
    Screen,
    VisibleFormatter,
    safe_streams,
    show,
    show_error,
    visible,
)
from unlearnkit.exec.script import with_clear_errors

SRC = REPO / "src"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J\x85", r"\x9b2J\x85"),
        ("over\rwritten\b", r"over\rwritten\x08"),
        ("\x00\x7f", r"\x00\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("lone \udcc3", r"lone \udcc3"),
        ("é ↑ 中 \U0001f600\ttab\nline [b]", "é ↑ 中 \U0001f600\ttab\nline [b]"),
    ],
)
def test_control_codes_are_shown_as_escapes_and_nothing_else_is_changed(text, shown):
    assert visible(text) == shown


def on_screen(text: str, encoding: str = "utf-8") -> str:
    """A text as a line and in every place of a table."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    screen = Screen(SafeStream(file), least_width=400)
    table = Table(title=text)
    table.add_column(text, overflow="fold")
    table.add_row(text)
    screen.print(table)
    screen.print_text(text, style="bold")
    file.flush()
    return file.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "[/red]", ":smile:", "[link=http://a]b", r"\[x]"])
def test_markup_and_emoji_codes_are_literal(text):
    assert on_screen(text).count(text) == 4


def test_a_screen_without_our_signs_gets_others_and_its_table_stays_straight():
    shown = on_screen("é ↑ – ±", "ascii")
    assert shown.count(r"\xe9 ^ - +-") == 4
    lines = [line for line in shown.splitlines() if line.startswith(("|", "+"))]
    assert len({len(line) for line in lines}) == 1
    assert on_screen("é ↑", "latin-1").count("é ^") == 4


def test_the_log_shows_control_codes():
    record = logging.LogRecord("x", logging.WARNING, "", 0, "reply %s", ("\x1b[2J",), None)
    assert VisibleFormatter("%(levelname)s %(message)s").format(record) == r"WARNING reply \x1b[2J"


def test_an_error_line_shows_control_codes(capsys):
    def fail():
        raise UserError("no\x1b]0;x\x07 [/red]")

    assert with_clear_errors(fail) == 1
    assert capsys.readouterr().err == "error: no\\x1b]0;x\\x07 [/red]\n"


class Broken(io.StringIO):
    """A stream that fails with an error of the system."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def flush(self):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "remark"),
    [(errno.ENOSPC, "WARNING standard output could not be written: [Errno 28]"), (errno.EPIPE, "")],
)
def test_an_output_that_fails_is_remarked_upon_unless_its_reader_has_gone(number, remark, monkeypatch):
    error = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Broken(number))
    monkeypatch.setattr(sys, "stderr", error)
    with safe_streams():
        show("a text")
    assert error.getvalue().startswith(remark)
    assert bool(error.getvalue()) == bool(remark)


def test_streams_that_are_closed_or_missing_take_everything(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(sys, "stderr", None)
    with safe_streams():
        show("a text")
        show_error("another")
        Screen().print_text("a third")


PROGRAM = f"""
import sys
sys.path.insert(0, {str(SRC / "exec")!r})
import checkout
from unlearnkit.core.screen import Screen, safe_streams, show, show_error
with safe_streams():
    for _ in range(20):
        show("\\u2191 \\u00e9 " + 9000 * "x")
        show_error("a line")
    Screen().print_text("the end")
if "fail" in sys.argv:
    raise ValueError("\\x1b[2J")
"""
"""Ends well, whatever becomes of its output."""


def ended(stdout, *words, **environment) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("-c", PROGRAM, *words),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def test_a_process_whose_output_nobody_reads_ends_well():
    read, write = os.pipe()
    os.close(read)
    done = ended(write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, 20 * "a line\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_process_whose_output_is_full_ends_well_and_remarks_upon_it():
    with open("/dev/full", "w") as full:
        done = ended(full)
    assert done.returncode == 0
    assert "WARNING standard output could not be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
    ],
)
def test_a_process_in_an_ascii_locale_prints_other_signs_and_its_traceback_no_control_code(locale):
    done = ended(subprocess.PIPE, "fail", **locale)
    lines = done.stdout.splitlines()
    assert lines[0] == r"^ \xe9 " + 9000 * "x"
    assert (len(lines), lines[-1]) == (21, "the end")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == r"ValueError: \x1b[2J"


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda path: str(path.relative_to(SRC)))
def test_nothing_is_shown_but_through_the_screen(path):
    if path == SRC / "core" / "screen.py":
        return
    called = [
        getattr(node.func, "id", None)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]
    assert not {"print", "Console"} & set(called)
