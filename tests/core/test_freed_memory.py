"""Freed memory goes back to the system."""

import platform
import subprocess
import sys

import pytest

from unlearnkit.core import freed_memory

KEPT_AND_RELEASED = """
import runpy
import sys
from pathlib import Path

import torch

release_freed_memory = runpy.run_path(sys.argv[1])["release_freed_memory"]

def held():
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) / 1024

large = torch.ones(2**23 - 2**10)
del large  # sizes up to that of a tensor that was freed are taken from the heap
before = held()
pieces = [torch.ones(2**18) for _ in range(200)]  # 1 MB each
last = torch.ones(2**10)  # lies above them
del pieces
kept = held()
release_freed_memory()
print(kept - before, held() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give memory back themselves")
def test_what_lies_under_something_in_use_is_given_back():
    command = [sys.executable, "-c", KEPT_AND_RELEASED, freed_memory.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    kept, released = map(float, done.stdout.split())
    assert kept > 150 and released < 20
