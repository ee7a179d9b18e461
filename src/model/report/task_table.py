"""The table of docs/benchmarks.md: every benchmark task, what it needs, what it costs."""

from ...core.markdown import table
from ...metrics.lm_eval import HARNESS_BUDGET, Tasks
from ..benchmarks.suites import TASKS, Facts, facts_of, known_tasks, suite_names, tasks_of

MARKS = ("<!-- tasks: written by src/exec/make_docs.py -->", "<!-- end of tasks -->")


def render() -> str:
    """One line per task of suites.yaml, in its order."""
    ours = Tasks(TASKS, {})
    rows = []
    for name in known_tasks():
        facts = facts_of(name)
        suites = [suite for suite in suite_names()[:-1] if name in tasks_of([suite])]
        rows.append(
            [
                f"`{name}`",
                ", ".join(suites) or "–",
                facts.data + (" (gated)" if facts.access == "gated" else ""),
                f"{facts.rows:,}, {facts.licence}",
                _cost(name, facts, ours),
                facts.ran or "not run: needs the hub or your rows",
            ]
        )
    return table(["task", "suites", "needs", "rows, licence", "what a row costs", "run here"], rows)


def _cost(name: str, facts: Facts, ours: Tasks) -> str:
    if facts.options:
        return f"{facts.options} continuations"
    declared = ours.declared(name)
    budget = declared["generation_kwargs"].get("max_gen_toks", HARNESS_BUDGET)
    samples = declared.get("repeats", 1)
    return f"{samples} x at most {budget:,} tokens; all rows: {facts.rows * samples * budget:,}"
