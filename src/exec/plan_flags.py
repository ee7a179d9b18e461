"""`--plan` and `--memory`: what a run needs, instead of the run."""

import re
import sys
from collections.abc import Sequence
from dataclasses import replace

from ..core.files import UserError
from ..core.screen import show, show_error
from ..model.settings.run_settings import Settings
from .script import Script, run_script

UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def plan_or_run(argv: Sequence[str] | None, script: Script) -> int:
    """Run a script; with `--plan` show what the run would need, with `--memory SIZE` also what makes it
    fit."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--plan" not in words and not any(word.partition("=")[0] == "--memory" for word in words):
        return run_script(argv, script)
    try:
        budget, rest = _budget(words)
    except UserError as error:
        show_error(f"error: {error}")
        return 2
    action = lambda settings: show_plan(settings, budget)
    return run_script(rest, replace(script, action=action, interrupted="interrupted; nothing was written"))


def _budget(words: list[str]) -> tuple[int, list[str]]:
    """The bytes that `--memory` names (0 without), and the words without the two flags."""
    budget, rest, waiting = 0, [], iter(words)
    for word in waiting:
        flag, equals, value = word.partition("=")
        if flag == "--memory":
            budget = memory_size(value if equals else next(waiting, ""))
        elif word != "--plan":
            rest.append(word)
    if "--plan" not in words:
        raise UserError("--memory belongs to --plan: give both")
    return budget, rest


def memory_size(text: str) -> int:
    """Bytes of a size such as 40GB, 80GiB or 512 MB."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text, re.IGNORECASE)
    size = int(float(found[1]) * UNITS.get(found[2].lower(), 0)) if found else 0
    if size <= 0:
        raise UserError(f"--memory: expected a size such as 40GB or 80GiB, got {text!r}")
    return size


def show_plan(settings: Settings, budget: int = 0) -> None:
    """Print the plan of a run and, for a budget of bytes, what would make it fit."""
    from ..model.plan.device_rate import calibrate
    from ..model.plan.plan_text import fit_text, plan_text
    from ..model.plan.run_plan import fitting, make_plan, prepare, trained_composition
    from ..model.plan.shape_model import ShapeModel

    prepared = prepare(settings)
    plan = make_plan(settings, prepared)
    rate = None
    if plan.largest:
        largest = max(plan.largest.parts.values(), key=lambda part: part.tokens)
        rate = calibrate(settings, ShapeModel(settings, trained_composition(settings)), largest)
    show(plan_text(plan, rate))
    if budget:
        show(fit_text(plan, budget, fitting(plan, prepared)))
