"""Texts that a model writes for rows, in rounds until every row has enough."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.files import fingerprint
from ..run.progress import progress

Ask = Callable[[list[dict], Callable[[int], None]], list]
"""Writes a text for each of the rows given; the last argument is called with the rows done."""

CHUNK = 64
"""Texts that are asked for before the file is written again: what an interruption can lose."""


@dataclass(frozen=True)
class Rounds:
    """How many texts a row needs and how often they are asked for; each round is a phase on the screen."""

    count: int
    attempts: int
    title: str
    quiet: bool

    def fill(
        self,
        rows: Sequence[dict],
        found: Mapping[str, list],
        ask: Ask,
        take: Callable[[list[dict], list[Any]], None],
        save: Callable[[], None],
    ) -> list[str]:
        """Ask for as many texts as rows lack until every row has enough.

        Args:
            rows: what the texts are for, each with an `id`.
            found: id -> the texts that are good so far.
            ask: writes texts; a row stands among its rows once for each text that it lacks.
            take: puts those that are good into `found`.
            save: writes the file.

        Returns:
            The ids of rows that have fewer than `count` texts at the end.
        """
        for attempt in range(self.attempts):
            asked = [row for row in rows for _ in range(self.count - len(found[row["id"]]))]
            if not asked:
                break
            round_of = f", round {attempt + 1} of {self.attempts}" if self.attempts > 1 else ""
            with progress(f"{self.title}{round_of}", self.quiet, len(asked)) as on_rows:
                for at in range(0, len(asked), CHUNK):
                    chunk = asked[at : at + CHUNK]
                    take(chunk, ask(chunk, on_rows))
                    save()
        return [row["id"] for row in rows if len(found[row["id"]]) < self.count]


def turns(rows: Sequence[dict], tried: Mapping[str, int]) -> list[int]:
    """For each of `rows` how many texts were tried for it before, by earlier runs too (`tried`); a row may
    stand there several times."""
    here: Counter = Counter()
    found = []
    for row in rows:
        found.append(tried.get(row["id"], 0) + here[row["id"]])
        here[row["id"]] += 1
    return found


def text_seeds(
    seed: int, rows: Sequence[dict], prompts: Sequence[list[int]], turns: Sequence[int]
) -> list[int]:
    """A seed for each sampled text, of its row, prompt and turn alone: a resumed run writes the texts that
    the interrupted one would have written, although it asks for them in other chunks."""
    return [
        int(fingerprint(seed, row["id"], prompt, turn), 16)
        for row, prompt, turn in zip(rows, prompts, turns, strict=True)
    ]
