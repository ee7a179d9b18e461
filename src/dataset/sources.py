"""Where rows come from. A dataset is named `<Source>_<split>` (`Fictional_forget10`, `Tofu_retain90`), or is
one of the hub (`owner/name:split`, see `dataset/hub.py`).

A source is one small class in one file of this folder: `splits` lists what it has, `rows(split)` gives
training rows, `evaluation(split)` gives the row sets that are measured when `split` is forgotten. Rows are
plain dicts, see `core/encoding.py` for what trains and TOFU's schema (paraphrased_answer, perturbed_answer,
...) for what is measured.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ..core.files import UserError
from ..core.registry import Registry, did_you_mean
from .own_rows import questions
from .perturbed import with_perturbed

SOURCES = Registry("dataset")


class Source:
    """What every source offers.

    Args:
        data_dir: the user's folder, or None for the source's own place.
        columns: our column -> the user's, for sources of the user's own rows.
    """

    title: str
    splits: tuple[str, ...]
    forget_splits: tuple[str, ...]
    measured: bool = True
    """Has it rows to be measured on?"""
    own: bool = False
    """Are these the user's own rows, with splits of any name?"""

    def __init__(self, data_dir: Path | None = None, columns: Mapping[str, str] | None = None):
        self.data_dir, self.columns = data_dir, columns or {}

    @classmethod
    def can_forget(cls, split: str) -> bool:
        return cls.own or split in cls.forget_splits

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
    if "/" in name:
        return SOURCES["Hub"], name
    head, _, split = name.partition("_")
    if SOURCES.resolve(head) not in SOURCES:
        near = did_you_mean(name, known_names())
        raise UserError(f"unknown dataset {name!r}{near or '; one of the hub is named owner/name:split'}")
    source = SOURCES.find(head)
    matches = {s.lower(): s for s in source.splits}
    if split.lower() in matches:
        return source, matches[split.lower()]
    if source.own and split:
        return source, split
    near = did_you_mean(name, known_names()) or f"; {source.title} has {', '.join(source.splits)}"
    raise UserError(f"dataset {name!r}: {source.title} has no split {split!r}{near}")


def dataset_name(text: str) -> str:
    """The proper spelling of a dataset name; UserError with near names when there is no such thing."""
    source, split = parse_name(str(text))
    return split if "/" in split else f"{SOURCES.name_of(source)}_{split}"


def known_names() -> list[str]:
    return [f"{name}_{split}" for name, source in SOURCES.items() for split in source.splits]


def load_rows(name: str, data_dir: Path | None, columns: Mapping[str, str] | None = None) -> list[dict]:
    """The rows of a dataset; an empty one is an error, as is an id that stands twice."""
    source, split = parse_name(name)
    rows = source(data_dir, columns).rows(split)
    if not rows:
        raise UserError(f"dataset {name!r} has no rows" + (f" in {data_dir}" if data_dir else ""))
    ids = [row["id"] for row in rows]
    if not all(isinstance(identity, str) for identity in ids):
        raise UserError(
            f"dataset {name!r}: every id must be a text, got"
            f" {next(i for i in ids if not isinstance(i, str))!r}"
        )
    if len(set(ids)) < len(ids):
        twice = next(i for i, count in Counter(ids).items() if count > 1)
        raise UserError(f"dataset {name!r}: id {twice!r} stands twice")
    return rows


def evaluation_rows(
    name: str,
    data_dir: Path | None,
    forget: list[dict] | None = None,
    columns: Mapping[str, str] | None = None,
    retain_name: str | None = None,
) -> dict[str, list[dict]]:
    """The row sets to measure when the rows `forget` (by default all) of dataset `name` are forgotten, as the
    data set has them. Where the user's own rows bring no set `retain`, it is the dataset `retain_name`."""
    source, split = parse_name(name)
    chosen = load_rows(name, data_dir, columns) if forget is None else forget
    sets = source(data_dir, columns).evaluation(split, chosen)
    if source.own and "retain" not in sets and retain_name and parse_name(retain_name)[0].own:
        sets["retain"] = questions(load_rows(retain_name, data_dir, columns))
    return sets


def load_evaluation(
    name: str,
    data_dir: Path | None,
    forget: list[dict] | None = None,
    columns: Mapping[str, str] | None = None,
    retain_name: str | None = None,
) -> dict[str, list[dict]]:
    """As `evaluation_rows`, with what make_perturbed.py wrote for the user's own rows."""
    sets = evaluation_rows(name, data_dir, forget, columns, retain_name)
    if parse_name(name)[0].own and data_dir:
        sets = with_perturbed(sets, data_dir)
    return {name: [with_rephrased(row) for row in rows] for name, rows in sets.items()}


def with_rephrased(row: dict) -> dict:
    """A row whose one paraphrased question (TOFU's schema) is its list of rephrased ones, where it has no
    other."""
    if "paraphrased_question" not in row or "rephrased_questions" in row:
        return row
    return {**row, "rephrased_questions": [row["paraphrased_question"]]}
