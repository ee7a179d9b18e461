"""Run a script again and again, each time in a process of its own that ends when the parent process ends.

    python src/exec/child_process.py SCRIPT PIPE < JOBS > EXIT_CODES

A job is a line of JSON with the words of the command line and the file for standard error. The libraries are
loaded once; each run is a fork of this process, which starts as a fresh one would but for the seven seconds
of loading. With a GPU each run loads them itself: CUDA does not survive a fork.

PIPE is the number of a file descriptor whose other end the parent holds and never writes to: it closes when
the parent dies, for whatever reason. (Only Linux can send a signal at the parent's death, there the death of
the thread that started the child.)
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys
import threading
import traceback
from typing import NoReturn

if not __package__:  # started as a file: this checkout is the package
    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from .script import quiet_libraries

GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd")
LIBRARIES = ("..model.run.unlearn_run", "..model.run.training")


def main(argv: list[str] | None = None) -> int:
    script, pipe = sys.argv[1:] if argv is None else argv
    running = [0]

    def end(number, frame):
        if running[0]:
            os.kill(running[0], signal.SIGTERM)
        else:
            os._exit(128 + number)

    # An interrupt from the keyboard reaches the runs too, which end by it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=end_with_parent, args=[int(pipe)], daemon=True).start()
    quiet_libraries()
    if not any(map(os.path.exists, GPU_DEVICES)):
        for name in LIBRARIES:
            importlib.import_module(name, __package__)
        gc.freeze()
    for line in sys.stdin:
        # A signal between fork and assignment would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        running[0] = os.fork()
        if running[0] == 0:
            _run(script, json.loads(line), int(pipe))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        status = os.waitstatus_to_exitcode(os.waitpid(running[0], 0)[1])
        running[0] = 0
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()
    return 0


def end_with_parent(pipe: int) -> None:
    """Wait until the pipe closes, then end at once, since no reader of the output is left."""
    while os.read(pipe, 1):
        pass
    os._exit(1)


def _run(script: str, job: dict, pipe: int) -> NoReturn:
    """Be the script."""
    status = 70
    try:
        threading.Thread(target=end_with_parent, args=[pipe], daemon=True).start()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(nowhere, 1)
        os.dup2(os.open(job["stderr"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        sys.argv = [script, *job["words"]]
        runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if status == 70 else status)


if __name__ == "__main__":
    sys.exit(main())
