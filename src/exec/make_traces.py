"""Let the model write down what it thinks about the forget rows, for the methods R2MU and RTP.

    python src/exec/make_traces.py --config_file configs/wmdp/r2mu.json
    python src/exec/unlearn_model.py --config_file configs/wmdp/r2mu.json

Both use the file of `dataset.traces`. What it has already is kept, so an interrupted run goes on.
"""

import sys

if not __package__:  # started as a file: this checkout is the package
    import checkout

    __package__ = checkout.PACKAGE

from ..core.screen import show
from .script import run_script


def act(settings) -> None:
    from ..model.write.trace_writer import summary, write_traces

    path = write_traces(settings)
    show(f"wrote {path}: {summary(path)}")


def main(argv: list[str] | None = None) -> int:
    return run_script(argv, __doc__, act, interrupted="interrupted; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
