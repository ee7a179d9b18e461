"""Rows of the fictional world in the layout of KnowUnDo, which make_fictional.py writes below the files of
the world: a whole run without network, through the loader that reads the published files.

    knowundo/copyright, knowundo/privacy     unlearn.json, retention.json: facts about works, and about lives

The people to forget are those whom the committed retain model never met.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.files import write_json
from .fictional_world import DATA_DIR, FORGET_SHARES, PEOPLE

FORGOTTEN = round(max(FORGET_SHARES.values()) * PEOPLE)
NEIGHBOURS = 20
"""People beside them whose facts are measured as kept."""
DOMAINS = {"copyright": ("craft", "work"), "privacy": ("birthplace", "teacher")}
World = Mapping[str, Sequence[dict]]


def knowundo_files(world: World) -> dict[str, list[dict]]:
    """File -> content. `train` has the questions of the facts, `val` the same facts in other words."""
    gone, kept = _people(world)
    files = {}
    for domain, relations in DOMAINS.items():
        for part, people in (("unlearn", gone), ("retention", kept)):
            facts = [row for row in world["full"] if row["person"] in people and row["relation"] in relations]
            files[f"{domain}/{part}.json"] = [
                {
                    "train": [{"text": row["question"], "labels": row["answer"]} for row in facts],
                    "val": [
                        {"text": row["rephrased_questions"][0], "labels": row["answer"]} for row in facts
                    ],
                }
            ]
    return files


def write_knowundo(world: World, folder: Path = DATA_DIR) -> None:
    """Write the files below the folder of the world."""
    for file, content in knowundo_files(world).items():
        write_json(folder / "knowundo" / file, content)


def _people(world: World) -> tuple[list[str], list[str]]:
    """Names of the people to forget, and of those beside them."""
    names = list(dict.fromkeys(row["person"] for row in world["full"]))
    return names[-FORGOTTEN:], names[-FORGOTTEN - NEIGHBOURS : -FORGOTTEN]
