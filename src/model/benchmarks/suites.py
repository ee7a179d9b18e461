"""Benchmark suites and facts about their tasks, from `lm-evaluation-harness/suites.yaml`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from ...core.files import UserError, read_text
from ...core.project import HARNESS
from ...core.registry import did_you_mean

TASKS = HARNESS / "tasks"
ALL, AUTO, NONE = "all", "auto", "none"


@dataclass(frozen=True)
class TaskInfo:
    """Facts about a task, known without its rows."""

    data: str = ""
    """Name on the hub, `own` (comes with this project) or `yours` (the user's rows)."""
    rows: int = 0
    options: int = 0
    """Continuations scored per row; 0 where text is generated."""
    licence: str = "see hub"
    access: str = ""
    """open or gated."""
    ran: str = ""
    """The rows on which the task was tried."""
    folder: str | None = None
    """Folder of the harness's own tasks that defines it."""


@cache
def _suites_file() -> dict:
    import yaml

    return yaml.safe_load(read_text(HARNESS / "suites.yaml"))


def suite_names() -> list[str]:
    return [*_suites_file()["suites"], ALL]


def tasks_of(suites: Sequence[str], tasks: Sequence[str] = ()) -> list[str]:
    """The tasks of suites and further tasks, each once. UserError for an unknown suite."""
    chosen = [name for suite in suites for name in _tasks_of(suite)]
    return list(dict.fromkeys([*chosen, *tasks]))


def _tasks_of(suite: str) -> list[str]:
    known = _suites_file()["suites"]
    if suite == ALL:
        return [task for tasks in known.values() for task in tasks]
    if suite not in known:
        near = did_you_mean(suite, suite_names()) or f"; there are {', '.join(suite_names())}"
        raise UserError(f"unknown suite {suite!r}{near}")
    return known[suite]


def task_info(task: str) -> TaskInfo:
    """Facts about a task of suites.yaml; the defaults for any other."""
    return TaskInfo(**_suites_file()["tasks"].get(task, {}))


def known_tasks() -> list[str]:
    return list(_suites_file()["tasks"])
