"""Tables of the hub: published data sets of other sources, and any data set as the user's own rows.

    owner/name                  the split train
    owner/name:split            any other; slices too (`owner/name:train[:100]`)
    owner/name:config:split     of one of several configurations

A folder of data files (`./my_data:train`) is read in the same way.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.files import UserError, read_records
from ..core.hub_access import absent_offline, hub_problem
from ..core.json_fields import Kind
from .own_rows import COLUMNS, own_rows, questions
from .row_checks import checked_row
from .sources import SOURCES, Source, parse_name


@dataclass(frozen=True)
class HubTable:
    """A published table.

    Args:
        file: its file name in a folder; empty for one that is read from the hub alone.
        hub_name: its data set on the hub.
        config: its configuration there.
        split: its split there.
        data_file: its file there, where that is one of many files of a split.
        layout: what a folder in its place must have, for messages; by default its file and fields.
    """

    file: str
    hub_name: str
    config: str | None
    split: str = "train"
    data_file: str | None = None
    layout: str = ""

    def unavailable(self, reason: str, fields: Sequence[str] = ()) -> UserError:
        """The error that names page, key and layout."""
        named = f" ({', '.join(fields)})" if fields else ""
        folder = f"; or set dataset.data_dir to a folder with {self.layout or self.file + named}"
        return UserError(
            f"cannot load {' '.join(filter(None, (self.hub_name, self.config)))} from the hub ({reason}); its"
            f" page is https://huggingface.co/datasets/{self.hub_name} (gated data: ask for access there,"
            f" then `hf auth login`){folder if self.file else ''}"
        )


def load_table(
    data_dir: Path | None, table: HubTable, required: Mapping[str, Kind] | None = None
) -> list[dict]:
    """The rows of `load_records`, each with the `required` fields. UserError naming an invalid row."""
    records = load_records(data_dir, table, [*(required or ())])
    return [checked_row(place, row, required) for place, row in records]


def load_records(
    data_dir: Path | None, table: HubTable, fields: Sequence[str] = ()
) -> list[tuple[str, dict]]:
    """Read a table from its file in a folder, or without a folder from the hub; `fields`: of its rows, for
    the message.

    Returns:
        (place, row) pairs; the place is for messages.

    Raises:
        UserError: the table is not available; of a hub table with both remedies.
    """
    if data_dir:
        return read_records(data_dir / table.file)
    rows = _load_hub_dataset(table, fields)
    return [(f"{table.hub_name}, {table.split} row {n}", dict(row)) for n, row in enumerate(rows, 1)]


def _load_hub_dataset(table: HubTable, fields: Sequence[str] = ()):
    check_hub(table, fields)
    import datasets

    try:
        files = {table.split.partition("[")[0]: table.data_file} if table.data_file else None
        return datasets.load_dataset(table.hub_name, table.config, split=table.split, data_files=files)
    except Exception as error:  # the hub client raises many kinds; all mean that the rows are not available
        if Path(table.hub_name).is_dir():
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"cannot load {table.hub_name} ({reason})") from error
        raise table.unavailable(hub_problem(error), fields) from error


def check_hub(table: HubTable, fields: Sequence[str] = ()) -> None:
    """UserError at once where the hub cannot be reached and its cache has nothing of the data set."""
    # The packages of the hub need seconds to be imported and to find that out.
    if not Path(table.hub_name).is_dir() and (reason := absent_offline(table.hub_name, "dataset")):
        raise table.unavailable(reason, fields)


def check_reachable(name: str, data_dir: Path | None) -> None:
    """UserError at once where the rows of a data set are to come from the network and cannot."""
    source, split = parse_name(name)
    if not data_dir or source is Hub:
        found = source(data_dir)
        found.check_reachable(split)
        for table in found.hub_tables(split):
            check_hub(table)


def check_table(data_dir: Path | None, file: str) -> None:
    """UserError when a folder is set and lacks the file. Looks at the name only."""
    if data_dir and not (data_dir / file).is_file():
        raise UserError(f"dataset.data_dir: {data_dir} has no {file}")


NAME = re.compile(r"(?P<name>[^:]+)(:(?P<config>[^:\[\]]+)(?=:))?(:(?P<split>.+))?")


@SOURCES.register("Hub")
class Hub(Source):
    """Any data set of the hub; its whole name is the split. `dataset.data_dir` is the output folder of
    make_perturbed.py."""

    title = "Hub"
    splits = ()
    forget_splits = ()
    own = True
    takes_file = True  # it is not read as the rows of the hub

    def check(self, split: str) -> None:
        name = _parts(split)[0]
        if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
            raise UserError(f"dataset {split!r}: there is no folder {name}")

    def rows(self, split: str) -> list[dict]:
        """See `Source.rows`."""
        self.check(split)
        name, config, part = _parts(split)
        path = str(Path(name).expanduser()) if name.startswith("~") else name
        table = _load_hub_dataset(HubTable("", path, config, part))
        wanted = {*COLUMNS, *self.columns.values()}
        # The other columns may hold images or audio, which would be decoded row by row.
        known = [column for column in table.column_names if column in wanted]
        rows = [dict(row) for row in table.select_columns(known)] if known else []
        # They stay as names, for the message about a row that lacks a column.
        unread = dict.fromkeys(column for column in table.column_names if column not in known)
        found = [row | unread for row in rows] or [unread] * min(1, len(table))
        records = [(f"dataset {split}, row {number}", row) for number, row in enumerate(found, 1)]
        return own_rows(records, part.partition("[")[0], self.columns)

    def hub_tables(self, split: str) -> Sequence[HubTable]:
        name, config, part = _parts(split)
        return () if name.startswith("~") else (HubTable("", name, config, part),)

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        return {"forget": questions(forget)}


def _parts(text: str) -> tuple[str, str | None, str]:
    """Name, configuration and split."""
    found = NAME.fullmatch(text)
    if not found:
        raise UserError(f"dataset {text!r}: expected owner/name, owner/name:split or owner/name:config:split")
    return found["name"], found["config"], found["split"] or "train"
