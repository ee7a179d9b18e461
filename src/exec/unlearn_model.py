"""Make a model forget, and measure whether it did.

    python src/exec/unlearn_model.py --config_file configs/fictional/npo+ft.json
    python src/exec/unlearn_model.py --config_file configs/fictional/npo+ft.json --unlearn.NPO.beta 0.2 \\
        --logger.name trial

With --plan nothing is trained: the memory, steps, time and disk that the run needs are shown, with --memory
40GB also what would make it fit.
"""

import sys

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from .config.rules.data_rules import missing_files
from .plan_flags import plan_or_run
from .script import Script, run_and_show


def main(argv: list[str] | None = None) -> int:
    return plan_or_run(argv, Script(__doc__, run_and_show, rules=missing_files))


if __name__ == "__main__":
    sys.exit(main())
