"""Output on the screen: text is literal, control codes are made visible, and no failure of the screen reaches
the run.

Rows, names, paths and replies of servers may hold any characters. Every script runs under `safe_streams`, and
prints with `show`, `show_error`, `Screen`, or the log with `VisibleFormatter`.
"""

import codecs
import contextlib
import errno
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any, TextIO, cast

from rich.console import Console

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 except tab and newline, DEL, C1, line separators, bidirectional controls, and lone surrogates."""
PLAIN_SIGNS = {"↑": "^", "↓": "v", "–": "-", "—": "-", "±": "+-", "…": "...", "‘": "'", "’": "'"}
PLAIN_SIGNS |= {"“": '"', "”": '"', "×": "x", "\ufffd": "?"}
"""Replacements of signs that the screen's encoding lacks; any other character is replaced by its code."""


def visible(text: object) -> str:
    r"""The text with every control code as its escape (ESC as \x1b), tabs and newlines as they are."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def encodable(text: str, encoding: str | None) -> str:
    """The text with replacements for characters that the encoding lacks (None is UTF-8)."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "plain_signs").decode(encoding)


def _plain_signs(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError), "used for encoding only"
    lacking = error.object[error.start : error.end]
    codes = [sign.encode("ascii", "backslashreplace").decode("ascii") for sign in lacking]
    return "".join(PLAIN_SIGNS.get(sign) or code for sign, code in zip(lacking, codes)), error.end


codecs.register_error("plain_signs", _plain_signs)


def show(text: object, end: str = "\n") -> None:
    """Print a text on standard output."""
    print(visible(text), end=end)


def show_error(text: object) -> None:
    """Print a text on standard error, in one write, so that lines of several threads do not mix."""
    print(visible(text) + "\n", end="", file=sys.stderr, flush=True)


class VisibleFormatter(logging.Formatter):
    """Formatter of log records that makes control codes visible."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class Screen(Console):
    """A rich console that prints every string literally, without markup and emoji codes.

    Args:
        file: Output; None is standard output.
        least_width: Least number of columns of an output that is not a terminal.
    """

    def __init__(self, file: TextIO | None = None, least_width: int = 100):
        stream = cast(Any, file or sys.stdout or io.StringIO())
        super().__init__(file=stream, markup=False, emoji=False, highlight=False)
        if not self.is_terminal:
            self.width = max(least_width, self.width)

    def literal(self, text: object) -> str:
        """The text as this console can show it."""
        return encodable(visible(text), self.encoding)

    def render_str(self, text: str, **options: Any):  # type: ignore[override]
        # Signs are replaced before the layout, which counts columns.
        return super().render_str(self.literal(text), **options)

    def print_text(self, text: object, style: str | None = None) -> None:
        """Print a text without line breaks at the width, so that a path in it can be copied."""
        self.print(str(text), style=style, soft_wrap=True)


class SafeStream:
    """A text stream that never raises: it replaces characters that its encoding lacks, and stores the first
    system error in `failure`."""

    def __init__(self, stream: TextIO | None):
        # Python has no stream where the file descriptor was closed before it started.
        self.stream = stream or io.StringIO()
        self.failure: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        readable = encodable(text, getattr(self.stream, "encoding", None))
        with self._keeping_failure():
            self.stream.write(readable)
        return len(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._keeping_failure():
            self.stream.flush()

    @contextlib.contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self.failure = self.failure or error

    def finish(self) -> None:
        """Flush; after a failure, discard the rest."""
        self.flush()
        if self.failure:
            # Python flushes once more at exit, and a second failure there would change the exit code.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """Replace standard output and error by streams that never fail, for a block that is a whole script. An
    output that could not be written is reported, unless its reader has closed the pipe."""
    sys.excepthook = _show_traceback
    out, error = SafeStream(sys.stdout), SafeStream(sys.stderr)
    with contextlib.redirect_stdout(cast(TextIO, out)), contextlib.redirect_stderr(cast(TextIO, error)):
        try:
            yield
        finally:
            out.finish()
            if out.failure and getattr(out.failure, "errno", None) != errno.EPIPE:
                show_error(f"WARNING standard output could not be written: {out.failure}")
            error.finish()


def _show_traceback(kind, error, trace) -> None:
    show_error("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"))
