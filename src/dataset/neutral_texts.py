"""Neutral text: documents that a run neither forgets nor keeps, for perplexity and a budget on the KL to the
initial model.

    notes.txt                 one document
    notes.jsonl               a document in `text` of each line
    Wmdp_wikitext             the documents of a data set, from its own place or the hub
"""

from pathlib import Path

from ..core.files import UserError, read_records, read_text
from ..core.json_fields import TEXT
from ..core.registry import did_you_mean
from .row_checks import checked_row
from .sources import dataset_name, load_rows

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


def load_neutral_texts(name: str) -> list[dict]:
    """Read documents, each a row with `id` and `text`.

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
    try:
        rows = load_rows(name, None)
    except UserError as error:
        reason = str(error).partition("; its page is")[0]
        raise UserError(
            f"evaluate.neutral_text: {reason}; or name a file .txt or .jsonl of your own"
        ) from None
    documents = [{"id": row["id"], "text": row["text"]} for row in rows if "text" in row]
    if not documents:
        raise UserError(
            f"evaluate.neutral_text: {name} has questions and no documents; name a data set of documents or a"
            " file .txt or .jsonl"
        )
    return documents
