"""Texts that are written for rows in rounds, until every row has enough of them."""

from collections.abc import Callable, Sequence

from model.progress import progress

Ask = Callable[[int, list[dict], Callable[[int], None]], list[str | None]]
"""Writes a text for each of the rows given, in a round; adds to the texts done."""

CHUNK = 64
"""Texts that are asked for before what there is is saved."""


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
