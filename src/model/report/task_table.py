"""The table of docs/benchmarks.md: every benchmark task, what it needs, what it costs."""

from ...metrics.lm_eval import DEFAULT_BUDGET, Tasks
from ..benchmarks.suites import TASKS, Facts, facts_of, known_tasks, suite_names, tasks_of

MARKS = ("<!-- tasks: written by src/exec/make_docs.py -->", "<!-- end of tasks -->")


def render() -> str:
    """One line per task of suites.yaml, in its order."""
    ours = Tasks(TASKS, {})
    lines = [["task", "suites", "needs", "rows, licence", "asked for", "tokens at most", "here"], ["---"] * 7]
    for name in known_tasks():
        facts = facts_of(name)
        suites = [suite for suite in suite_names()[:-1] if name in tasks_of([suite])]
        lines.append(
            [
                f"`{name}`",
                ", ".join(suites) or "–",
                facts.data + (" (gated)" if facts.access == "gated" else ""),
                f"{facts.rows:,}, {facts.licence}",
                *_costs(name, facts, ours),
                facts.ran or "not run: needs the hub or your rows",
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _costs(name: str, facts: Facts, ours: Tasks) -> tuple[str, str]:
    if facts.options:
        return f"{facts.options} continuations", "–"
    declared = ours.declared(name)
    budget = declared["generation_kwargs"].get("max_gen_toks", DEFAULT_BUDGET)
    samples = declared.get("repeats", 1)
    return f"text x {samples}", f"{facts.rows * samples * budget:,}"
