"""Files that are whole or absent: atomic writes, JSON lines with line numbers in their errors, fingerprints,
locks."""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Something the user can mend: shown as one clear line without a traceback."""


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well, remove it when it
    does not. What killed writers of the same file left beside it is removed first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    handle, temporary = _temporary_beside(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _temporary_beside(path: Path) -> tuple[int, Path]:
    """A new hidden file beside `path` and a handle that holds it locked while its writer lives."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        # On a file system without locks nothing is ever taken for abandoned.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another writer removed it before it was locked


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of writers of `path` that are dead: nobody holds them locked."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(OSError), left.open("r+b") as file:  # locked, or gone, or another user's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path | str, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Indented JSON with a last newline. NaN and infinities are refused: no other reader takes them."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_jsonl(path: Path | str, rows: Iterable[dict]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def append_jsonl(path: Path | str, row: dict) -> None:
    """Add one record; a reader that meets a cut last line (a killed run) can drop it, see `read_jsonl`."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path | str) -> str:
    """The text of a file, without the byte order mark that some editors put in front; a missing, unreadable
    or non-UTF-8 file is a UserError that names it."""
    try:
        # Files with a mark that were joined have one within, which is no more text there than at the start.
        return re.sub(r"^\ufeff+", "", Path(path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, a file was expected") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def read_json(path: Path | str, unique_keys: bool = True) -> Any:
    """Strict JSON: a syntax error names file, line and column; so does a lone surrogate; a key given twice in
    one object is an error, but for files of others, where the last counts (`unique_keys` false)."""
    return parse_json(read_text(path), str(path), unique_keys=unique_keys)


def parse_json(text: str, origin: str, line: int | None = None, unique_keys: bool = True) -> Any:
    """The value of a JSON text, as strict as `read_json`. `line` is where the text stands in `origin`, if it
    is one line of it."""
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
    except ValueError:  # what is left is Python's limit on the digits of a whole number
        raise UserError(f"{place}: a whole number has more digits than can be read") from None
    _refuse_lone_surrogates(text, origin, line)
    return value


def _position(text: str, at: int, origin: str, line: int | None) -> str:
    """File, line and column of a place in a text that begins on `line` of the file, or is all of it."""
    number, column = text.count("\n", 0, at) + (line or 1), at - text.rfind("\n", 0, at)
    return f"{origin}, line {number}, column {column}"


ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(?P<lone>[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
"""A character outside the first 65,536 as the two halves of JSON, one half alone, or any other escape."""


def _refuse_lone_surrogates(text: str, origin: str, line: int | None) -> None:
    """UserError for half a character, which is valid JSON but no tokenizer, file or screen can take."""
    if not re.search(r"\\u[dD][89a-fA-F]", text):
        return
    for escape in ESCAPE.finditer(text):
        if escape["lone"]:
            raise UserError(
                f"{_position(text, escape.start(), origin, line)}: {escape[0]} is half of a character (a lone"
                " surrogate); write the whole character or remove it"
            )


def read_records(path: Path | str) -> list[tuple[str, dict]]:
    """One object per line with its place, `<path>, line <number>`, for messages; empty lines are skipped. A
    broken line is a UserError with its number."""
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
    """The objects of `read_records` alone."""
    return [record for _, record in read_records(path)]


def put_between(path: Path | str, marks: tuple[str, str], body: str) -> None:
    """Write a text file again with `body` between two marks of it."""
    text = read_text(path)
    before, _, rest = text.partition(marks[0])
    _, found, after = rest.partition(marks[1])
    if not found:
        raise UserError(f"{path}: the marks {marks[0]!r} and {marks[1]!r} are not there")
    write_text(path, f"{before}{marks[0]}\n{body}{marks[1]}{after}")


def fingerprint(*parts: Any) -> str:
    """A short stable hash of anything that JSON can hold (and of bytes), for cache keys and provenance."""
    digest = hashlib.sha256()
    for part in parts:
        data = (
            part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, ensure_ascii=False).encode()
        )
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def file_fingerprint(*paths: Path | str) -> str:
    """A hash of the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def clear_write_errors(path: Path | str, key: str) -> Iterator[None]:
    """Turn an error of the disk within the block into a UserError that names the path and the setting that
    says where to write."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); choose another {key}") from None


@contextlib.contextmanager
def lock(path: Path | str, key: str = "logger.name") -> Iterator[None]:
    """Hold `path` as a lock file for the block. The system frees it when the process dies, however it dies.
    `key` is the setting that says where to write."""
    path = Path(path)
    with clear_write_errors(path.parent, key):
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a+")
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino
        except BlockingIOError:
            ours = False
        if not ours:
            raise UserError(
                f"{path.parent}: another run is writing here; wait for it or choose another {key}"
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
