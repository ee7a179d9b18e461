"""All that a person reads on the screen: text is literal, control codes are shown and never sent, and no
failure of the screen reaches the run.

Rows, names, paths and replies of servers may hold anything. Every script runs under `safe_streams`; what it
shows goes through `show`, `show_error`, `Screen`, or the log with `VisibleFormatter`.
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
"""C0 but for tab and newline, DEL, C1, separators of lines, marks that turn the direction of what follows,
and lone surrogates."""
PLAIN_SIGNS = {"↑": "^", "↓": "v", "–": "-", "—": "-", "±": "+-", "…": "...", "‘": "'", "’": "'"}
PLAIN_SIGNS |= {"“": '"', "”": '"', "×": "x", "\ufffd": "?"}
"""What stands for a sign that the screen's encoding lacks; any other character is shown as its code."""


def visible(text: object) -> str:
    r"""The text with every control code as its escape (ESC as \x1b), tabs and newlines as they are."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def encodable(text: str, encoding: str | None) -> str:
    """The text with replacement signs for what the encoding lacks (None: it lacks only lone surrogates)."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "plain_signs").decode(encoding)


def _plain_signs(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError), "used for encoding only"
    lacking = error.object[error.start : error.end]
    code = lambda sign: sign.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(PLAIN_SIGNS.get(sign) or code(sign) for sign in lacking), error.end


codecs.register_error("plain_signs", _plain_signs)


def show(text: object, end: str = "\n") -> None:
    """Print a text on standard output."""
    print(visible(text), end=end)


def show_error(text: object) -> None:
    """Print a text on standard error, in one write, since threads share that stream."""
    print(visible(text) + "\n", end="", file=sys.stderr, flush=True)


class VisibleFormatter(logging.Formatter):
    """A formatter of log records whose control codes are shown."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class Screen(Console):
    """A rich console on which every string is literal: neither markup nor emoji codes have a meaning.

    Args:
        file: where to print; None is standard output.
        least_width: columns where it is no terminal, at least.
    """

    def __init__(self, file: TextIO | None = None, least_width: int = 100):
        stream = cast(Any, file or sys.stdout or io.StringIO())
        super().__init__(file=stream, markup=False, emoji=False, highlight=False)
        if not self.is_terminal:
            self.width = max(least_width, self.width)

    def literal(self, text: object) -> str:
        """The text as it can be shown here."""
        return encodable(visible(text), self.encoding)

    def render_str(self, text: str, **options: Any):  # type: ignore[override]
        # Signs are replaced before the layout, which counts columns.
        return super().render_str(self.literal(text), **options)

    def print_text(self, text: object, style: str | None = None) -> None:
        """Print a text that is not broken at the width, so that a path in it can be copied."""
        self.print(str(text), style=style, soft_wrap=True)


class SafeStream:
    """A text stream that never raises: it prints replacement signs for what its encoding lacks, and keeps the
    first error of the system in `failure`."""

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
        """Flush. After a failure the rest goes nowhere: Python flushes once more when it ends, and a second
        failure there would be the exit code."""
        self.flush()
        if self.failure:
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """Standard output and error as streams that never fail, for a block that is a whole script. An output
    that could not be written is reported, unless its reader has closed it."""
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
