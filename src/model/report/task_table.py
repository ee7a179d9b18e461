"""Table of docs/benchmarks.md: data, licence and cost of every benchmark task."""

from ...core.markdown import table
from ...metrics.lm_eval import DEFAULT_BUDGET, Tasks
from ..benchmarks.suites import TASKS, TaskInfo, known_tasks, suite_names, task_info, tasks_of

MARKS = ("<!-- tasks: written by src/exec/make_docs.py -->", "<!-- end of tasks -->")


def render() -> str:
    """One line per task of suites.yaml, in its order."""
    tasks = Tasks(TASKS, {})
    rows = []
    for name in known_tasks():
        info = task_info(name)
        suites = [suite for suite in suite_names()[:-1] if name in tasks_of([suite])]
        rows.append(
            [
                f"`{name}`",
                ", ".join(suites) or "–",
                info.data + (" (gated)" if info.access == "gated" else ""),
                f"{info.rows:,}, {info.licence}",
                _cost(name, info, tasks),
                info.ran or "not run: needs the hub or your rows",
            ]
        )
    return table(["task", "suites", "needs", "rows, licence", "what a row costs", "run here"], rows)


def _cost(name: str, info: TaskInfo, tasks: Tasks) -> str:
    if info.options:
        return f"{info.options} continuations"
    declared = tasks.declared(name)
    budget = declared["generation_kwargs"].get("max_gen_toks", DEFAULT_BUDGET)
    samples = declared.get("repeats", 1)
    return f"{samples} x at most {budget:,} tokens; all rows: {info.rows * samples * budget:,}"
