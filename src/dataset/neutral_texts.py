"""Neutral text: documents that a run neither forgets nor keeps, for perplexity and a budget on the KL to the
initial model.

    notes.txt                 one document
    notes.jsonl               a document in `text` of each line
    Wmdp_wikitext             the documents of a data set, from its own place or the hub
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..core.files import UserError, read_records, read_text
from ..core.json_fields import TEXT
from ..core.registry import did_you_mean
from .hub_tables import check_reachable
from .row_checks import checked_row
from .sources import dataset_name, is_there, load_rows

ROWS = "neutral_texts"
"""Name of the row set."""
SUFFIXES = (".txt", ".jsonl")
FORM = "a file .txt or .jsonl, or the name of a data set of documents, such as Wmdp_wikitext"


def neutral_text_name(text: object) -> str:
    """Check the name of a neutral text. UserError for a file that is not there, or an unknown data set."""
    name = str(text)
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"{name.partition('/')[0]} is nobody's home") from None
    if path.suffix not in SUFFIXES:
        return dataset_name(name)
    if not path.is_file():
        files = [str(near) for near in path.parent.glob("*") if near.suffix in SUFFIXES]
        raise UserError(f"there is no file {name}{did_you_mean(name, files)}")
    return name


def check_neutral_text(name: str, data_dir: Path | None) -> None:
    """UserError at once where it is to come from the network and cannot."""
    if Path(name).suffix not in SUFFIXES:
        with _naming_the_key():
            check_reachable(name, _folder(name, data_dir))


def _folder(name: str, data_dir: Path | None) -> Path | None:
    """The user's folder, if it has the files of the data set."""
    return data_dir if data_dir and is_there(name, data_dir) else None


@contextlib.contextmanager
def _naming_the_key() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        remedy = "or name a file .txt or .jsonl of your own"
        raise UserError(f"evaluate.neutral_text: {error}; {remedy}") from None


def load_neutral_texts(name: str, data_dir: Path | None = None) -> list[dict]:
    """Read documents, each a row with `id` and `text`.

    Args:
        name: a file, or a data set.
        data_dir: the user's folder, where a data set is read from if it has its files.

    Raises:
        UserError: the file or data set cannot be read, or holds no document; the message names the place.
    """
    path = Path(name).expanduser()
    if path.suffix == ".txt":
        text = read_text(path)
        if not text.strip():
            raise UserError(f"evaluate.neutral_text: {path} is empty")
        return [{"id": path.stem, "text": text}]
    if path.suffix == ".jsonl":
        rows = [checked_row(place, row, {"text": TEXT}) for place, row in read_records(path)]
        if not rows:
            raise UserError(f"evaluate.neutral_text: {path} is empty")
        return [{"id": f"{path.stem}-{number}", "text": row["text"]} for number, row in enumerate(rows)]
    with _naming_the_key():
        rows = load_rows(name, _folder(name, data_dir))
    documents = [{"id": row["id"], "text": row["text"]} for row in rows if "text" in row]
    if not documents:
        raise UserError(
            f"evaluate.neutral_text: {name} has questions and no documents; name a data set of documents or a"
            " file .txt or .jsonl"
        )
    return documents
