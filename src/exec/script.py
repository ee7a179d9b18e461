"""Entry point of all scripts: from argv to an exit code, with one clear line for a user's errors."""

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.batching import is_memory_error
from ..core.files import UserError
from ..core.screen import VisibleFormatter, safe_streams, show_error
from ..model.settings.run_settings import Settings
from .cli import read_settings
from .config.reader import Rules


def run_and_show(settings: Settings) -> None:
    """Do the run and print the last screen."""
    from ..model.run.progress import activity

    with activity("loading libraries", settings.overall.quiet):
        from ..model.report.last_screen import show_outcome
        from ..model.run.unlearn_run import Unlearn

    outcome = Unlearn(settings).run()
    if not settings.overall.quiet and outcome.is_main:
        show_outcome(outcome, settings)
    # A figure has its filter in brackets; a failed benchmark is one null under its name alone.
    failed = [
        key
        for key, value in outcome.after.metrics.items()
        if value is None and key.startswith("lm_eval/") and "[" not in key
    ]
    if failed and not settings.benchmarks_may_fail:
        raise UserError(
            f"the run is complete, but {len(failed)} of its benchmarks failed ({', '.join(failed)}; see"
            " metrics_detail.json for the reasons); benchmarks.allow_failed true accepts that"
        )
    if settings.logger.push_to_hub and outcome.is_main and outcome.folder:
        from ..model.run.hub_push import push_run

        show_error(f"pushed to {push_run(outcome.folder, settings.logger.push_to_hub)}")


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived, which schedulers send before they kill."""


@dataclass(frozen=True)
class Script:
    """A script that runs on settings.

    Args:
        description: text of --help, the script's docstring.
        action: the work; UserError for errors that a user can fix.
        defaults: the script's own defaults, weaker than any config file or flag.
        rules: returns messages about settings that the script cannot work with.
        interrupted: message after Ctrl-C or SIGTERM; empty for the advice to resume a run.
        short: flag -> key (or `key=value`) of the script's own flags.
    """

    description: str | None
    action: Callable[[Settings], None]
    defaults: dict[str, Any] | None = None
    rules: Rules = lambda settings: []
    interrupted: str = ""
    short: Mapping[str, str] | None = None


@safe_streams()
def run_script(argv: Sequence[str] | None, script: Script) -> int:
    """Read the settings and run a script on them.

    Args:
        argv: the flags; None for those of the program.
        script: the script.

    Returns:
        The exit code: 0, 1 after a UserError, 130 after Ctrl-C, 143 after SIGTERM.

    Raises:
        SystemExit: with code 2 for wrong settings, 0 after --help.
    """
    _open_log()
    words = sys.argv[1:] if argv is None else argv
    settings = read_settings(words, script.description, script.defaults, script.rules, script.short)
    _hide_other_gpus(settings.overall.device)
    quiet_libraries()

    def action() -> None:
        try:
            script.action(settings)
        except UserError:
            raise
        except Exception as error:
            if is_memory_error(error):
                raise UserError(
                    f"out of memory ({' '.join(str(error).split())[:200]}); unlearn_model.py --plan"
                    " --memory SIZE with the same settings shows what a run needs and what makes it fit"
                ) from error
            # Errors of the disk pass through many libraries, each with an exception type of its own.
            if not _is_disk_error(error):
                raise
            raise UserError(
                f"{error}. Files written before are complete; fix the disk, then resume with"
                " unlearn.resume_path auto (where unlearn.save_steps kept a checkpoint) or start again"
            ) from error

    return with_clear_errors(action, interrupted=lambda: script.interrupted or resume_advice(settings))


def resume_advice(settings: Settings) -> str:
    """The message after an interruption: the run folder, and the flags that resume the run."""
    from ..model.run.checkpoints import has_checkpoint
    from ..model.run.places import run_place

    folder = Path(*run_place(settings)).expanduser()
    if settings.overall.logger == "none" or not (folder / "config.json").is_file():
        return "interrupted; nothing was written"
    if not settings.method.trains:
        return f"interrupted; {folder} counts as incomplete. The same command resumes"
    start = "the beginning (unlearn.save_steps kept no checkpoint)"
    if has_checkpoint(folder / "checkpoints"):
        start = "its last step checkpoint"
    path = "auto" if settings.logger.name else folder
    return (
        f"interrupted; {folder} counts as incomplete. To resume from {start}: the same command with"
        f" --unlearn.resume_path {path}"
    )


@safe_streams()
def with_clear_errors(
    action: Callable[[], int | None], failed: int = 1, interrupted: str | Callable[[], str] = "interrupted"
) -> int:
    """Run an action and turn errors into an exit code and one line.

    Args:
        action: the work; its result is the exit code, None is 0.
        failed: exit code after a UserError.
        interrupted: message after Ctrl-C (code 130) or SIGTERM (code 143).
    """
    try:
        with _terminated_by_signal():
            return action() or 0
    except UserError as error:
        show_error(f"error: {error}")
        return failed
    except KeyboardInterrupt as interrupt:
        show_error(interrupted if isinstance(interrupted, str) else interrupted())
        return 143 if isinstance(interrupt, Terminated) else 130


@contextlib.contextmanager
def _terminated_by_signal() -> Iterator[None]:
    """Raise Terminated when SIGTERM arrives, so that files and locks are left as after Ctrl-C."""
    # Python allows signal handlers in the main thread alone; notebooks may call scripts from others.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with _sent_again_when_swallowed(terminate):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _sent_again_when_swallowed(handler: Callable) -> Iterator[None]:
    """Send SIGTERM again where its exception was raised in a finalizer (`__del__`), which Python only prints:
    the run would go on as if nothing had come."""
    hook, timers = sys.unraisablehook, []

    def unraisable(swallowed) -> None:
        if not isinstance(swallowed.exc_value, Terminated):
            hook(swallowed)
            return
        signal.signal(signal.SIGTERM, handler)
        # Not at once: the finalizer is still on the stack.
        timers.append(threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)))
        timers[-1].start()

    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for timer in timers:
            timer.cancel()


def _open_log() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def _hide_other_gpus(device: str) -> None:
    """Hide all GPUs but one: the one of `device`, or the first visible. With a launcher all stay visible."""
    # Hidden before CUDA starts: otherwise the Trainer would wrap the model in DataParallel over all GPUs.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if "LOCAL_RANK" in os.environ or device == "cpu" or visible == "":
        return
    number = int(device.partition(":")[2] or 0)
    if visible:
        names = visible.split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = names[min(number, len(names) - 1)]
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number)


def _is_disk_error(error: Exception) -> bool:
    """Whether the disk is full or read-only, or a path is forbidden or too long."""
    # Libraries in Rust and torch's writer report such errors in words, without an error number.
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.ENAMETOOLONG)
    words = [
        *(f"(os error {n})" for n in numbers),
        "PytorchStreamWriter failed",
        "enforce fail at inline_container",
        "basic_ios::clear: iostream error",
    ]
    return getattr(error, "errno", None) in numbers or any(word in str(error) for word in words)


def quiet_libraries() -> None:
    """Silence warnings of libraries about settings that are made on purpose, and about each other; errors are
    still shown."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # peft asks for it
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # kernels that it would like to fetch
