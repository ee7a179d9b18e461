"""Download of a file over HTTP, with resumption."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import requests

from .files import UserError, read_json, write_json

ATTEMPTS = 5
CHUNK_BYTES = 2**16
READ_TIMEOUT_S = 30
"""Seconds without a byte before a connection counts as broken."""


def download(address: str, part: Path, notify: Callable[[str], None]) -> None:
    """Download to `part`, resuming an earlier download of the same file, over at most ATTEMPTS connections.

    Raises:
        UserError: every connection broke, or the server refused.
    """
    # torch.hub.download_url_to_file would be shorter, but it starts every download from the beginning and
    # removes its temporary file on an error. Masks have the size of the model: a download must be resumable.
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if _download_over_one_connection(address, part):
                return
            problem = "the connection ended early"
        except requests.RequestException as error:
            problem = " ".join(str(error).split())[:200]
        size = part.stat().st_size if part.exists() else 0
        notify(f"attempt {attempt} of {ATTEMPTS} broke at {size} bytes: {problem}")
    raise UserError(f"cannot fetch {address}: {problem}; the same command resumes from {part}")


def _download_over_one_connection(address: str, part: Path) -> bool:
    """Append the missing bytes to `part`. True when the file is complete. UserError when the server refuses.

    The bytes at hand are resumed only if they come from the same address and the server confirms (If-Range)
    that the file is unchanged; otherwise the whole file is fetched again."""
    validator = _validator(address, part)
    size = part.stat().st_size if validator else 0
    # Without `identity` a server may compress, and the offset would count bytes of another representation.
    headers = {"Accept-Encoding": "identity"}
    if validator and size:
        headers |= {"Range": f"bytes={size}-", "If-Range": validator}
    with requests.get(address, headers=headers, stream=True, timeout=READ_TIMEOUT_S) as response:
        status = response.status_code
        if status == 416:  # nothing lies beyond the offset: complete, unless the file is shorter now
            complete = response.headers.get("Content-Range", "").endswith(f"/{size}")
            if not complete:
                origin_path(part).unlink(missing_ok=True)
            return complete
        if status not in (200, 206):
            raise UserError(f"cannot fetch {address}: the server answers {status} {response.reason}")
        start = f"bytes {size}-"
        resumed = status == 206 and response.headers.get("Content-Range", start).startswith(start)
        if status == 206 and not resumed:  # another range than the one asked for
            origin_path(part).unlink(missing_ok=True)
            return False
        if not resumed:
            # The origin is written before the first byte: bytes without an origin are never resumed.
            part.unlink(missing_ok=True)
            version = response.headers.get("ETag") or response.headers.get("Last-Modified")
            write_json(origin_path(part), {"address": address, "same": version})
        expected = response.headers.get("Content-Length")
        with part.open("ab") as file:
            written = sum(file.write(chunk) for chunk in response.iter_content(CHUNK_BYTES))
    return expected is None or written >= int(expected)


def origin_path(part: Path) -> Path:
    """Address and version that the bytes of a partial download belong to."""
    return part.with_name(part.name + ".json")


def _validator(address: str, part: Path) -> str | None:
    """The server's name for the version that `part` belongs to; None when there is nothing to resume."""
    if not part.is_file() or not origin_path(part).is_file():
        return None
    origin = read_json(origin_path(part))
    return origin.get("same") if isinstance(origin, dict) and origin.get("address") == address else None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
