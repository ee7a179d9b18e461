"""Texts that a model writes for rows (paraphrases, perturbed answers, alternates): files that an interrupted
run goes on with, and rounds until every row has enough."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ...core.files import UserError
from ...dataset.paraphrases import source_fingerprint
from ..run.progress import progress

Ask = Callable[[int, list[dict], Callable[[int], None]], list[str | None]]
"""Writes a text for each of the rows given, in a round; adds to the texts done."""

CHUNK = 64
"""Texts that are asked for before what there is is saved."""


def begun_lines(
    path: Path,
    first: dict,
    rows: Sequence[dict],
    key: str,
    read: Callable[[Path], tuple[dict, list[dict]]],
) -> dict[str, dict]:
    """The lines by row id of a file that an earlier run began; none without a file.

    Args:
        path: the file.
        first: the header that this run would write.
        rows: all rows that the file may be about.
        key: the setting that names the file, for errors.
        read: gives header and lines; UserError when the file is of another kind or broken.

    Raises:
        UserError: when the file was written in another way or for other rows.
    """
    if not path.is_file() or not path.stat().st_size:
        return {}
    began, found = read(path)
    changed = [
        name for name in ("writer", "model", "template", "settings") if began.get(name) != first.get(name)
    ]
    sources = {row["id"]: source_fingerprint(row) for row in rows}
    lines = {line["id"]: line for line in found}
    strange = any(sources.get(identity) != line.get("source") for identity, line in lines.items())
    if changed or strange or any(began.get(name) != first.get(name) for name in ("forget", "set")):
        what = f"with other {' and other '.join(changed)}" if changed else "for other rows"
        raise UserError(
            f"{key}: {path} was written {what}; choose another file, or delete it to write it anew"
        )
    return lines


def write_in_rounds(
    rows: Sequence[dict],
    found: dict[str, list[str]],
    count: int,
    attempts: int,
    ask: Ask,
    take: Callable[[list[dict], list[str | None]], None],
    save: Callable[[], None],
    title: str,
    quiet: bool,
) -> list[str]:
    """In each of at most `attempts` rounds, `ask(round, rows, on_rows)` for as many texts as rows lack (a row
    stands there once for each), `take(rows, texts)` those that are good into `found`, and `save`. Each round
    is a phase of this `title` on the screen. Returns the ids of rows that have fewer than `count` at the end.
    """
    poor = lambda: [row for row in rows if len(found[row["id"]]) < count]
    for attempt in range(attempts):
        asked = [row for row in poor() for _ in range(count - len(found[row["id"]]))]
        if not asked:
            break
        with progress(f"{title}, round {attempt + 1} of {attempts}", quiet, len(asked)) as on_rows:
            for at in range(0, len(asked), CHUNK):
                chunk = asked[at : at + CHUNK]
                take(chunk, ask(attempt, chunk, on_rows))
                save()
    return [row["id"] for row in poor()]
