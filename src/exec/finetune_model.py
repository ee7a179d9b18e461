"""Fine-tune a model on a data set (the retain rows), for target and retain models.

python src/exec/finetune_model.py --config_file configs/fictional/target.json

With --plan (and --memory 40GB) nothing is trained: what the run needs is shown.
"""

import sys

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from .plan_flags import plan_or_run
from .script import Script, run_and_show


def rules(settings) -> list[str]:
    if not settings.method.forget:
        return []
    return [
        f"unlearn.unlearn_method is {settings.method.name}, which forgets; fine-tuning needs FT (or use"
        " unlearn_model.py)"
    ]


def main(argv: list[str] | None = None) -> int:
    defaults = {"unlearn": {"unlearn_method": "FT"}, "evaluate": {"before": False}}
    return plan_or_run(argv, Script(__doc__, run_and_show, defaults, rules))


if __name__ == "__main__":
    sys.exit(main())
