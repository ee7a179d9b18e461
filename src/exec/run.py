"""What every script shares: from argv to an exit code, with one clear line for what the user can mend."""

import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from core.files import UserError
from exec.settings import read_settings
from model.settings import Settings


def run_script(description: str, act: Callable[[Settings], None], defaults: dict[str, Any] | None = None,
               argv: Sequence[str] | None = None) -> int:
    """Read the settings and act on them. Returns 0, or 1 after a UserError; wrong settings end the program with 2."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    settings = read_settings(sys.argv[1:] if argv is None else argv, description, defaults)
    _hush_libraries()
    try:
        act(settings)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # the disk's faults reach us through many libraries, each with a type of its own
        if not _is_the_disks(error):
            raise
        print(f"error: {error}. What was written before is whole; free the place, then go on with unlearn.resume_path "
              "(where unlearn.save_steps kept a checkpoint) or start again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the run folder has no metrics.json, so nothing takes it for a whole run", file=sys.stderr)
        return 130
    return 0


def _is_the_disks(error: Exception) -> bool:
    """Full, read-only or forbidden: nothing a traceback would explain."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
    return getattr(error, "errno", None) in numbers or any(f"(os error {n})" in str(error) for n in numbers)


def _hush_libraries() -> None:
    """Advice of libraries about things that are set on purpose. Their errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
