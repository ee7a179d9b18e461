"""What could have gone wrong in a request to forget, by the figures of its run, and what to do next."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..loggers.logger import Results
    from ..model.run.unlearn_run import Outcome

FORGOTTEN, SOUND = 0.1, 0.05
"""Shares up to which a check is passed."""
BROKEN = "\ufffd"
"""Stands in a text for bytes that are no character."""
SIDES = ("forget", "retain")
STRENGTH = "forget/extraction_strength"


def quick_checks(outcome: "Outcome", arguments: argparse.Namespace) -> tuple[list[str], str]:
    """A line for each check of what could have gone wrong, and what to do next."""
    assert outcome.before, "evaluate.before is true"
    before, after = outcome.before.metrics, outcome.after.metrics
    loops = [{side: _loops(found, side) for side in SIDES} for found in (outcome.before, outcome.after)]

    def at_most(key: str, limit: float) -> bool:
        value = after[key]
        return value is not None and value <= limit

    share = (after["retain/prob"] or 0.0) / (before["retain/prob"] or 1.0)
    asked, begun = (at_most(key, FORGOTTEN) for key in ("semantic/worst_of_k", STRENGTH))
    kept, sound = share >= arguments.floor, all(loops[1][side] <= SOUND for side in SIDES)
    kept_texts = (after["retain/rougeL"] or 0.0) >= arguments.floor * (before["retain/rougeL"] or 0.0)
    found = [
        (asked, "rows that are answered in some wording", "semantic/worst_of_k"),
        (begun, "part of an answer that its beginning brings back", STRENGTH),
        (kept, "probability of the retain answers", "retain/prob"),
        (kept_texts, "retain answers as before (ROUGE-L)", "retain/rougeL"),
    ]
    lines = [_check_line(fine, title, before[key], after[key]) for fine, title, key in found]
    for side in SIDES:
        title = f"answers to {side} questions that loop or are broken"
        lines.append(_check_line(loops[1][side] <= SOUND, title, loops[0][side], loops[1][side]))
    checks = {"forgotten": asked and begun, "kept": kept and kept_texts, "sound": sound}
    return lines, advice(outcome, arguments, checks)


def _check_line(fine: bool, title: str, before: float | None, after: float | None) -> str:
    shown = " -> ".join("–" if value is None else f"{value:.2f}" for value in (before, after))
    return f"  {'ok  ' if fine else 'LOOK'}  {title}: {shown}"


def _loops(results: "Results", side: str) -> float:
    """Share of the answers that end in one passage over and over, or hold bytes that are no characters."""
    from ..metrics.health import loops

    texts = [row["generation"] for row in results.samples.get(side, ()) if "generation" in row]
    return sum(loops(text) or BROKEN in text for text in texts) / len(texts) if texts else 0.0


def advice(outcome: "Outcome", arguments: argparse.Namespace, checks: Mapping[str, bool]) -> str:
    """What to do next, in one line."""
    folder, again = outcome.folder, "run again under another --name with"
    found = outcome.best  # empty where --set takes the evaluation while training away
    if found and found["best"] is None:
        return (
            f"next: no epoch kept {arguments.floor:.0%} of the retain rows' probability, the last one is"
            f" here; {again} a lower --lr (config.json has the present one), or more rows in --retain"
        )
    if not checks["forgotten"] and (not found or found["best"]["step"] == found["last"]["step"]):
        return f"next: not all is forgotten; {again} --epochs {2 * arguments.epochs} or a higher --lr"
    if not checks["forgotten"]:
        return (
            f"next: not all is forgotten, and epochs after {found['best']['epoch']:g} kept too little or"
            f" forgot no more; {again} a higher --lr, a lower --floor, or retain rows that the model knows"
            " and that are less like those to forget"
        )
    if not checks["kept"]:
        return f"next: too much was lost; {again} a lower --lr, a higher --floor or more rows in --retain"
    if not checks["sound"]:
        return f"next: answers loop or are broken; {again} a lower --lr, or fewer --epochs"
    return (
        f"next: read {folder}/samples/forget.jsonl; attack it with sampled answers: python"
        f" src/exec/evaluate_model.py --overall.model_name {folder}/checkpoints --evaluate.metrics sampling"
        f" --evaluate.samples 32 --logger.name {arguments.name}-attacked; undo it: {arguments.model} is"
        " unchanged"
    )
