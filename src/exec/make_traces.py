"""Let the model write down what it thinks about the forget rows, for the methods R2MU and RTP.

    python src/exec/make_traces.py --config_file configs/wmdp/r2mu.json
    python src/exec/unlearn_model.py --config_file configs/wmdp/r2mu.json

Both use the file of `dataset.traces`. What it has already is kept, so an interrupted run goes on.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import exec.interpreter  # noqa: E402, F401
from core.screen import show  # noqa: E402
from exec.run import run_script  # noqa: E402


def act(settings) -> None:
    from model.traces import summary, write_traces

    path = write_traces(settings)
    show(f"wrote {path}: {summary(path)}")


def main(argv: list[str] | None = None) -> int:
    return run_script(argv, __doc__, act, interrupted="interrupted; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
