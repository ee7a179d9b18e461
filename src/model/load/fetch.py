"""Fetching mask files: from Google Drive, the hub, a web server or a path. A broken download is gone on with,
never kept half."""

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from ...core.files import UserError, read_json, write_json
from ...core.hub_access import hub_problem, offline_reason
from ...unlearn.mask.mask_file import TOLERANCE, density, load_tensors, sidecar_path, stated_ratio

PUBLISHED = "https://drive.google.com/drive/folders/1yYzvroNHNKWrNWk0WOX_j4pXw4kIyEyf"
"""The folder of the published WAGLE masks, files `<task>_<ratio>.pt`."""
ATTEMPTS = 5
PIECE = 2**16
READ_TIMEOUT_S = 30
"""Seconds without a byte before a connection counts as broken."""


def fetch_mask(
    source: str, file: str, target: Path, sha256: str | None = None, say: Callable[[str], None] = print
) -> float:
    """Bring `file` from `source` to `target` and return its density. `source` is a Google Drive folder or
    file, a hub repository (`hf:owner/name`), an http(s) address of a folder or of the file itself, or a path.

    What arrived of a broken download stays in `<target>.part` and is gone on with the next time; `target`
    appears only when the file is whole, has the checksum that was given, and is a mask. UserError
    otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    say(f"fetching {file} from {source}")
    _bring(source, file, part, say)
    _check_sum(part, sha256)
    try:
        found = density(load_tensors(part))
    except UserError as error:
        _drop(part)
        raise UserError(
            f"what {source} gave for {file} is not a mask file and was removed: {error}"
        ) from None
    if (stated := stated_ratio(target)) is not None and abs(stated - found) > TOLERANCE:
        say(
            f"warning: the name says that {stated:g} of the weights are updated, the mask selects {found:.4f}"
        )
    # The earlier mask goes before its sidecar: without one it would pass for a mask of any model.
    target.unlink(missing_ok=True)
    sidecar_path(target).unlink(missing_ok=True)
    part.replace(target)
    _origin(part).unlink(missing_ok=True)
    return found


def _bring(source: str, file: str, part: Path, say: Callable[[str], None]) -> None:
    if source.startswith("hf:"):
        _from_hub(source.removeprefix("hf:"), file, part)
    elif "drive.google.com" in source:
        _from_drive(source, file, part)
    elif source.startswith(("http://", "https://")):
        download(
            source if urlsplit(source).path.endswith(".pt") else f"{source.rstrip('/')}/{file}", part, say
        )
    else:
        _from_disk(Path(source).expanduser(), file, part)


def _from_disk(source: Path, file: str, part: Path) -> None:
    path = source / file if source.is_dir() else source
    if not path.is_file():
        raise UserError(f"--source: there is no file {path}")
    shutil.copyfile(path, part)


def _from_hub(repository: str, file: str, part: Path) -> None:
    from huggingface_hub import hf_hub_download

    offline_reason()
    try:
        shutil.copyfile(hf_hub_download(repository, file), part)
    except Exception as error:  # the hub client raises many kinds; all mean that the file is not to be had
        raise UserError(f"cannot fetch {file} from the hub's {repository}: {hub_problem(error)}") from None


def _from_drive(source: str, file: str, part: Path) -> None:
    """A file of a Drive folder by its name, or a single file by its link. gdown keeps what broke beside its
    output and goes on with it; an output that is there already it takes for whole, so there never is one."""
    import gdown

    output = part.with_name(part.name + ".drive")
    output.unlink(missing_ok=True)
    try:
        gdown.download(
            id=_drive_id(source, file), output=str(output), quiet=True, resume=True, timeout=READ_TIMEOUT_S
        )
    except UserError:
        raise
    except Exception as error:
        # gdown raises its own and requests' kinds; all mean that the file is not to be had.
        raise UserError(
            f"cannot fetch {file} from {source}: {' '.join(str(error).split())[:300]}; the same command"
            " goes on"
        ) from None
    output.replace(part)
    for left in part.parent.glob(f"{output.name}*.part"):
        left.unlink()


def _drive_id(source: str, file: str) -> str:
    import gdown

    single = re.search(r"/file/d/([\w-]+)|/uc\?.*\bid=([\w-]+)", source)
    if single:
        return single[1] or single[2]
    listed: list[Any] = gdown.download_folder(url=source, skip_download=True, quiet=True) or []
    names = {Path(entry.path).name: entry.id for entry in listed}
    if file not in names:
        raise UserError(
            f"{source} has no {file}; it has {', '.join(sorted(names)) or 'nothing that can be listed'}"
        )
    return names[file]


def download(address: str, part: Path, say: Callable[[str], None]) -> None:
    """Download to `part`, going on from what is there of the same file, over at most ATTEMPTS connections.
    UserError when they all break."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if _one_connection(address, part):
                return
            problem = "the connection ended early"
        except requests.RequestException as error:
            problem = " ".join(str(error).split())[:200]
        say(
            f"attempt {attempt} of {ATTEMPTS} broke at {part.stat().st_size if part.exists() else 0} bytes:"
            f" {problem}"
        )
    raise UserError(
        f"cannot fetch {address}: {problem}; what arrived stays in {part}, the same command goes on with it"
    )


def _one_connection(address: str, part: Path) -> bool:
    """Ask for what is missing and append it. True when the file is whole. UserError when the server refuses.

    What is there is gone on with only if it came from the same address and the server says (If-Range) that
    the file is the same still; else everything is fetched again."""
    validator = _validator(address, part)
    have = part.stat().st_size if validator else 0
    headers = {"Accept-Encoding": "identity"} | (
        {"Range": f"bytes={have}-", "If-Range": validator} if have else {}
    )
    with requests.get(address, headers=headers, stream=True, timeout=READ_TIMEOUT_S) as answer:
        if answer.status_code == 416:
            whole = answer.headers.get("Content-Range", "").endswith(f"/{have}")
            if not whole:
                _origin(part).unlink(missing_ok=True)
            return whole
        if answer.status_code not in (200, 206):
            raise UserError(
                f"cannot fetch {address}: the server answers {answer.status_code} {answer.reason}"
            )
        goes_on = answer.status_code == 206 and answer.headers.get(
            "Content-Range", f"bytes {have}-"
        ).startswith(f"bytes {have}-")
        if answer.status_code == 206 and not goes_on:
            _origin(part).unlink(missing_ok=True)
            return False
        if not goes_on:
            part.unlink(missing_ok=True)
            same = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            write_json(_origin(part), {"address": address, "same": same})
        missing = answer.headers.get("Content-Length")
        with part.open("ab") as file:
            written = sum(file.write(piece) for piece in answer.iter_content(PIECE))
    return missing is None or written >= int(missing)


def _origin(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _validator(address: str, part: Path) -> str | None:
    """What the server called the version of which `part` is a piece; None when there is nothing to go on
    with."""
    if not part.is_file() or not _origin(part).is_file():
        return None
    origin = read_json(_origin(part))
    return origin.get("same") if isinstance(origin, dict) and origin.get("address") == address else None


def _check_sum(part: Path, wanted: str | None) -> None:
    if wanted is None:
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted.lower():
        _drop(part)
        raise UserError(f"--sha256: the file has {found}, not {wanted}; it was removed")


def _drop(part: Path) -> None:
    part.unlink()
    _origin(part).unlink(missing_ok=True)
