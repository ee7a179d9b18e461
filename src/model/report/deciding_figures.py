"""The two or three figures that decide whether a run worked: what is left of the forget rows, and what was
kept. Each benchmark has its own; the first that were measured count."""

from collections.abc import Iterable, Mapping

from ...metrics.spec import METRICS

TEST = ("forget_quality",)
"""Whether the model can be told from one that never saw the forget rows."""
FORGOTTEN = (
    *("reasoning/rt_ua", "muse/verbmem", "pii/recall", "copyright/forget_rougeL", "toxic/mean_score"),
    *("knowundo/unlearn_rougeL", "rwku/forget_level2", "lume/forget_task1_knowledge"),
    *("forget/choice_accuracy", "forget/rougeL", "forget/prob", "forget/exact"),
)
KEPT = (
    *("muse/knowmem_retain", "copyright/retain_rougeL", "knowundo/retention_rougeL", "rwku/neighbor_level2"),
    *("lume/retain_task1_knowledge", "retain/choice_accuracy", "model_utility", "partial_utility"),
    *("retain/rougeL", "retain/prob"),
)
TASK_ORDER = {"reasoning": ("reasoning/rt_ua", "model_utility")}
"""Task -> figures that come first, where the general order would choose another."""

GROUPS = {
    "forgotten": ("forget",),
    "kept": ("retain", "real", "world", "neighbor", "arithmetic"),
}
"""Group of the last screen -> beginnings of its metrics and row sets."""


def deciding(measured: Iterable[str], task: str = "") -> tuple[str, ...]:
    """Keys of the deciding figures among those that have a value, at most three: the test against the retain
    model, the forget rows, what was kept."""
    there = set(measured)
    first = TASK_ORDER.get(task, ())
    found = [
        next((key for key in (*(k for k in first if k in keys), *keys) if key in there), None)
        for keys in (TEST, FORGOTTEN, KEPT)
    ]
    return tuple(key for key in found if key)


def measured(figures: Mapping[str, float | None]) -> list[str]:
    """Keys with a value."""
    return [key for key, value in figures.items() if value is not None]


def group_of(key: str) -> str:
    """The group of a metric: what it is about, or else its family."""
    if key.startswith("lm_eval/"):
        return "benchmarks"
    if key in ("model_utility", "partial_utility"):
        return "kept"
    rows = METRICS[key].rows if key in METRICS else None
    words = (rows or "", key.partition("/")[0], key.partition("/")[2])
    for group, beginnings in GROUPS.items():
        if any(word.startswith(beginnings) for word in words):
            return group
    return METRICS[key].family if key in METRICS else "other"
