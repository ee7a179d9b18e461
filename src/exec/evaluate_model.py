"""Evaluate any checkpoint. The run folder of a retain model is a value for `evaluate.retain_results`.

python src/exec/evaluate_model.py --overall.model_name files/models/fictional/retain --logger.name retain
"""

import sys

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from .script import Script, run_and_show, run_script


def rules(settings) -> list[str]:
    if not settings.method.trains:
        return []
    return [
        f"unlearn.unlearn_method is {settings.method.name}, which trains; evaluation needs origin (set"
        " overall.model_name to the checkpoint)"
    ]


def main(argv: list[str] | None = None) -> int:
    return run_script(argv, Script(__doc__, run_and_show, {"evaluate": {"before": False}}, rules))


if __name__ == "__main__":
    sys.exit(main())
