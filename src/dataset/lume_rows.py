"""`Lume_<split>`: LUME (Ramakrishna et al., arXiv:2502.15097), the benchmark of SemEval-2025 task 4
(arXiv:2504.02883): stories (Task1), invented personal data (Task2) and biographies (Task3), each as texts to
be continued and questions to be answered.

With `dataset.data_dir` from a folder of its files forget.jsonl and retain.jsonl (`id`, `input`, `output`,
`task`), without it from the public repository, once: they are kept beside the hub's cache. The membership
test of the shared task has two more files there, member.jsonl and nonmember.jsonl (`id`, `document`), which
were handed out with the task but not published with the rows.
"""

import re
from pathlib import Path

from ..core.files import UserError, read_records
from ..core.hub_access import connection_problem, user_is_offline
from ..core.json_fields import TEXT, Kind, check_fields
from .hub_tables import check_table
from .sources import SOURCES, Source

PAGE = "https://github.com/amazon-science/lume-llm-unlearning"
COMMIT = "b2fa8f9c567715f1e2c6d442213f33b2e9a28fe6"
ADDRESS = f"https://raw.githubusercontent.com/amazon-science/lume-llm-unlearning/{COMMIT}/data"
SIDES = ("forget", "retain")
REMEDY = (
    f"get data/forget.jsonl and data/retain.jsonl (id, input, output, task) at {PAGE} and set"
    " dataset.data_dir to their folder"
)
SHA256 = {
    "forget": "3a74f30223c35b173664dfea5b1c5939587f1eac868a9764891f30c2c317c381",
    "retain": "ec8826a91d9fb9e5a50ba732549e8eff75fc99c2f67d6873d1ea36fd403a003d",
}
TASKS = ("task1", "task2", "task3")
KINDS = {"sc": "prompt", "qa": "question"}
"""Kind of a row, as its id ends -> the field of its input: a text is continued without a template."""
PART, PART_ROWS = "part", 6
MEMBERSHIP = {"forget_texts": "member.jsonl", "holdout_texts": "nonmember.jsonl"}
FIELDS = {
    "id": Kind(
        "a text that ends in sc or qa and a number",
        lambda value: isinstance(value, str) and bool(re.search(r"(sc|qa)\d+$", value)),
    ),
    "input": TEXT,
    "output": TEXT,
    "task": Kind("Task1, Task2 or Task3", lambda value: str(value).lower() in TASKS),
}


@SOURCES.register("Lume")
class Lume(Source):
    """`full` is forget and retain together, for the target model. `_task1` and so on are the rows of one
    task, `_part` the shortest of each task and kind, for a run on a CPU."""

    title = "Lume"
    splits = tuple(
        f"{side}{'_' if part else ''}{part}" for side in (*SIDES, "full") for part in ("", *TASKS, PART)
    )
    forget_splits = tuple(split for split in splits if split.startswith("forget"))
    row_files = MEMBERSHIP

    def check(self, split: str) -> None:
        for side in SIDES:  # the rows of both sides are measured
            check_table(self.data_dir, f"{side}.jsonl")
        there = [name for name in MEMBERSHIP.values() if self._membership_file(name)]
        if len(there) == 1:
            raise UserError(
                f"dataset.data_dir: {self.data_dir} has {there[0]} alone; the membership test needs"
                f" {' and '.join(MEMBERSHIP.values())}"
            )

    def check_reachable(self, split: str) -> None:
        for side in SIDES:
            _check_reachable(side)

    def rows(self, split: str) -> list[dict]:
        part = split.partition("_")[2]
        return [row for side in _sides(split) for row in _part_of(self._read(side), part)]

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        """See `Source.evaluation`. The questions of all tasks are `forget` and `retain` too."""
        retain = self.rows(split.replace("forget", "retain"))
        sets: dict[str, list[dict]] = {}
        for side, rows in (("forget", forget), ("retain", retain)):
            sets[side] = [row for row in rows if "question" in row]
            for task in TASKS:
                for kind, field in KINDS.items():
                    sets[f"{side}_{task}_{kind}"] = [
                        row for row in rows if row["task"] == task and field in row
                    ]
        return sets | {name: self._documents(name) for name in MEMBERSHIP}

    def _read(self, side: str) -> list[dict]:
        path = self.data_dir / f"{side}.jsonl" if self.data_dir else _fetched(side)
        return [_row(place, record) for place, record in read_records(path)]

    def _membership_file(self, name: str) -> Path | None:
        """Beside the rows, or in the folder of the shared task."""
        places = [self.data_dir / name, self.data_dir / "mia_data" / name] if self.data_dir else []
        return next((path for path in places if path.is_file()), None)

    def _documents(self, name: str) -> list[dict]:
        path = self._membership_file(MEMBERSHIP[name])
        rows = []
        for number, (place, record) in enumerate(read_records(path) if path else []):
            check_fields(place, record, {"document": TEXT})
            rows.append({"id": f"{name}-{number}", "text": record["document"]})
        return rows


def _sides(split: str) -> tuple[str, ...]:
    side = split.partition("_")[0]
    return SIDES if side == "full" else (side,)


def _row(place: str, row: dict) -> dict:
    """A row of a file, checked, with this project's fields."""
    check_fields(place, row, FIELDS)
    kind = re.sub(r"\d+$", "", row["id"])[-2:]
    return {"id": row["id"], "task": row["task"].lower(), KINDS[kind]: row["input"], "answer": row["output"]}


def _part_of(rows: list[dict], part: str) -> list[dict]:
    """The rows of a task, or the shortest of each task and kind; in the order of the file."""
    if part != PART:
        return [row for row in rows if part in ("", row["task"])]
    kept = set()
    for task in TASKS:
        for field in KINDS.values():
            alike = [row for row in rows if row["task"] == task and field in row]
            alike.sort(key=lambda row: len(row[field]) + len(row["answer"]))
            kept |= {row["id"] for row in alike[:PART_ROWS]}
    return [row for row in rows if row["id"] in kept]


def _kept(side: str) -> Path:
    """Where the published file is kept."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "unlearnkit" / f"lume-{COMMIT[:7]}" / f"{side}.jsonl"


def _check_reachable(side: str) -> None:
    """UserError where the published file is not here and cannot be fetched."""
    if not _kept(side).is_file() and (reason := user_is_offline() or connection_problem(ADDRESS)):
        raise UserError(f"LUME's {side}.jsonl cannot be fetched from GitHub ({reason}); {REMEDY}")


def _fetched(side: str) -> Path:
    """The published file, downloaded on first use."""
    from ..core.download import download, file_sha256, origin_path

    path = _kept(side)
    if path.is_file():
        return path
    _check_reachable(side)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download(f"{ADDRESS}/{side}.jsonl", part, lambda line: None)
    except (UserError, OSError) as error:
        raise UserError(f"LUME: {error}; or {REMEDY}") from None
    origin_path(part).unlink(missing_ok=True)
    if (found := file_sha256(part)) != SHA256[side]:
        part.unlink()
        raise UserError(
            f"LUME's {side}.jsonl from {ADDRESS} has SHA-256 {found}, not {SHA256[side]}; {REMEDY}"
        )
    part.replace(path)
    return path
