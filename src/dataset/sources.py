"""Sources of rows. A dataset is named `<Source>_<split>` (`Fictional_forget10`, `Tofu_retain90`), on the hub
`owner/name:split`, see `dataset/hub_tables.py`.

A source is one small class in one file of this folder: `splits` lists its splits, `rows(split)` returns
training rows, `evaluation(split, forget)` returns the row sets that are measured when rows of `split` are
forgotten. Rows are plain dicts, see `core/encoding.py` for the fields of training and TOFU's schema
(paraphrased_answer, perturbed_answer, ...) for those of evaluation.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.files import UserError
from ..core.registry import Registry, did_you_mean
from .own_rows import questions
from .perturbed import with_perturbed

if TYPE_CHECKING:
    from .hub_tables import HubTable

SOURCES = Registry("dataset")
WAGLE_NAMES = {
    "wmdpbio": "Wmdp_bio_forget",
    "wmdpcyber": "Wmdp_cyber_forget",
    "wmdpall": "Wmdp_all_forget",
    "wikitext": "Wmdp_wikitext",
}
"""Names of the WAGLE family that are no source and split, in lower case -> ours."""


class Source:
    """The interface of a source.

    Args:
        data_dir: the user's folder, or None for the source's default.
        columns: column of this project -> the user's column, for sources of the user's own rows.
    """

    title: str
    """Name in messages."""
    splits: tuple[str, ...]
    forget_splits: tuple[str, ...]
    """The splits that can be forgotten."""
    measured: bool = True
    """Whether it has evaluation sets."""
    borrowed_retain_rows: int = 0
    """Most rows of the retain data set that are measured as retain rows; 0 for a source that has its own."""
    own: bool = False
    """Whether these are the user's own rows, with splits of any name."""
    takes_file: bool = False
    """Whether `data_dir` may be a file."""
    default_split: str = ""
    """The split of a name without one, which the WAGLE family writes: `HP`, `SafePku`."""
    row_files: Mapping[str, str] = {}
    """Measured row set -> the file of `data_dir` that it comes from, for the reason of a null."""

    def __init__(self, data_dir: Path | None = None, columns: Mapping[str, str] | None = None):
        self.data_dir, self.columns = data_dir, columns or {}

    @classmethod
    def can_forget(cls, split: str) -> bool:
        return cls.own or split in cls.forget_splits

    @classmethod
    def partner(cls, forget: str) -> str:
        """The split to retain beside a split to forget, where another one of this source would hold some of
        its rows; empty where any may be taken."""
        return ""

    def check(self, split: str) -> None:
        """UserError when the files of a split are missing. Called while settings are read, so it looks at
        names only."""

    def hub_tables(self, split: str) -> "Sequence[HubTable]":
        """The tables of the hub that the rows of a split come from where no folder is set, so that a hub that
        cannot be reached is reported before anything is loaded."""
        return ()

    def check_reachable(self, split: str) -> None:
        """The same of rows from elsewhere in the network: UserError when they cannot be fetched."""

    def rows(self, split: str) -> list[dict]:
        """The rows of one split, each with a unique `id`.

        Raises:
            UserError: a file is missing or a row is invalid; the message names the row.
        """
        raise NotImplementedError

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        """The row sets that are measured when rows of a split are forgotten.

        Args:
            split: the forget split.
            forget: its rows that are forgotten. Sets about forgotten facts cover these rows alone.

        Returns:
            Set name (forget, retain, real, world, ...) -> rows; missing sets are left out.
        """
        raise NotImplementedError


def parse_name(name: str) -> tuple[type[Source], str]:
    """Source and split of a dataset name. UserError with near names for an unknown one."""
    name = WAGLE_NAMES.get(name.lower(), name)
    if "/" in name:
        return SOURCES["Hub"], name
    head, _, split = name.partition("_")
    if SOURCES.resolve(head) not in SOURCES:
        near = did_you_mean(name, known_names())
        raise UserError(f"unknown dataset {name!r}{near or '; one of the hub is named owner/name:split'}")
    source = SOURCES.find(head)
    split = split or source.default_split
    matches = {s.lower(): s for s in source.splits}
    if split.lower() in matches:
        return source, matches[split.lower()]
    if source.own and split:
        return source, split
    near = did_you_mean(name, known_names()) or f"; {source.title} has {', '.join(source.splits)}"
    raise UserError(f"dataset {name!r}: {source.title} has no split {split!r}{near}")


def dataset_name(text: str) -> str:
    """The canonical spelling of a dataset name. UserError with near names for an unknown one."""
    source, split = parse_name(str(text))
    return split if "/" in split else f"{SOURCES.name_of(source)}_{split}"


def retain_name(text: str) -> str:
    """As `dataset_name`, of rows to retain: to the WAGLE family a WMDP corpus is wikitext there."""
    return dataset_name("wikitext" if str(text).lower() in ("wmdpbio", "wmdpcyber", "wmdpall") else text)


def known_names() -> list[str]:
    return [f"{name}_{split}" for name, source in SOURCES.items() for split in source.splits]


def load_rows(name: str, data_dir: Path | None, columns: Mapping[str, str] | None = None) -> list[dict]:
    """Read a dataset.

    Args:
        name: `<Source>_<split>` or `owner/name:split`.
        data_dir: the user's folder, or None for the source's default.
        columns: column of this project -> the user's column.

    Returns:
        Rows, each with a unique `id`, in the order of the source.

    Raises:
        UserError: no such dataset, no rows, an invalid row, or an id that is used twice.
    """
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
        # Caches and generated files are keyed by id: two rows of one id would share their texts.
        twice = next(i for i, count in Counter(ids).items() if count > 1)
        raise UserError(f"dataset {name!r}: the id {twice!r} is used twice")
    return rows


@dataclass(frozen=True)
class ForgetSet:
    """The rows that are forgotten, whose evaluation sets are wanted.

    Args:
        name: name of the forget dataset.
        data_dir: the user's folder, or None for the source's default.
        rows: the forgotten rows; None for all.
        columns: column of this project -> the user's column.
        retain_name: name of the retain dataset.
    """

    name: str
    data_dir: Path | None = None
    rows: list[dict] | None = None
    columns: Mapping[str, str] | None = None
    retain_name: str | None = None


def evaluation_rows(forget: ForgetSet) -> dict[str, list[dict]]:
    """Read the evaluation sets of a dataset, set name -> rows.

    Raises:
        UserError: a dataset cannot be read, see `load_rows`.
    """
    source, split = parse_name(forget.name)
    data_dir, columns, rows = forget.data_dir, forget.columns, forget.rows
    if rows is None:
        rows = load_rows(forget.name, data_dir, columns)
    sets = source(data_dir, columns).evaluation(split, rows)
    # A published data set defines its retain set itself; with the user's own rows it may be the retain rows.
    retain_name, borrowed = forget.retain_name, source.borrowed_retain_rows or None
    if not retain_name or "retain" in sets:
        return sets
    own = source.own and parse_name(retain_name)[0].own
    if own or (borrowed and is_there(retain_name, data_dir)):
        sets["retain"] = questions(load_rows(retain_name, data_dir, columns))[:borrowed]
    return sets


def row_files(name: str) -> Mapping[str, str]:
    """Measured row set -> the file that it comes from, of a dataset; see `Source.row_files`."""
    return parse_name(name)[0].row_files


def is_there(name: str, data_dir: Path | None) -> bool:
    """Whether a data set's files are where it looks for them: the default one has none in a user's folder."""
    source, split = parse_name(name)
    try:
        source(data_dir).check(split)
    except UserError:
        return False
    return True


def load_evaluation(forget: ForgetSet) -> dict[str, list[dict]]:
    """As `evaluation_rows`, with the texts that make_perturbed.py wrote for the user's own rows."""
    sets = evaluation_rows(forget)
    if parse_name(forget.name)[0].own and forget.data_dir:
        sets = with_perturbed(sets, forget.data_dir)
    return {name: [with_rephrased(row) for row in rows] for name, rows in sets.items()}


def with_rephrased(row: dict) -> dict:
    """The row with TOFU's one paraphrased question as its list of rephrased questions, unless it has one."""
    if "paraphrased_question" not in row or "rephrased_questions" in row:
        return row
    return {**row, "rephrased_questions": [row["paraphrased_question"]]}
