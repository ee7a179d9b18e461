"""Fine-tune a model on a data set (the retain rows): how target and retain models are made.

    python src/exec/finetune_model.py --config_file configs/fictional/target.json
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.files import UserError  # noqa: E402
from exec.run import run_script  # noqa: E402


def act(settings) -> None:
    from model.report import show_outcome
    from model.unlearn import Unlearn

    if settings.method.forget:
        raise UserError(f"unlearn.unlearn_method is {settings.method.name}, which forgets; fine-tuning takes FT "
                        "(or use unlearn_model.py)")
    outcome = Unlearn(settings).run()
    if not settings.overall.quiet:
        show_outcome(outcome, settings)


if __name__ == "__main__":
    sys.exit(run_script(__doc__, act, defaults={"unlearn": {"unlearn_method": "FT"}, "evaluate": {"before": False}}))
