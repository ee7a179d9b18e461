"""Paraphrases of the forget answers (make_paraphrases.py): a line per answer, or per piece of a document,
with `question`, `paraphrases` and how many texts were `rejected`, by reason."""

import logging
from collections.abc import Sequence
from pathlib import Path

from ..core.json_fields import COUNT, Kind
from .generated_file import SOURCE, GeneratedFile
from .row_checks import TEXTS_OR_NONE

log = logging.getLogger(__name__)

REJECTED = Kind(
    "an object of counts", lambda value: isinstance(value, dict) and all(map(COUNT.holds, value.values()))
)
"""How many texts were not kept, by reason."""

PARAPHRASES = GeneratedFile(
    kind="paraphrases",
    key="dataset.paraphrases",
    script="make_paraphrases.py",
    fields={**SOURCE, "paraphrases": TEXTS_OR_NONE},
    optional={"rejected": REJECTED},
)


def read_paraphrases(path: Path, rows: Sequence[dict], count: int, shortest: bool = False) -> list[list[str]]:
    """For every row at most `count` paraphrases, the first or the shortest of its line. UserError when the
    file was not written for these rows; a warning where a row has fewer than two."""
    pieces = " or cut into other pieces (dataset.max_length, long_text, tokenizer)"
    cut = pieces if rows and "text" in rows[0] else ""
    lines = PARAPHRASES.by_row(path, PARAPHRASES.read(path)[1], rows, cut)
    written = [line["paraphrases"] for (line, *_) in lines]
    found = [(sorted(texts, key=len) if shortest else texts)[:count] for texts in written]
    poor = [row["id"] for row, texts in zip(rows, found) if len(texts) < 2]
    if poor:
        log.warning(
            "dataset.paraphrases: %d of %d forget rows have fewer than two paraphrases (first %r): nothing"
            " can agree there",
            len(poor),
            len(rows),
            poor[0],
        )
    return found
