"""Tables of the hub: those that other sources know by name, and any data set as the user's own rows.

    owner/name                  the split train
    owner/name:split            any other; slices too (`owner/name:train[:100]`)
    owner/name:config:split     of one of several configurations

A folder of data files (`./my_data:train`) is read in the same way.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ..core.files import UserError, read_records
from ..core.hub_access import hub_problem, offline_reason
from ..core.json_fields import Kind
from .own_rows import COLUMNS, own_rows, questions
from .row_checks import checked_row
from .sources import SOURCES, Source


def load_table(
    data_dir: Path | None,
    file: str,
    hub_name: str,
    config: str | None,
    split: str = "train",
    required: Mapping[str, Kind] | None = None,
) -> list[dict]:
    """The rows of `load_records`, each with the `required` fields. UserError naming the row that is wrong."""
    records = load_records(data_dir, file, hub_name, config, split)
    return [checked_row(place, row, required) for place, row in records]


def load_records(
    data_dir: Path | None, file: str, hub_name: str, config: str | None, split: str = "train"
) -> list[tuple[str, dict]]:
    """The rows of `data_dir`/`file`, or without a folder of a hub data set, each with its place for messages.
    UserError saying both ways when neither works."""
    if data_dir:
        return read_records(data_dir / file)
    try:
        table = _hub_table(hub_name, config, split)
        return [(f"{hub_name}, {split} row {number}", dict(row)) for number, row in enumerate(table, 1)]
    except UserError as error:
        raise UserError(f"{error}; or set dataset.data_dir to a folder with {file}") from error


def _hub_table(name: str, config: str | None, split: str):
    import datasets

    if not Path(name).is_dir():
        offline_reason()
    try:
        return datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub client raises many kinds; all mean that the rows are not to be had
        if Path(name).is_dir():
            raise UserError(f"cannot load {name} ({' '.join(str(error).split())[:300]})") from error
        gated = (
            "" if offline_reason() else "; gated data needs `hf auth login` with an account that was let in"
        )
        raise UserError(
            f"cannot load {name} {config or ''} from the hub ({hub_problem(error)}){gated}"
        ) from error


def check_table(data_dir: Path | None, file: str) -> None:
    """UserError when a folder is named and lacks the file. Quick: looks at the name only."""
    if data_dir and not (data_dir / file).is_file():
        raise UserError(f"dataset.data_dir: {data_dir} has no {file}")


NAME = re.compile(r"(?P<name>[^:]+)(:(?P<config>[^:\[\]]+)(?=:))?(:(?P<split>.+))?")


@SOURCES.register("Hub")
class Hub(Source):
    """Any data set of the hub; the whole name is the split. `dataset.data_dir` is the folder where
    make_perturbed.py writes."""

    title = "Hub"
    splits = ()
    forget_splits = ()
    own = True

    def check(self, split: str) -> None:
        name = _parts(split)[0]
        if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
            raise UserError(f"dataset {split!r}: there is not a folder {name}")

    def rows(self, split: str) -> list[dict]:
        """Only the columns that rows can have are read: others may hold pictures or sound."""
        self.check(split)
        name, config, part = _parts(split)
        path = str(Path(name).expanduser()) if name.startswith("~") else name
        table = _hub_table(path, config, part)
        wanted = {*COLUMNS, *self.columns.values()}
        known = [column for column in table.column_names if column in wanted]
        rows = [dict(row) for row in table.select_columns(known)] if known else []
        absent = dict.fromkeys(column for column in table.column_names if column not in known)
        # Columns that are not read are named where a row lacks what it needs.
        found = [row | absent for row in rows] or [absent] * min(1, len(table))
        records = [(f"dataset {split}, row {number}", row) for number, row in enumerate(found, 1)]
        return own_rows(records, part.partition("[")[0], self.columns)

    def evaluation(self, split: str, forget: list[dict]) -> dict[str, list[dict]]:
        return {"forget": questions(forget)}


def _parts(text: str) -> tuple[str, str | None, str]:
    """Name, configuration and split."""
    found = NAME.fullmatch(text)
    if not found:
        raise UserError(f"dataset {text!r}: expected owner/name, owner/name:split or owner/name:config:split")
    return found["name"], found["config"], found["split"] or "train"
