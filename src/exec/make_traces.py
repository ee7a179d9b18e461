"""Generate the model's reasoning traces on the forget rows, for the methods R2MU and RTP.

    python src/exec/make_traces.py --config_file configs/wmdp/r2mu.json
    python src/exec/unlearn_model.py --config_file configs/wmdp/r2mu.json

Both use the file of `dataset.traces`. Its texts are kept, so an interrupted run resumes.
"""

import sys

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.screen import show
from .script import Script, run_script


def run(settings) -> None:
    from ..model.write.trace_writer import summary, write_traces

    path = write_traces(settings)
    show(f"wrote {path}: {summary(path)}")


def main(argv: list[str] | None = None) -> int:
    return run_script(argv, Script(__doc__, run, interrupted="interrupted; the same command resumes"))


if __name__ == "__main__":
    sys.exit(main())
