"""Where rows come from. A dataset is named `<Source>_<split>` (`Fictional_forget10`, `Tofu_retain90`).

A source is one small class in one file of this folder: `splits` lists what it has, `rows(split)` gives
training rows, `evaluation(split)` gives the row sets that are measured when `split` is forgotten. Rows are
plain dicts, see `core/encoding.py` for what trains and TOFU's schema (paraphrased_answer, perturbed_answer,
...) for what is measured.
"""

from pathlib import Path

from core.files import UserError
from core.registry import Registry, did_you_mean

SOURCES = Registry("dataset")


class Source:
    """What every source offers. `data_dir` is the user's folder, or None for the source's own place."""

    title: str
    splits: tuple[str, ...]
    forget_splits: tuple[str, ...]
    measured: bool = True
    """Has it rows to be measured on?"""

    def __init__(self, data_dir: Path | None = None):
        self.data_dir = data_dir

    def check(self, split: str) -> None:
        """UserError when the files of a split are not where they should be. Quick: looks at names only."""

    def rows(self, split: str) -> list[dict]:
        """Rows of one split, each with a unique `id`."""
        raise NotImplementedError

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        """Row sets by name: forget, retain, real, world, ... (only those that exist). `forget` holds the rows
        of `split` that are forgotten: the sets about them are about these rows and no others."""
        raise NotImplementedError


def parse_name(name: str) -> tuple[type[Source], str]:
    """Source and split of a dataset name; UserError with near names when there is no such thing."""
    head, _, split = name.partition("_")
    if SOURCES.resolve(head) not in SOURCES:
        raise UserError(f"unknown dataset {name!r}{did_you_mean(name, known_names())}")
    source = SOURCES.find(head)
    matches = {s.lower(): s for s in source.splits}
    if split.lower() not in matches:
        near = did_you_mean(name, known_names()) or f"; {source.title} has {', '.join(source.splits)}"
        raise UserError(f"dataset {name!r}: {source.title} has no split {split!r}{near}")
    return source, matches[split.lower()]


def known_names() -> list[str]:
    return [f"{name}_{split}" for name, source in SOURCES.items() for split in source.splits]


def load_rows(name: str, data_dir: Path | None) -> list[dict]:
    """The rows of a dataset; an empty one is an error, as is an id that stands twice."""
    source, split = parse_name(name)
    rows = source(data_dir).rows(split)
    if not rows:
        raise UserError(f"dataset {name!r} has no rows")
    ids = [row["id"] for row in rows]
    if not all(isinstance(identity, str) for identity in ids):
        raise UserError(
            f"dataset {name!r}: every id must be a text, got"
            f" {next(i for i in ids if not isinstance(i, str))!r}"
        )
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise UserError(f"dataset {name!r}: id {twice!r} stands twice")
    return rows


def load_evaluation(
    name: str, data_dir: Path | None, forget: list[dict] | None = None
) -> dict[str, list[dict]]:
    """The row sets to measure when the rows `forget` (by default all) of dataset `name` are forgotten."""
    source, split = parse_name(name)
    sets = source(data_dir).evaluation(split, load_rows(name, data_dir) if forget is None else forget)
    return {name: [with_rephrased(row) for row in rows] for name, rows in sets.items()}


def with_rephrased(row: dict) -> dict:
    """A row whose one paraphrased question (TOFU's schema) is its list of rephrased ones, where it has no
    other."""
    if "paraphrased_question" not in row or "rephrased_questions" in row:
        return row
    return {**row, "rephrased_questions": [row["paraphrased_question"]]}
