"""Make a model forget, and measure whether it did.

    python src/exec/unlearn_model.py --config_file configs/fictional/npo+ft.json
    python src/exec/unlearn_model.py --config_file configs/fictional/npo+ft.json --unlearn.NPO.beta 0.2 \\
        --logger.name trial
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import exec.interpreter  # noqa: E402, F401
from exec.rules import missing_files  # noqa: E402
from exec.run import run_and_show, run_script  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    return run_script(argv, __doc__, run_and_show, rules=missing_files)


if __name__ == "__main__":
    sys.exit(main())
