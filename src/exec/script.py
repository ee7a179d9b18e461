"""What every script shares: from argv to an exit code, with one clear line for what the user can mend."""

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.files import UserError
from ..core.screen import VisibleFormatter, safe_streams, show_error
from ..model.settings.run_settings import Settings
from .cli import read_settings
from .config.reader import Rules


def run_and_show(settings: Settings) -> None:
    """Do the run and print the last screen."""
    from ..model.report.last_screen import show_outcome
    from ..model.run.unlearn_run import Unlearn

    outcome = Unlearn(settings).run()
    if not settings.overall.quiet and outcome.is_main:
        show_outcome(outcome, settings)
    failed = [key for key, value in outcome.after.metrics.items() if _failed(key, value)]
    if failed and not settings.benchmarks_may_fail:
        raise UserError(
            f"the run is whole, but {len(failed)} of its benchmarks failed ({', '.join(failed)}; the reasons"
            " stand in metrics_detail.json); benchmarks.allow_failed true accepts that"
        )


def _failed(key: str, value: float | None) -> bool:
    """Does a null stand for a whole benchmark that failed?"""
    return value is None and key.startswith("lm_eval/") and "[" not in key


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: what a scheduler sends before it kills."""


@safe_streams()
def run_script(
    argv: Sequence[str] | None,
    description: str | None,
    act: Callable[[Settings], None],
    defaults: dict[str, Any] | None = None,
    rules: Rules = lambda settings: [],
    interrupted: str = "",
    short: Mapping[str, str] | None = None,
) -> int:
    """Read the settings from `argv` (None: the program's own) and act on them. Returns the exit code: 0, 1
    after a UserError, 130 after Ctrl-C and 143 after SIGTERM, when `interrupted` is printed, by default how
    the run goes on. Wrong settings raise SystemExit(2)."""
    _open_log()
    settings = read_settings(sys.argv[1:] if argv is None else argv, description, defaults, rules, short)
    _choose_gpu(settings.overall.device)
    _quiet_libraries()

    def careful() -> None:
        try:
            act(settings)
        except UserError:
            raise
        except Exception as error:
            # The disk's faults reach us through many libraries, each with a type of its own.
            if not _is_the_disks(error):
                raise
            raise UserError(
                f"{error}. What was written before is whole; mend the place, then go on with"
                " unlearn.resume_path auto (where unlearn.save_steps kept a checkpoint) or start again"
            ) from error

    return with_clear_errors(careful, interrupted=lambda: interrupted or how_to_go_on(settings))


def how_to_go_on(settings: Settings) -> str:
    """What to do after an interruption: where the run lies, and with what it goes on."""
    from ..model.run.checkpoints import has_checkpoint
    from ..model.run.places import run_place

    folder = Path(*run_place(settings)).expanduser()
    if settings.overall.logger == "none" or not (folder / "config.json").is_file():
        return "interrupted; nothing was written"
    if not settings.method.trains:
        return (
            f"interrupted; {folder} is not taken for a whole run: the same command with logger.overwrite true"
        )
    kept = has_checkpoint(folder / "checkpoints")
    path = "auto" if settings.logger.name else folder
    start = "its last step checkpoint" if kept else "the beginning (unlearn.save_steps kept no checkpoint)"
    return (
        f"interrupted; {folder} is not taken for a whole run. To go on from {start}: the same command with"
        f" --unlearn.resume_path {path}"
    )


@safe_streams()
def with_clear_errors(
    act: Callable[[], int | None], failed: int = 1, interrupted: str | Callable[[], str] = "interrupted"
) -> int:
    """Do what a script does: its status (0 for None), `failed` after a UserError, 130 after Ctrl-C and 143
    after SIGTERM, when `interrupted` is printed."""
    try:
        with _terminated_by_signal():
            return act() or 0
    except UserError as error:
        show_error(f"error: {error}")
        return failed
    except KeyboardInterrupt as interrupt:
        show_error(interrupted if isinstance(interrupted, str) else interrupted())
        return 143 if isinstance(interrupt, Terminated) else 130


@contextlib.contextmanager
def _terminated_by_signal() -> Iterator[None]:
    """Raise Terminated where SIGTERM arrives, so that files and locks are left as after Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_log() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def _choose_gpu(device: str) -> None:
    """Without a launcher one GPU is used: the one that was named, else the first that is visible. Chosen by
    hiding the others before CUDA starts, so that no library spreads a model over them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if "LOCAL_RANK" in os.environ or device == "cpu" or visible == "":
        return
    ours = visible.split(",") if visible else None
    number = int(device.partition(":")[2] or 0)
    os.environ["CUDA_VISIBLE_DEVICES"] = ours[min(number, len(ours) - 1)] if ours else str(number)


def _is_the_disks(error: Exception) -> bool:
    """Full, read-only, forbidden or a name too long: nothing a traceback would explain. torch's writer has no
    error number."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.ENAMETOOLONG)
    words = [
        *(f"(os error {n})" for n in numbers),
        "PytorchStreamWriter failed",
        "enforce fail at inline_container",
    ]
    return getattr(error, "errno", None) in numbers or any(word in str(error) for word in words)


def _quiet_libraries() -> None:
    """Advice of libraries about things that are set on purpose. Their errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
