"""The best model of a training: the most forgetting under a utility floor.

The rows of every set are split into two halves, by a seeded hash of their ids. The best evaluated step is
chosen on one half and its figures are reported on the other: the maximum over many noisy evaluations is too
good on the rows it was taken on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ...core.files import fingerprint
from ...metrics.aggregates import harmonic_mean
from ...metrics.external_results import Columns
from ...metrics.spec import METRICS
from ...metrics.tofu import summarize
from ..settings.run_settings import Settings

HALVES = ("chosen_on", "reported_on")
UTILITY = ("retain/prob", "real/prob", "world/prob")
"""Parts of the utility while training: those of model_utility that one forward pass gives."""
FORGET_QUALITY = "forget_quality"
AUTO, NONE = "auto", "none"
Samples = Mapping[str, Sequence[Mapping[str, Any]]]
"""Row set -> its rows with their per-row values, as in samples/*.jsonl."""


def first_half(ids: Iterable[str], seed: int) -> frozenset[str]:
    """Ids of one half of a row set (the larger where the number is odd), the same in every run."""
    ranked = sorted(ids, key=lambda identity: fingerprint(seed, identity))
    return frozenset(ranked[: -(-len(ranked) // 2)])


def best_figure(settings: Settings) -> str | None:
    """Key of the figure of forgetting; None where no best is kept."""
    evaluation = settings.evaluate
    if evaluation.every is None or evaluation.best == NONE:
        return None
    if evaluation.best != AUTO:
        return METRICS.proper(evaluation.best)
    if not settings.method.forget:
        return None
    return FORGET_QUALITY if evaluation.retain_results else "forget/extraction_strength"


@dataclass(frozen=True)
class BestRule:
    """How the best evaluated step is chosen.

    Args:
        figure: Metric of the forget rows (mean over rows), or forget_quality.
        floor: Least utility, as a share of the initial model's.
        seed: Seed of the halves.
        retain_columns: Per-row values of a retain model, for forget_quality.
    """

    figure: str
    floor: float
    seed: int = 0
    retain_columns: Columns | None = None

    def figures(self, samples: Samples) -> dict[str, dict[str, float | None]]:
        """Half -> forgetting and utility of one evaluation; None where no row of the half has a value."""
        halves = {
            name: first_half([row["id"] for row in table], self.seed) for name, table in samples.items()
        }
        found = {}
        for half in HALVES:
            part = {
                name: [row for row in table if (row["id"] in halves[name]) == (half == HALVES[0])]
                for name, table in samples.items()
            }
            found[half] = {"forgetting": self._forgetting(part), "utility": utility(part)}
        return found

    def _forgetting(self, samples: Samples) -> float | None:
        if self.figure != FORGET_QUALITY:
            return _mean(samples.get("forget", ()), METRICS[self.figure].column)
        rows = {row["id"]: row for row in samples["forget"]}
        retain = (self.retain_columns or {}).get("forget", {})
        same_rows = {identity: row for identity, row in retain.items() if identity in rows}
        return summarize({"forget": rows}, {"forget": same_rows})[FORGET_QUALITY].value

    def choose(self, records: Sequence[dict]) -> tuple[dict | None, str]:
        """The record of the best evaluated step after the initial model's (the first record), and why there
        is none."""
        if not records[1:]:
            return None, "no evaluated step after the initial model is within the rules of unlearn.stop"
        initial = records[0]["best"][HALVES[0]]["utility"]
        if not initial:
            return None, f"the initial model's utility is {initial}, so there is no floor to hold"
        valued = [record for record in records[1:] if record["best"][HALVES[0]]["forgetting"] is not None]
        if not valued:
            return None, f"{self.figure} has no value at any evaluated step"
        able = [
            record
            for record in valued
            if (record["best"][HALVES[0]]["utility"] or 0.0) >= self.floor * initial
        ]
        if not able:
            return None, f"no evaluated step has a utility of {self.floor:g} of the initial model's"
        return max(able, key=self._rank), ""

    def _rank(self, record: dict) -> tuple[float, float, int]:
        """More forgetting first; among equals more utility, then the earlier step."""
        figures = record["best"][HALVES[0]]
        sign = 1 if METRICS[self.figure].good == "up" else -1
        return sign * figures["forgetting"], figures["utility"], -record["step"]

    def report(self, records: Sequence[dict], last: int) -> dict[str, Any]:
        """best.json: the rule, the best step and the last kept step, both with the figures of both halves."""
        best, reason = self.choose(records)
        by_step = {record["step"]: record for record in records}
        return {
            "rule": {
                "forgetting": self.figure,
                "better": METRICS[self.figure].good,
                "utility": f"harmonic mean of {', '.join(UTILITY)} where there are such rows",
                "floor": self.floor,
                "initial_utility": {half: records[0]["best"][half]["utility"] for half in HALVES},
                "chosen_on": f"half of the rows of each set, by id, seed {self.seed}",
            },
            "initial": _entry(records[0]),
            "best": _entry(best) if best else None,
            "reason": reason,
            "last": _entry(by_step[last]),
        }


def _entry(record: dict) -> dict[str, Any]:
    return {"step": record["step"], "epoch": record["epoch"], **record["best"]}


def utility(samples: Samples) -> float | None:
    """Harmonic mean of the probability of the right answer on retain, real and world rows, of the sets that
    there are; None without any, 0 where one is 0."""
    means = {key: _mean(samples.get(key.partition("/")[0], ()), "prob") for key in UTILITY}
    there = {key: value for key, value in means.items() if value is not None}
    return harmonic_mean(there).value if there else None


def _mean(table: Sequence[Mapping[str, Any]], column: str) -> float | None:
    values = [row[column] for row in table if row.get(column) is not None]
    return fmean(values) if values else None
