"""The suites of benchmarks and what each of their tasks needs: `lm-evaluation-harness/suites.yaml`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from ...core.files import UserError, read_text
from ...core.project import HARNESS
from ...core.registry import did_you_mean

TASKS = HARNESS / "tasks"
ALL, AUTO, NONE = "all", "auto", "none"


@dataclass(frozen=True)
class Facts:
    """What is known of a task before its rows are read. `data`: its name on the hub, `own` (comes with this
    project) or `yours` (the user brings the rows); `options`: continuations scored per row, 0 where text is
    generated; `access`: open or gated; `ran`: what of it was run while this was made."""

    data: str = ""
    rows: int = 0
    options: int = 0
    licence: str = "see hub"
    access: str = ""
    ran: str = ""
    folder: str | None = None


@cache
def _file() -> dict:
    import yaml

    return yaml.safe_load(read_text(HARNESS / "suites.yaml"))


def suite_names() -> list[str]:
    return [*_file()["suites"], ALL]


def tasks_of(suites: Sequence[str], tasks: Sequence[str] = ()) -> list[str]:
    """The tasks of suites, and those named beside them, each once: a task that stands in two suites is run
    once. UserError for an unknown suite."""
    chosen = [name for suite in suites for name in _tasks_of(suite)]
    return list(dict.fromkeys([*chosen, *tasks]))


def _tasks_of(suite: str) -> list[str]:
    known = _file()["suites"]
    if suite == ALL:
        return [task for tasks in known.values() for task in tasks]
    if suite not in known:
        near = did_you_mean(suite, suite_names()) or f"; there are {', '.join(suite_names())}"
        raise UserError(f"unknown suite {suite!r}{near}")
    return known[suite]


def facts_of(task: str) -> Facts:
    """What suites.yaml says of a task; nothing is known of others."""
    return Facts(**_file()["tasks"].get(task, {}))


def known_tasks() -> list[str]:
    return list(_file()["tasks"])
