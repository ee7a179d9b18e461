"""Freed memory that the C library keeps."""

import ctypes
import sys


def release_freed_memory() -> None:
    """Give freed memory back to the system, where the C library is glibc: it keeps what lies under something
    that is still in use. The next use of it is slower, so this is for the ends of phases, not for steps."""
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
