"""Run a script that ends when its parent process ends, for whatever reason.

    python src/exec/child_process.py SCRIPT [ARGUMENTS ...] < PIPE

The parent holds the other end of the pipe and writes nothing: the pipe closes when the parent dies. (Only
Linux can send a signal at the parent's death, there the death of the thread that started the child.)
"""

import os
import runpy
import sys
import threading


def end_with_parent() -> None:
    """Wait until standard input closes, then end at once, since no reader of the output is left."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
