"""Files: atomic writes, JSON and JSON lines with line numbers in errors, fingerprints, locks."""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any


class UserError(Exception):
    """An error that the user can fix; shown as one line, without a traceback."""


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Write a file completely or not at all: yields a temporary path beside `path`, which is renamed to
    `path` at the end of the block and removed after an error. Temporary files of killed writers of the same
    file are removed first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    handle, temporary = _temporary_beside(path)
    try:
        yield temporary
        # Before the rename: after a power cut the name must not point to a file without its content.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _temporary_beside(path: Path) -> tuple[int, Path]:
    """A new hidden file beside `path`, and a handle that keeps it locked while its writer lives."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        # On a file system without locks, no file counts as abandoned.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another writer removed it before it was locked


def _remove_abandoned(path: Path) -> None:
    """Remove temporary files of dead writers of `path`: those that are not locked."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(OSError), left.open("r+b") as file:  # locked, or gone, or another user's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _umask() -> int:
    mask = os.umask(0)  # the system has no call that only reads it
    os.umask(mask)
    return mask


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write an indented JSON file atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Indented JSON with a final newline. ValueError for NaN and infinities, which are not JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_jsonl(path: Path | str, rows: Iterable[dict]) -> None:
    """Write JSON lines atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def append_jsonl(path: Path | str, row: dict) -> None:
    """Append one record. A killed run may leave a cut last line."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path | str) -> str:
    """Read a UTF-8 file, without byte order marks. UserError for a missing, unreadable or non-UTF-8 file."""
    try:
        # Marks also occur within, where files that begin with one were joined.
        return re.sub(r"^\ufeff+", "", Path(path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, a file was expected") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def read_json(path: Path | str, unique_keys: bool = True) -> Any:
    """Read strict JSON.

    Args:
        path: The file.
        unique_keys: Whether a repeated key in an object is an error; otherwise its last value counts.

    Raises:
        UserError: A syntax error or a lone surrogate, with file, line and column, or a repeated key.
    """
    return parse_json(read_text(path), str(path), unique_keys=unique_keys)


def parse_json(text: str, origin: str, line: int | None = None, unique_keys: bool = True) -> Any:
    """Parse a JSON text, as strictly as `read_json`.

    Args:
        text: The text.
        origin: Name of its file, for messages.
        line: Number of the line that it is in the file; None for a whole file.
        unique_keys: As in `read_json`.
    """
    place = origin if line is None else f"{origin}, line {line}"

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict:
        seen = dict(pairs)
        if len(seen) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{place}: key {twice!r} stands twice in one object")
        return seen

    try:
        value = json.loads(text, object_pairs_hook=no_duplicates if unique_keys else None)
    except json.JSONDecodeError as error:
        raise UserError(f"{_position(text, error.pos, origin, line)}: {error.msg}") from None
    except RecursionError:
        raise UserError(f"{place}: nested too deeply") from None
    except ValueError:  # any other is Python's limit on the digits of a whole number
        raise UserError(f"{place}: a whole number has more digits than can be read") from None
    _refuse_lone_surrogates(text, origin, line)
    return value


def _position(text: str, at: int, origin: str, line: int | None) -> str:
    """File, line and column of position `at` in a text that is `line` of the file, or the whole file."""
    number, column = text.count("\n", 0, at) + (line or 1), at - text.rfind("\n", 0, at)
    return f"{origin}, line {number}, column {column}"


ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(?P<lone>[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
"""A surrogate pair, a lone surrogate, or any other escape of JSON."""


def _refuse_lone_surrogates(text: str, origin: str, line: int | None) -> None:
    """UserError for a lone surrogate, which is valid JSON but fits in no tokenizer, file or screen."""
    if not re.search(r"\\u[dD][89a-fA-F]", text):
        return
    for escape in ESCAPE.finditer(text):
        if escape["lone"]:
            raise UserError(
                f"{_position(text, escape.start(), origin, line)}: {escape[0]} is half of a character (a lone"
                " surrogate); write the whole character or remove it"
            )


_READ: ContextVar[dict[str, list[tuple[str, dict]]] | None] = ContextVar("read files", default=None)


@contextlib.contextmanager
def reading_once() -> Iterator[None]:
    """Within this context a file of records is read and parsed once, however many row sets it is part of."""
    token = _READ.set({})
    try:
        yield
    finally:
        _READ.reset(token)


def read_records(path: Path | str) -> list[tuple[str, dict]]:
    """Read JSON lines, one object each; empty lines are skipped.

    Returns:
        (place, object) pairs; the place is `<path>, line <number>`, for messages.

    Raises:
        UserError: A line is broken or not an object; with its number.
    """
    read = _READ.get()
    if read is None:
        return _parse_records(path)
    if str(path) not in read:
        read[str(path)] = _parse_records(path)
    # Row sets may add fields to their rows.
    return [(place, dict(record)) for place, record in read[str(path)]]


def _parse_records(path: Path | str) -> list[tuple[str, dict]]:
    records = []
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        record, place = parse_json(text, str(path), number), f"{path}, line {number}"
        if not isinstance(record, dict):
            raise UserError(f"{place}: expected an object, got {type(record).__name__}")
        records.append((place, record))
    return records


def read_jsonl(path: Path | str) -> list[dict]:
    """The objects of `read_records`."""
    return [record for _, record in read_records(path)]


def put_between(path: Path | str, marks: tuple[str, str], body: str) -> None:
    """Replace the text between two marks of a file by `body`."""
    text = read_text(path)
    before, _, rest = text.partition(marks[0])
    _, found, after = rest.partition(marks[1])
    if not found:
        raise UserError(f"{path}: the marks {marks[0]!r} and {marks[1]!r} are not there")
    write_text(path, f"{before}{marks[0]}\n{body}{marks[1]}{after}")


def fingerprint(*parts: Any) -> str:
    """Short stable hash of JSON values and bytes, for cache keys and provenance."""
    digest = hashlib.sha256()
    for part in parts:
        data = (
            part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, ensure_ascii=False).encode()
        )
        # With lengths, so that ("ab", "c") and ("a", "bc") differ.
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def file_fingerprint(*paths: Path | str) -> str:
    """Hash of the contents of files, in the given order."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def clear_write_errors(path: Path | str, key: str) -> Iterator[None]:
    """Turn an OSError in the block into a UserError with the path and the setting that chooses it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); choose another {key}") from None


@contextlib.contextmanager
def lock(path: Path | str, key: str = "logger.name") -> Iterator[None]:
    """Hold a lock file for the block. The system releases it when the process dies, however it dies.

    Args:
        path: The lock file.
        key: Setting that chooses the folder, for messages.

    Raises:
        UserError: Another process holds the lock, or the folder cannot be written.
    """
    path = Path(path)
    with clear_write_errors(path.parent, key):
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a+")
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file between open and flock: then the lock is on a file
            # that the next process cannot see.
            holds = path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino
        except BlockingIOError:
            holds = False
        if not holds:
            raise UserError(
                f"{path.parent}: another run is writing here; wait for it or choose another {key}"
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
