"""Which part of the distribution of truth ratios is off: runs beside the retain model."""

from collections.abc import Mapping, Sequence

import numpy as np

from ...core.markdown import table
from .report_charts import Material, truth_ratios

QUANTILES = (10, 50, 90)


def largest_gap(own: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Where two distributions are furthest apart.

    Returns:
        The value, and the shares of `own` and of `others` at or below it.
    """
    places = np.unique([*own, *others])
    mine, theirs = (np.searchsorted(np.sort(side), places, "right") / len(side) for side in (own, others))
    widest = int(np.abs(mine - theirs).argmax())
    return float(places[widest]), float(mine[widest]), float(theirs[widest])


def ratio_table(materials: Mapping[str, Material]) -> str:
    """Log truth ratios of the forget rows, the seeds of a configuration together, as Markdown; empty where
    there is no retain model or no run has any."""
    retain = next((found.retain_ratios for found in materials.values() if found.retain_ratios), None)
    if not retain:
        return ""
    rows = [["retain model", *_quantiles(retain), ""]]
    for title, material in materials.items():
        own = [value for run in material.runs for value in truth_ratios(run.samples.get("forget", ()))]
        if own:
            value, mine, theirs = largest_gap(own, retain)
            gap = f"{value:.2f}: {100 * mine:.0f} % of its rows, {100 * theirs:.0f} % of the retain model's"
            rows.append([title, *_quantiles(own), gap])
    head = ["", *(f"{share} %" for share in QUANTILES), "furthest apart at or below"]
    return table(head, rows) if len(rows) > 1 else ""


def _quantiles(values: Sequence[float]) -> list[str]:
    return [f"{value:.2f}" for value in np.percentile(values, QUANTILES)]
