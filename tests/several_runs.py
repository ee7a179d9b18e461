"""Do several runs of unlearn_model.py one after the other, in each process of a launcher.

python tests/several_runs.py runs.json [RANK STEP FAULT]

FAULT happens to one process after an optimizer step: SIGKILL or SIGTERM arrives, or (ENOSPC) the disk is
full.
"""

import errno
import json
import os
import signal
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS))

from scripts import run_script  # noqa: E402


def fail(rank: str, step: str, fault: str) -> None:
    """Let the fault happen in this process, if it is of that rank."""
    from unlearnkit.unlearn.step.trainer import UnlearnTrainer

    if os.environ["RANK"] != rank:
        return
    log = UnlearnTrainer.log

    def log_and_fail(self, logs, start_time=None):
        log(self, logs, start_time)
        if self.state.global_step != int(step):
            return
        if fault == "ENOSPC":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.kill(os.getpid(), signal.Signals[fault])

    UnlearnTrainer.log = log_and_fail


if __name__ == "__main__":
    if sys.argv[2:]:
        fail(*sys.argv[2:])
    for words in json.loads(Path(sys.argv[1]).read_text()):
        done = run_script("unlearn_model", *words)
        if done.returncode:
            print(f"{words} ended with {done.returncode}:\n{done.stderr}", file=sys.stderr)
            sys.exit(done.returncode)
