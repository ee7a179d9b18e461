"""Measure any checkpoint. Its run folder is what `evaluate.retain_results` takes.

python src/exec/evaluate_model.py --overall.model_name files/models/fictional/retain --logger.name retain
"""

import sys

if not __package__:  # started as a file: this checkout is the package
    import checkout

    __package__ = checkout.PACKAGE

from .script import run_and_show, run_script


def rules(settings) -> list[str]:
    if not settings.method.trains:
        return []
    return [
        f"unlearn.unlearn_method is {settings.method.name}, which trains; evaluating takes origin "
        "(point overall.model_name at the checkpoint)"
    ]


def main(argv: list[str] | None = None) -> int:
    return run_script(argv, __doc__, run_and_show, {"evaluate": {"before": False}}, rules)


if __name__ == "__main__":
    sys.exit(main())
