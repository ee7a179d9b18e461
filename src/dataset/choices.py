"""Multiple choice rows as they are measured: in lm-eval's form, and with their options in another order."""

import random
from collections.abc import Sequence

from ..core.answers import LETTERS


def lettered_prompt(row: dict) -> str:
    """The question and its lettered options up to `Answer:`, as plain text."""
    options = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"]))
    return f"{row['question'].strip()}{options}\nAnswer:"


def choice_sets(name: str, rows: Sequence[dict], head: str = "") -> dict[str, list[dict]]:
    """The sets `<name>_choices` and `<name>_choices_shuffled`.

    Args:
        name: forget or retain.
        rows: rows with id, question, choices and answer, the place of the right choice.
        head: text in front of every prompt.
    """
    return {
        f"{name}_choices": [_measured(row, head) for row in rows],
        f"{name}_choices_shuffled": [_measured(_shuffled(row), head) for row in rows],
    }


def _measured(row: dict, head: str) -> dict:
    return {
        "id": row["id"],
        "prompt": head + lettered_prompt(row),
        "letters": list(LETTERS[: len(row["choices"])]),
        "choices": row["choices"],
        "right": row["answer"],
    }


def _shuffled(row: dict) -> dict:
    """The row with its choices in an order drawn by its id, never the one they have."""
    places = list(range(len(row["choices"])))
    rng = random.Random(row["id"])
    order = places
    while order == places:
        order = rng.sample(places, len(places))
    return {**row, "choices": [row["choices"][k] for k in order], "answer": order.index(row["answer"])}
