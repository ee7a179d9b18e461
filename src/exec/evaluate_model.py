"""Measure any checkpoint. Its run folder is what `evaluate.retain_results` takes.

    python src/exec/evaluate_model.py --overall.model_name files/models/fictional/retain --logger.name retain
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.files import UserError  # noqa: E402
from exec.run import run_script  # noqa: E402


def act(settings) -> None:
    from model.report import show_outcome
    from model.unlearn import Unlearn

    if settings.method.trains:
        raise UserError(f"unlearn.unlearn_method is {settings.method.name}, which trains; evaluating takes origin "
                        "(point overall.model_name at the checkpoint)")
    outcome = Unlearn(settings).run()
    if not settings.overall.quiet:
        show_outcome(outcome, settings)


if __name__ == "__main__":
    sys.exit(run_script(__doc__, act, defaults={"evaluate": {"before": False}}))
