"""Rows from the hub, or from a folder that holds the same tables as JSON-lines files."""

from collections.abc import Mapping
from pathlib import Path

from core.fields import Kind
from core.files import UserError, read_records
from core.hub import hub_problem, without_hub
from dataset.checked import checked_row


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
    import datasets

    without_hub()
    try:
        table = datasets.load_dataset(hub_name, config, split=split)
        return [(f"{hub_name}, {split} row {number}", dict(row)) for number, row in enumerate(table, 1)]
    except Exception as error:  # the hub client raises many kinds; all mean that the rows are not to be had
        gated = "" if without_hub() else "; gated data needs `hf auth login` with an account that was let in"
        raise UserError(
            f"cannot load {hub_name} {config or ''} from the hub ({hub_problem(error)}){gated}; or set"
            f" dataset.data_dir to a folder with {file}"
        ) from error


def check_table(data_dir: Path | None, file: str) -> None:
    """UserError when a folder is named and lacks the file. Quick: looks at the name only."""
    if data_dir and not (data_dir / file).is_file():
        raise UserError(f"dataset.data_dir: {data_dir} has no {file}")
