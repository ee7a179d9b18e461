"""Make a model forget, and measure whether it did.

    python src/exec/unlearn_model.py --config_file configs/fictional/npo+ft.json
    python src/exec/unlearn_model.py --config_file configs/fictional/npo+ft.json --unlearn.NPO.beta 0.2 --logger.name trial
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from exec.run import run_script  # noqa: E402


def act(settings) -> None:
    from model.report import show_outcome
    from model.unlearn import Unlearn

    outcome = Unlearn(settings).run()
    if not settings.overall.quiet:
        show_outcome(outcome, settings)


if __name__ == "__main__":
    sys.exit(run_script(__doc__, act))
