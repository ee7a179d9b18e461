"""Tables of a user's folder: JSON lines or CSV."""

import csv
import io
import json
import re
import sys
from collections import Counter
from pathlib import Path

from ..core.files import UserError, read_records, read_text
from ..core.registry import did_you_mean

SUFFIXES = (".jsonl", ".csv")
DELIMITERS = ",;\t"
"""Possible delimiters of a CSV file. Spreadsheets in some countries write a semicolon."""


def table_path(folder: Path, stem: str) -> Path | None:
    """The table of that name, or None. UserError where the folder has two."""
    found = [folder / f"{stem}{suffix}" for suffix in SUFFIXES if (folder / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        raise UserError(
            f"dataset.data_dir: {folder} has both {found[0].name} and {found[1].name}; remove one of them"
        )
    return found[0] if found else None


def require_table(folder: Path, stem: str) -> Path:
    """The table of that name. UserError with the names of the folder's files when it is missing."""
    if path := table_path(folder, stem):
        return path
    names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    near = did_you_mean(f"{stem}.jsonl", names)
    there = f"; it has {', '.join(names[:8])}" if names and not near else ""
    raise UserError(f"dataset.data_dir: {folder} has no {stem}.jsonl (or {stem}.csv){near or there}")


def read_table(path: Path) -> list[tuple[str, dict]]:
    """(place, row) pairs of a table; the place is `<path>, line <number>`. UserError naming an unreadable
    row."""
    return read_csv(path) if path.suffix == ".csv" else read_records(path)


def read_csv(path: Path) -> list[tuple[str, dict]]:
    """Read a CSV file with a header.

    Texts in double quotes may hold commas, line breaks and doubled quotes. Empty cells and columns without a
    name are left out; a cell with a JSON list becomes a list.

    Returns:
        (place, row) pairs.

    Raises:
        UserError: a line has another number of cells than the header, or a quote is missing.
    """
    text = read_text(path)
    # Python's default of 131,072 characters is less than a document; the limit is a C long, of 32 bits on
    # some systems.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    rows, header = [], None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(path, cells)
            else:
                rows.append((f"{path}, line {reader.line_num}", _row(path, reader.line_num, header, cells)))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; is a double quote missing?") from None
    return rows


def _delimiter(text: str) -> str:
    """The most frequent delimiter of the first line, outside of quotes."""
    first = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    return max(DELIMITERS, key=first.count)


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise UserError(f"{path}: the column {twice[0]!r} is there twice")
    return names


def _row(path: Path, line: int, header: list[str], cells: list[str]) -> dict:
    extra = any(cell.strip() for cell in cells[len(header) :])
    if len(cells) < len(header) or extra:
        raise UserError(
            f"{path}, line {line}: {len(cells)} cells where the header has {len(header)}; put a text that"
            " holds a comma or a line break in double quotes"
        )
    return {name: _value(cell) for name, cell in zip(header, cells) if name and cell.strip()}


def _value(cell: str) -> object:
    """The list of a cell that holds a JSON list, otherwise the text of the cell."""
    if not cell.lstrip().startswith("["):
        return cell
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return found if isinstance(found, list) else cell
