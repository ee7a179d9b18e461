"""Generate plausible alternate answers to the forget questions, for the method AltPO.

    python src/exec/make_alternates.py --config_file configs/tofu/altpo+ft.json
    python src/exec/unlearn_model.py --config_file configs/tofu/altpo+ft.json

Both use the file of `dataset.alternates`. Its texts are kept, so an interrupted run resumes.
"""

import sys

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.screen import show
from .script import Script, run_script


def run(settings) -> None:
    from ..model.write.alternate_writer import write_alternates

    show(f"wrote {write_alternates(settings)}")


def rules(settings) -> list[str]:
    if "{question}" in settings.generation.prompt:
        return []
    return ["generation.prompt: expected a text with {question} in it"]


def main(argv: list[str] | None = None) -> int:
    interrupted = "interrupted; the same command resumes"
    return run_script(argv, Script(__doc__, run, rules=rules, interrupted=interrupted))


if __name__ == "__main__":
    sys.exit(main())
