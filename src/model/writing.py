"""Texts that are written for rows in rounds, until every row has enough of them."""

from collections.abc import Callable, Sequence

CHUNK = 64
"""Texts that are asked for before what there is is saved."""


def write_in_rounds(
    rows: Sequence[dict],
    found: dict[str, list[str]],
    count: int,
    attempts: int,
    ask: Callable[[int, list[dict]], list[str | None]],
    take: Callable[[list[dict], list[str | None]], None],
    save: Callable[[], None],
) -> list[str]:
    """In each of at most `attempts` rounds, `ask(round, rows)` for as many texts as rows lack (a row stands
    there once for each), `take(rows, texts)` those that are good into `found`, and `save`. Returns the ids of
    rows that have fewer than `count` at the end."""
    poor = lambda: [row for row in rows if len(found[row["id"]]) < count]
    for attempt in range(attempts):
        asked = [row for row in poor() for _ in range(count - len(found[row["id"]]))]
        for at in range(0, len(asked), CHUNK):
            chunk = asked[at : at + CHUNK]
            take(chunk, ask(attempt, chunk))
            save()
    return [row["id"] for row in poor()]
