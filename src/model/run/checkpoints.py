"""Step checkpoints: what an interrupted run resumes from.

They lie in `<run>/checkpoints/step-N/` and count only with the marker file that is written last, so that a
run killed while saving resumes from the one before. The marker has the size of every file: one that was cut
later is found before it is read. Only the newest is kept, and none of a run that is whole.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ...core.files import UserError, lock, read_json, write_json

log = logging.getLogger(__name__)

MARKER = "complete"
SNAPSHOTS = "evaluated"
"""Folder beside the step checkpoints with weights of evaluated steps, see `stopping.Snapshots`."""


def seal(folder: Path) -> None:
    """Mark a step checkpoint as whole, once all of it is on the disk."""
    sizes = {}
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sizes[str(path.relative_to(folder))] = path.stat().st_size
    write_json(folder / MARKER, sizes)


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """The step checkpoint with the highest step whose files are as they were written, None when there was
    never one. UserError when there are some and none of them is whole."""
    sealed = sorted(_sealed(checkpoints), key=step_of, reverse=True)
    faults = {folder: fault for folder in sealed if (fault := _fault(folder))}
    whole = next((folder for folder in sealed if folder not in faults), None)
    if faults and not whole:
        raise UserError(
            f"unlearn.resume_path: {next(iter(faults.values()))}, and there is no other step checkpoint to go"
            " on from; start anew with logger.overwrite true"
        )
    for folder, fault in faults.items():
        if whole and step_of(folder) > step_of(whole):
            log.warning("%s; the run resumes from %s", fault, whole.name)
    return whole


def has_checkpoint(checkpoints: Path) -> bool:
    """Is there a step checkpoint, whole or not?"""
    return any(True for _ in _sealed(checkpoints))


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def drop_all_but(checkpoints: Path, kept: Path | None) -> None:
    """Remove the step checkpoints, and what a kill while saving left, but the one that is kept."""
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR  # slow to load

    for pattern in ("step-*", f"{PREFIX_CHECKPOINT_DIR}-*"):
        for folder in checkpoints.glob(pattern):
            if folder != kept:
                shutil.rmtree(folder)


def drop_everything(checkpoints: Path) -> None:
    """Remove what only an interrupted run needs."""
    drop_all_but(checkpoints, None)
    shutil.rmtree(checkpoints / SNAPSHOTS, ignore_errors=True)


def drop_left_by_kill(run: Path) -> None:
    """Remove the step checkpoints that a whole run still has: it was killed between its last file and their
    removal, and nothing resumes it."""
    # A place that cannot be is told by the logger, with its key; os.path takes it for no file.
    if not os.path.isfile(run / "environment.json"):
        return
    checkpoints = run / "checkpoints"
    if has_checkpoint(checkpoints) or (checkpoints / SNAPSHOTS).is_dir():
        with lock(run / "lock"):
            drop_everything(checkpoints)


def _sealed(checkpoints: Path) -> Iterator[Path]:
    for folder in checkpoints.glob("step-*"):
        if (folder / MARKER).is_file() and folder.name.removeprefix("step-").isdigit():
            yield folder


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)


def _fault(folder: Path) -> str:
    """What is not as it was written, "" when all is."""
    if not (folder / MARKER).stat().st_size:
        return ""  # of an earlier version, which kept no sizes
    try:
        sizes = read_json(folder / MARKER)
    except UserError as error:
        return str(error)
    if not isinstance(sizes, dict):
        return f"{folder / MARKER}: expected the sizes of files"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size:,} bytes, {size:,} were written"
    return ""
