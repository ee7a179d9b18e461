"""Files of texts that a model wrote, keyed by row: traces, paraphrases, alternates, perturbed answers.

    {"<kind>": 1, "model": ..., "template": ..., "settings": {...}, ...}    the header: how the texts were
    made {"id": ..., "source": ..., ...}                                         then a line per row

`source` is a fingerprint of the row's own text, so that a text never meets a row that it was not written for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.files import UserError, fingerprint, read_records
from ..core.json_fields import TEXT, Kind, check_fields

WRITERS = ("writer", "model", "template", "settings", "data")
"""Fields of a header that say how the texts were made."""
SUBJECTS = ("forget", "set")
"""Fields of a header that say which rows the file is about."""


def answer_fingerprint(row: dict) -> str:
    """A fingerprint of a row: its question (or prompt) and answer, or its text."""
    if "text" in row:
        return fingerprint(row["text"])
    return fingerprint(row.get("question") or row["prompt"], row["answer"])


@dataclass(frozen=True)
class GeneratedFile:
    """One kind of such files.

    Args:
        kind: the field of the header that holds the version.
        key: the setting that names the file, for errors.
        script: the script that writes it.
        fields: what a line must have, with what its kind is.
        optional: what a line may have.
        row: the field of a line that names its row.
        source: the fingerprint of a row.
    """

    kind: str
    key: str
    script: str
    fields: Mapping[str, Kind]
    optional: Mapping[str, Kind] = field(default_factory=dict)
    row: str = "id"
    source: Callable[[dict], str] = answer_fingerprint
    version: int = 1

    def header(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The first line of a file whose texts are made in the way of `facts`."""
        return {self.kind: self.version, **facts}

    def read(self, path: Path) -> tuple[dict, list[dict]]:
        """The header and the lines of a file. UserError without a header of this version, or naming the line
        and field that is wrong."""
        try:
            records = read_records(path)
        except UserError as error:
            raise UserError(f"{self.key}: {error}; expected a file of {self.script}") from None
        return self.checked(path, records)

    def checked(self, path: Path, records: Sequence[tuple[str, dict]]) -> tuple[dict, list[dict]]:
        """As `read`, of records that were read already, each with its place."""
        found = records[0][1].get(self.kind) if records else None
        if found != self.version:
            what = f"(version {self.version}): its first line has no such header"
            if isinstance(found, int):
                what = f"(version {found}, this one is {self.version})"
            raise UserError(f"{self.key}: {path} is not a file of {self.script} {what}")
        self.check_lines(records[1:])
        return records[0][1], [line for _, line in records[1:]]

    def check_lines(self, records: Sequence[tuple[str, dict]]) -> None:
        """UserError naming the first line and field that is wrong."""
        advice = f"; write the file anew with {self.script}"
        for place, line in records:
            check_fields(f"{self.key}: {place}", line, self.fields, self.optional, advice)

    def by_row(
        self, path: Path, lines: Sequence[dict], rows: Sequence[dict], cut: str = ""
    ) -> list[list[dict]]:
        """The lines of each row. UserError when a row has none, or one that was written for another text;
        `cut` is what else may differ then."""
        found: dict[str, list[dict]] = {}
        for line in lines:
            found.setdefault(line[self.row], []).append(line)
        missing = [row["id"] for row in rows if row["id"] not in found]
        if missing:
            raise UserError(
                f"{self.key}: {path} has no line for {len(missing)} of {len(rows)} forget rows (first"
                f" {missing[0]!r}); {self.script} with the same config writes them"
            )
        # Files of other origin need no source.
        strange = [
            row["id"]
            for row in rows
            if found[row["id"]][0].get("source", self.source(row)) != self.source(row)
        ]
        if strange:
            raise UserError(
                f"{self.key}: {path} was written for another data set{cut}: {strange[0]!r} has another text"
                f" there ({len(strange)} of {len(rows)} rows); write the file of this one with {self.script}"
            )
        return [found[row["id"]] for row in rows]

    def begun(self, path: Path, header: dict, rows: Sequence[dict]) -> list[dict]:
        """The lines of a file that an earlier run began; none without a file.

        Args:
            path: the file.
            header: the one that this run would write.
            rows: all rows that the file may be about.

        Raises:
            UserError: when the file was written in another way or for other rows: texts of two makings in one
                file would pass for one.
        """
        if not path.is_file() or not path.stat().st_size:
            return []
        began, lines = self.read(path)
        changed = [name for name in WRITERS if began.get(name) != header.get(name)]
        sources = {row["id"]: self.source(row) for row in rows}
        strange = any(sources.get(line[self.row]) != line.get("source") for line in lines)
        if changed or strange or any(began.get(name) != header.get(name) for name in SUBJECTS):
            what = f"with other {' and other '.join(changed)}" if changed else "for other rows"
            raise UserError(
                f"{self.key}: {path} was written {what}; choose another file, or delete it to write it anew"
            )
        return lines


SOURCE = {"id": TEXT, "source": TEXT}
"""What every line has."""
