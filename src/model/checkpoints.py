"""Step checkpoints: what an interrupted run goes on from.

They lie in `<run>/checkpoints/step-N/` and count only with the marker file that is written last, so that a
run killed while saving goes on from the one before. Only the newest is kept.
"""

import shutil
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

MARKER = "complete"


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """The whole step checkpoint with the highest step, None when there is none."""
    whole = [folder for folder in checkpoints.glob("step-*") if (folder / MARKER).is_file()]
    return max(whole, key=step_of, default=None)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def drop_broken(checkpoints: Path) -> None:
    """Remove what a kill while saving left: our own half-written step folders."""
    for pattern in ("step-*", f"{PREFIX_CHECKPOINT_DIR}-*"):
        for folder in checkpoints.glob(pattern):
            if not (folder / MARKER).is_file():
                shutil.rmtree(folder)
