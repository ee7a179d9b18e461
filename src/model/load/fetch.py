"""Download of mask files from Google Drive, the hub, a web server or a path, with resumption."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...core.download import READ_TIMEOUT_S, download, file_sha256, origin_path
from ...core.files import UserError
from ...core.hub_access import hub_problem, offline_reason
from ...unlearn.mask.mask_file import TOLERANCE, density, load_tensors, sidecar_path, stated_ratio

PUBLISHED = "https://drive.google.com/drive/folders/1yYzvroNHNKWrNWk0WOX_j4pXw4kIyEyf"
"""The folder of the published WAGLE masks, files `<task>_<ratio>.pt`."""


def fetch_mask(
    source: str, file: str, target: Path, sha256: str | None = None, notify: Callable[[str], None] = print
) -> float:
    """Fetch `file` from `source` to `target`.

    The bytes of a broken download stay in `<target>.part` and the next call resumes them. `target` appears
    only when the file is complete, matches the checksum, and is a mask.

    Args:
        source: a Google Drive folder or file, a hub repository (`hf:owner/name`), an http(s) address of a
            folder or of the file itself, or a path.
        file: name of the file at the source.
        target: path to write.
        sha256: expected checksum, in hexadecimal.
        notify: receives progress messages and warnings.

    Returns:
        The mask's density, the share of the weights that it updates.

    Raises:
        UserError: the file cannot be fetched, has another checksum, or is not a mask.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    notify(f"fetching {file} from {source}")
    _fetch(source, file, part, notify)
    if sha256 is not None:
        _check_sha256(part, sha256)
    try:
        found = density(load_tensors(part))
    except UserError as error:
        _remove(part)
        raise UserError(f"{file} from {source} is not a mask file and was removed: {error}") from None
    if (stated := stated_ratio(target)) is not None and abs(stated - found) > TOLERANCE:
        notify(f"warning: the name states {stated:g} of the weights as updated, the mask selects {found:.4f}")
    # The earlier mask is removed before its sidecar: a mask without a sidecar passes for one of any model.
    target.unlink(missing_ok=True)
    sidecar_path(target).unlink(missing_ok=True)
    part.replace(target)
    origin_path(part).unlink(missing_ok=True)
    return found


def _fetch(source: str, file: str, part: Path, notify: Callable[[str], None]) -> None:
    if source.startswith("hf:"):
        _fetch_from_hub(source.removeprefix("hf:"), file, part)
    elif "drive.google.com" in source:
        _fetch_from_drive(source, file, part)
    elif source.startswith(("http://", "https://")):
        is_file = urlsplit(source).path.endswith(".pt")
        download(source if is_file else f"{source.rstrip('/')}/{file}", part, notify)
    else:
        path = Path(source).expanduser()
        path = path / file if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"--source: there is no file {path}")
        shutil.copyfile(path, part)


def _fetch_from_hub(repository: str, file: str, part: Path) -> None:
    from huggingface_hub import hf_hub_download

    offline_reason()
    try:
        shutil.copyfile(hf_hub_download(repository, file), part)
    except Exception as error:  # the hub client raises many kinds; all mean that the file is not available
        raise UserError(f"cannot fetch {file} from the hub's {repository}: {hub_problem(error)}") from None


def _fetch_from_drive(source: str, file: str, part: Path) -> None:
    """Fetch a file of a Drive folder by its name, or a single file by its link."""
    import gdown

    # gdown resumes from a partial file beside its output, but takes an existing output for complete: the
    # output is removed first and has a name of its own, which no other kind of source writes.
    output = part.with_name(part.name + ".drive")
    output.unlink(missing_ok=True)
    try:
        gdown.download(
            id=_drive_id(source, file), output=str(output), quiet=True, resume=True, timeout=READ_TIMEOUT_S
        )
    except UserError:
        raise
    except Exception as error:
        # gdown raises its own and requests' kinds; all mean that the file is not available.
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"cannot fetch {file} from {source}: {reason}; the same command resumes") from None
    output.replace(part)
    for leftover in part.parent.glob(f"{output.name}*.part"):
        leftover.unlink()


def _drive_id(source: str, file: str) -> str:
    import gdown

    single = re.search(r"/file/d/([\w-]+)|/uc\?.*\bid=([\w-]+)", source)
    if single:
        return single[1] or single[2]
    listed: list[Any] = gdown.download_folder(url=source, skip_download=True, quiet=True) or []
    ids = {Path(entry.path).name: entry.id for entry in listed}
    if file not in ids:
        raise UserError(f"{source} has no {file}; it has {', '.join(sorted(ids)) or 'no files to list'}")
    return ids[file]


def _check_sha256(part: Path, expected: str) -> None:
    found = file_sha256(part)
    if found != expected.lower():
        _remove(part)
        raise UserError(f"--sha256: the file has {found}, not {expected}; it was removed")


def _remove(part: Path) -> None:
    part.unlink()
    origin_path(part).unlink(missing_ok=True)
