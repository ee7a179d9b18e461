"""Settings of weight masks."""

from dataclasses import dataclass

from ...core.options import expression, knob
from ...unlearn.mask import SCORES
from ...unlearn.mask.selection import SCOPES


@dataclass(frozen=True)
class Masking:
    """Making weight masks (make_mask.py)."""

    score: str = knob(
        "wagle", "what makes a weight worth updating", choices=tuple(SCORES), read=SCORES.proper
    )
    ratios: tuple[float, ...] = knob(
        (0.8,), "shares of the weights that are updated, a mask for each", at_least=0, at_most=1
    )
    scope: str = knob(
        "auto",
        "one ranking of all weights, one for each tensor or row; auto is the score's own",
        choices=("auto", *SCOPES),
    )
    mu: float = knob(1e-3, "the retain loss's curvature in WAGLE's score; large is snip", above=0)
    parameters: str = knob(
        ".", "regular expression: parameters whose name it finds are scored", read=expression
    )
    others: str = knob(
        "auto",
        "what the other parameters are; auto is dense for wanda, which scores matrices only, else frozen",
        choices=("auto", "frozen", "dense"),
    )
    packed: bool = knob(False, "write one bit per weight instead of one byte")
    out: str = knob("mask", "folder of the masks")
    overwrite: bool = knob(False, "replace masks that are there")
