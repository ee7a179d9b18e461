"""The same question about another subject: what a model answers there is what it would guess here."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

NAMES = """Adela Bertil Carina Desmond Elvira Florian Greta Hannes Imelda Joachim Katrin Lorenz
Mathilde Norbert Ottilie Pascal Regina Sverre Therese Valentin Winifred Zacharias""".split()
FAMILY = """Abernathy Birchwood Calloway Dornfeld Eastlake Fairbairn Goodacre Hargrove Islington
Jorgensen Kirkwood Lindqvist Merriweather Northcote Oldfield Penhallow Rosenthal Silverdale Tannenberg
Wetherby""".split()
ENOUGH = 4
"""Different names of the rows, from which their parts are enough to make others of the same kind."""
RUN = re.compile(r"[^\W\d_a-z][\w'’-]*(?: [^\W\d_a-z][\w'’-]*)*")


def proper_names(text: str) -> list[str]:
    """Names within a text: runs of capitalised words behind its first word, as they stand."""
    _, _, rest = text.partition(" ")
    runs = [run.removesuffix("'s").removesuffix("’s") for run in RUN.findall(rest)]
    return [run for run in runs if len(run) > 1]


@dataclass(frozen=True)
class Renamed:
    """A question about another subject.

    Args:
        question: the question.
        names: other name -> the name that it stands for.
    """

    question: str
    names: dict[str, str]

    def back(self, text: str) -> str:
        """An answer, about the first subject again."""
        for other, name in self.names.items():
            text = text.replace(other, name)
        return text


class OtherSubjects:
    """Puts other names and numbers into questions. New names are made of the parts of those that the rows
    have, so that they are of the same kind; where there are few, of a list of names.

    Args:
        questions: of all rows.
    """

    def __init__(self, questions: Sequence[str]):
        self.known = {name for question in questions for name in proper_names(question)}
        several = [name.split() for name in sorted(self.known) if " " in name]
        enough = len(several) >= ENOUGH
        self.first = sorted({parts[0] for parts in several}) if enough else NAMES
        self.last = sorted({parts[-1] for parts in several}) if enough else FAMILY

    def ask(self, question: str, draw: random.Random) -> Renamed | None:
        """The question about another subject. None where it has neither a name nor a number."""
        names, changed = {}, question
        for name in sorted(set(proper_names(question)), key=len, reverse=True):
            other = self._other(name, draw)
            names[other] = name
            changed = changed.replace(name, other)
        changed = re.sub(r"\d+", lambda found: str(int(found[0]) + draw.randint(1, 9)), changed)
        return Renamed(changed, names) if changed != question else None

    def _other(self, name: str, draw: random.Random) -> str:
        """A name of as many words that no row has."""
        while True:
            first, last = draw.choice(self.first), draw.choice(self.last)
            middle = [draw.choice(FAMILY) for _ in name.split()[2:]]
            other = " ".join([first, *middle, last]) if " " in name else draw.choice(NAMES)
            if other not in self.known:
                return other
