"""Let the model write plausible alternate answers to the forget questions, for the method AltPO.

    python src/exec/make_alternates.py --config_file configs/tofu/altpo+ft.json
    python src/exec/unlearn_model.py --config_file configs/tofu/altpo+ft.json

Both use the file of `dataset.alternates`. What it has already is kept, so an interrupted run goes on.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import exec.interpreter  # noqa: E402, F401
from core.screen import show  # noqa: E402
from exec.run import run_script  # noqa: E402


def act(settings) -> None:
    from model.alternates import write_alternates

    show(f"wrote {write_alternates(settings)}")


def rules(settings) -> list[str]:
    if "{question}" in settings.generation.prompt:
        return []
    return ["generation.prompt: expected a text with {question} in it"]


def main(argv: list[str] | None = None) -> int:
    return run_script(argv, __doc__, act, rules=rules, interrupted="interrupted; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
