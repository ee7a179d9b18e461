"""What every script shares: from argv to an exit code, with one clear line for what the user can mend."""

import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.files import UserError
from exec.settings import Rules, read_settings
from model.settings import Settings


def run_and_show(settings: Settings) -> None:
    """Do the run and print the last screen."""
    from model.report import show_outcome
    from model.unlearn import Unlearn

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


HALF_A_RUN = "interrupted; a run folder without environment.json is not taken for a whole run"


def run_script(
    argv: Sequence[str] | None,
    description: str | None,
    act: Callable[[Settings], None],
    defaults: dict[str, Any] | None = None,
    rules: Rules = lambda settings: [],
    interrupted: str = HALF_A_RUN,
    short: Mapping[str, str] | None = None,
) -> int:
    """Read the settings from `argv` (None: the program's own) and act on them. Returns the exit code: 0, 1
    after a UserError, 130 after Ctrl-C, when `interrupted` is printed. Wrong settings raise SystemExit(2)."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    settings = read_settings(sys.argv[1:] if argv is None else argv, description, defaults, rules, short)
    _choose_gpu(settings.overall.device)
    _hush_libraries()
    try:
        act(settings)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        # The disk's faults reach us through many libraries, each with a type of its own.
        if not _is_the_disks(error):
            raise
        print(
            f"error: {error}. What was written before is whole; free the place, then go on with"
            " unlearn.resume_path (where unlearn.save_steps kept a checkpoint) or start again",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    return 0


def with_clear_errors(
    act: Callable[[], int | None], failed: int = 1, interrupted: str = "interrupted"
) -> int:
    """Do what a script with words of its own does: its status (0 for None), `failed` after a UserError, 130
    after Ctrl-C."""
    try:
        return act() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return failed
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130


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
    """Full, read-only or forbidden: nothing a traceback would explain."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR)
    return getattr(error, "errno", None) in numbers or any(f"(os error {n})" in str(error) for n in numbers)


def _hush_libraries() -> None:
    """Advice of libraries about things that are set on purpose. Their errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
