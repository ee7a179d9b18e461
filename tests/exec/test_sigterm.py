"""SIGTERM ends a script wherever it arrives."""

import os
import signal
import time

from unlearnkit.exec.script import with_clear_errors


class Terminating:
    """Gets SIGTERM while it is collected."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # the handler runs here, and what it raises is not passed on


def test_sigterm_in_a_finalizer_ends_the_script(capsys):
    left = []

    def act() -> None:
        thing = Terminating()
        try:
            del thing
            time.sleep(20)
            left.append("went on")
        finally:
            left.append("cleaned up")

    assert with_clear_errors(act) == 143
    assert left == ["cleaned up"]
    assert capsys.readouterr().err == "interrupted\n"


def test_a_script_that_ends_before_the_signal_comes_again_is_left_alone():
    def act() -> None:
        thing = Terminating()
        del thing

    handler = signal.getsignal(signal.SIGTERM)
    assert with_clear_errors(act) == 0
    time.sleep(0.3)
    assert signal.getsignal(signal.SIGTERM) == handler
