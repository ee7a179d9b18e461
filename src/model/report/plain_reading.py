"""A report's opening in plain sentences: what was forgotten, at what cost, what to believe of it, and what
was not measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...metrics.ks_test import largest_passing
from ...metrics.spec import METRICS, families
from .comparison import conditions_of, differing_settings
from .deciding_figures import group_of, measured
from .finished_run import FinishedRun
from .grid_table import short
from .report_charts import Material

ALIKE = 0.05
"""A p-value of at least this, and the test does not tell the models apart."""
KEPT_SHARE = 0.95
"""A share of the initial model's utility from which on it counts as kept."""
HIDDEN = ("forget/extraction_strength", "semantic/worst_of_k")
"""Figures of what an answer that looks forgotten may still hide: said where they were measured."""
FEW_ROWS = 20
WORST_PARTS = 2
"""Parts of a utility that are named beside it: those that lost the largest share."""
UNSEEN = {
    "semantic": "whether the facts survive in other wordings of the questions",
    "sampling": "whether a second answer, sampled, gives them away",
    "decoding": "whether another way of decoding (with a reasoning trace, without one) gives them away",
    "reasoning": "whether reasoning traces give them away",
    "privacy": "whether an attacker can tell that the rows were trained on (membership inference)",
    "health": "whether the texts are still fluent (loops, empty answers)",
}
"""Family of metrics -> what stays unknown without it."""
NEVER = (
    "whether fine-tuning on a few rows, 4-bit weights or examples in the prompt bring the facts back: no"
    " evaluation here attacks the model in these ways"
)


@dataclass(frozen=True)
class Reading:
    """Sentences under the four headings."""

    forgotten: Sequence[str]
    cost: Sequence[str]
    believe: Sequence[str]
    unmeasured: Sequence[str]


def read(material: Material) -> Reading:
    """The sentences of a report on these runs."""
    if len(material.runs) == 1:
        run = material.runs[0]
        return Reading(
            _forgotten(run, material), _cost(run, material), _believe(run, material), unmeasured(material)
        )
    return Reading(_most_forgotten(material), _costs(material), _believe_many(material), unmeasured(material))


def figure(run: FinishedRun, key: str) -> str:
    """A figure with its interval: .28 [.23, .34]."""
    value, ends = run.figures.get(key), run.interval(key)
    if value is None:
        return "–"
    return short(value) + (f" [{short(ends[0])}, {short(ends[1])}]" if ends else "")


def _forgotten(run: FinishedRun, material: Material) -> list[str]:
    keys = [key for key in material.keys if key != "forget_quality" and not _keeps(key)]
    keys += [key for key in HIDDEN if key in run.figures and key not in keys]
    found = [_beside(run, key, material) for key in keys] or ["No figure of the forget rows was measured."]
    quality = run.figures.get("forget_quality")
    if quality is not None:
        test = run.detail.get("forget_quality", {})
        size = f", D = {short(test['D'])}, {test['rows']} rows" if "D" in test else ""
        told = (
            "The test finds no difference between its truth ratios and those of a model that never saw the"
            " rows"
            if quality >= ALIKE
            else "Its truth ratios can be told from those of a model that never saw the rows: it does not yet"
            " behave like one"
        )
        found.append(f"{told} (forget quality p = {short(quality)}{size}).{_reach(quality, test)}")
    return found


def _reach(quality: float, test: Mapping) -> str:
    """What a test that finds nothing could have found."""
    if quality < ALIKE or not test.get("rows") or not test.get("other_rows"):
        return ""
    most = largest_passing(test["rows"], test["other_rows"], ALIKE).statistic
    return f" That does not show that they are the same: with these rows a D of {short(most)} still passes."


def _beside(run: FinishedRun, key: str, material: Material) -> str:
    """A figure between those of the initial and of the retain model."""
    parts = [f"{key} is {figure(run, key)}"]
    before, retain = run.before.get(key), material.retain.get(key)
    if before is not None:
        parts.append(f"before it was {short(before)}")
    if retain is not None:
        parts.append(f"of a model that never saw the rows it is {short(retain)}")
    elif material.retain:
        parts.append("of the retain model it was not measured, so it is not known how much is chance")
    return f"{'; '.join(parts)}.{_where(run, key, retain)}"


def _where(run: FinishedRun, key: str, retain: float | None) -> str:
    ends = run.interval(key)
    if retain is None or ends is None or key not in METRICS:
        return ""
    more = " More is left than there."
    less = " It is below that value: more went than had to, or the answers have another wording."
    above, below = (more, less) if METRICS[key].good == "down" else (less, more)
    if ends[0] <= retain <= ends[1]:
        return " The interval holds that value."
    return above if ends[0] > retain else below


def _cost(run: FinishedRun, material: Material) -> list[str]:
    keys = [key for key in material.keys if _keeps(key)]
    found = []
    for key in keys:
        line, before = f"{key} is {figure(run, key)}", run.before.get(key)
        if before:
            value = run.figures[key]
            assert value is not None
            line += f", {100 * value / before:.0f} % of the {short(before)} before"
        if (retain := material.retain.get(key)) is not None:
            line += f"; the retain model has {short(retain)}"
        found.append(f"{line}.")
    if worst := _worst_parts(run):
        found.append(f"Of the single figures these lost most: {'; '.join(worst)}.")
    seconds = run.environment.get("train_seconds")
    if run.trains and seconds:
        memory = run.environment.get("peak_memory_mb")
        found.append(
            f"Training took {seconds:.0f} s" + (f", at most {memory} MB of memory." if memory else ".")
        )
    return found or ["Nothing that was to be kept was measured."]


def _worst_parts(run: FinishedRun) -> list[str]:
    """The figures of what was to be kept that lost the largest share, of those that lost a twentieth."""
    lost: list[tuple[float, str]] = []
    for key, before in run.before.items():
        value = run.figures.get(key)
        if key not in METRICS or group_of(key) != "kept" or "utility" in key or METRICS[key].good != "up":
            continue
        if value is not None and before and value < KEPT_SHARE * before:
            lost.append((value / before, f"{key} {short(before)} to {short(value)}"))
    return [line for _, line in sorted(lost)[:WORST_PARTS]]


def _keeps(key: str) -> bool:
    return key in ("model_utility", "partial_utility") or any(
        word in key for word in ("retain", "neighbor", "retention")
    )


def _believe(run: FinishedRun, material: Material) -> list[str]:
    seed = run.environment.get("seed")
    found = []
    if run.trains:
        found.append(
            f"One run (seed {seed}). Intervals are over rows; another seed may give other figures."
            if seed is not None
            else "One run. Intervals are over rows; another seed may give other figures."
        )
    else:
        found.append("Intervals (95 %) are over rows.")
    counts = {
        METRICS[key].rows: found_detail["n"]
        for key, found_detail in run.detail.items()
        if key in METRICS and METRICS[key].rows and found_detail.get("n")
    }
    sizes = [f"{count} {name}" for name, count in counts.items()]
    if sizes:
        found.append(f"Rows behind the figures: {', '.join(sizes[:6])}.")
    if counts and min(counts.values()) < FEW_ROWS:
        found.append(f"With fewer than {FEW_ROWS} rows a figure may be chance, and its interval too narrow.")
    if not material.retain:
        found.append(
            "Without a retain model nothing shows how much forgetting is right: 0 may be more than in a model"
            " that never saw the rows."
        )
    reasons = run.evaluation.reasons
    found += [f"{key}: {reasons[key]}." for key in material.keys if reasons.get(key)]
    found += _cautions(run)
    return found


def _cautions(run: FinishedRun) -> list[str]:
    """What weakens the figures of one run."""
    found = []
    if run.evaluation.caution:
        found.append(run.evaluation.caution)
    known = run.before.get("forget/prob")
    if known is not None and known < 0.25 and run.method != "origin":
        found.append(
            f"The initial model hardly knew the forget rows (forget/prob {short(known)}), so there was little"
            " to forget."
        )
    stopped = (run.environment.get("training") or {}).get("stopped")
    if stopped:
        found.append(f"Training stopped at step {stopped['step']}: {stopped['reason']}.")
    if run.retain_path:
        sides = {"this run": run.conditions, "retain": conditions_of(run.retain_path)}
        found += [
            f"The retain model was not measured alike, which alone may move its figures: {line}."
            for line in differing_settings(sides)
        ]
    cut = {
        METRICS[key].rows: (one["cut_texts"], one["n"])
        for key, one in run.detail.items()
        if key in METRICS and one.get("n") and 2 * one.get("cut_texts", 0) > one["n"]
    }
    found += [
        f"{count} texts on the {n} {rows} rows were cut by evaluate.max_new_tokens; their ends are not"
        " measured."
        for rows, (count, n) in cut.items()
    ]
    found += [f"{warning}." for warning in run.evaluation.warnings]
    return found


def _most_forgotten(material: Material) -> list[str]:
    found = [f"{len(material.runs)} runs of {len(material.groups)} configurations."]
    for key in material.keys:
        if _keeps(key):
            continue
        best = _best(material, key)
        if best is None:
            continue
        retain = material.retain.get(key)
        if key == "forget_quality":
            passed = [r for r in material.runs if (r.figures.get(key) or 0) >= ALIKE]
            found.append(
                f"Runs that forget quality cannot tell from the retain model (p of at least {ALIKE}):"
                f" {len(passed)} of {len(material.runs)}; the highest p is {short(best.figures[key] or 0)}"
                f" ({best.title})."
            )
        else:
            goal = f"nearest to the retain model's {short(retain)}" if retain is not None else "lowest"
            unknown = material.retain and retain is None
            more = "; of the retain model it was not measured" if unknown else ""
            found.append(f"{key}: {goal} is {best.title} with {figure(best, key)}{more}.")
    return found


def _best(material: Material, key: str) -> FinishedRun | None:
    """The run with the best figure: nearest to the retain model's where there is one."""
    there = [run for run in material.runs if run.figures.get(key) is not None]
    retain = material.retain.get(key)

    def distance(run: FinishedRun) -> float:
        value = run.figures[key]
        assert value is not None
        if key == "forget_quality" or retain is None:
            return -value if key in METRICS and METRICS[key].good == "up" else value
        return abs(value - retain)

    return min(there, key=distance) if there else None


def _costs(material: Material) -> list[str]:
    found = []
    for key in filter(_keeps, material.keys):
        values = [(run.figures[key], run) for run in material.runs if run.figures.get(key) is not None]
        low = min(values, key=lambda pair: pair[0] or 0)
        high = max(values, key=lambda pair: pair[0] or 0)
        line = (
            f"{key} lies between {short(low[0] or 0)} ({low[1].title}) and {short(high[0] or 0)}"
            f" ({high[1].title})"
        )
        before = next((run.before[key] for run in material.runs if run.before.get(key)), None)
        if before:
            kept = [run for value, run in values if (value or 0) >= KEPT_SHARE * before]
            line += (
                f"; {len(kept)} of {len(values)} runs keep at least {100 * KEPT_SHARE:.0f} % of the"
                f" {short(before)} before"
            )
        found.append(f"{line}.")
    return found or ["Nothing that was to be kept was measured."]


def _believe_many(material: Material) -> list[str]:
    counts = sorted({len(runs) for runs in material.groups.values()})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    found = [
        f"{span} run{'s' if span != '1' else ''} (seeds) of each configuration. Intervals are over rows;"
        " the spread between the seeds of a configuration is the spread of its points."
    ]
    found += [
        f"The runs were not measured alike: {line}."
        for line in differing_settings({run.title: run.conditions for run in material.runs})[:8]
    ]
    begun = list(dict.fromkeys(run.setting("overall.model_name") for run in material.runs if run.trains))
    if len(begun) > 1:
        found.append(
            f"The runs begin at {len(begun)} models ({', '.join(map(str, begun[:3]))}): what stands as before"
            " unlearning is of the first run."
        )
    for line in dict.fromkeys(line for run in material.runs for line in _cautions(run)):
        owners = [run.title for run in material.runs if line in _cautions(run)]
        found.append(line if len(owners) == len(material.runs) else f"{', '.join(owners[:3])}: {line}")
    return found


def unmeasured(material: Material) -> list[str]:
    """What no run of the report measured."""
    there = {METRICS[key].family for run in material.runs for key in measured(run.figures) if key in METRICS}
    known = set(families())
    found = [
        f"{family}: {question} (evaluate.metrics {family})."
        for family, question in UNSEEN.items()
        if family in known and family not in there
    ]
    if not any(key.startswith("lm_eval/") for run in material.runs for key in run.figures):
        found.append("benchmarks: general abilities, such as MMLU (run_benchmarks.py).")
    if not material.retain:
        found.append("forget quality: it needs a retain model (evaluate.retain_results).")
    if all(not run.before for run in material.runs):
        found.append("the model before unlearning (evaluate.before).")
    return [*found, f"attacks: {NEVER}."]
