"""Where a run writes, and which of several processes this is: the same answers on every process."""

import os
import re
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from ...core.sharing import Share
from ..load.engine import take_over_deepspeed
from ..load.loading import resolve_device
from ..settings.run_settings import Settings

PROCESS_TIMEOUT = timedelta(hours=24)
"""How long other processes wait while the first measures the initial model."""


def process_state(settings: Settings) -> PartialState:
    """Which process of how many this is (one, unless a launcher started several)."""
    take_over_deepspeed()
    return PartialState(cpu=resolve_device(settings.overall.device) == "cpu", timeout=PROCESS_TIMEOUT)


def share_of(settings: Settings) -> Share:
    """The part of this process in rows that are measured."""
    state = process_state(settings)
    return Share(state.process_index, state.num_processes)


def run_place(settings: Settings) -> tuple[str, str]:
    """Root and name of the run folder, the same on every process."""
    resume_path = settings.unlearn.resume_path
    if resume_path and resume_path != "auto":
        return str(Path(resume_path).parent), Path(resume_path).name
    return settings.json_logger.root, settings.logger.name or default_name(settings)


def checkpoints_folder(settings: Settings) -> Path:
    """Where the Trainer may write, the same on every process; out of the way when the run is to leave
    nothing."""
    if settings.overall.logger == "none":
        return settings.overall.cache / "trainer"
    return Path(*run_place(settings)).expanduser() / "checkpoints"


def default_name(settings: Settings) -> str:
    """What was done, to which rows, and when; where nothing is trained, the model that is measured."""
    stamp = start_stamp(process_state(settings).num_processes)
    what = settings.method.name if settings.method.trains else model_title(settings.overall.model_name)
    return f"{what}-{settings.dataset.forget_stem}-{stamp}"


def model_title(name: str) -> str:
    """A model's own name, in letters that a run folder may have; for `<run>/checkpoints` it is the run's, for
    `<run>/checkpoints/best` the run's with `-best`."""
    path = Path(os.path.abspath(Path(name).expanduser()))
    is_best = path.parts[-2:] == ("checkpoints", "best")
    parts = [part for part in (path.parent if is_best else path).parts if part != "checkpoints"]
    title = re.sub(r"[^\w+=,@.-]", "-", parts[-1])[:100].lstrip(".") or "model"
    return f"{title}-best" if is_best else title


@cache
def start_stamp(processes: int) -> str:
    """The time at which this program first asked; of several processes the first decides for all."""
    stamps = [datetime.now().strftime("%Y%m%d-%H%M%S")]
    if processes > 1:
        broadcast_object_list(stamps)
    return stamps[0]
