"""Results of a model for single texts, kept on disk batch by batch: an interrupted evaluation resumes where
it was, another one with the same model computes only what is new, and equal prompts are read once.
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import fingerprint
from ..core.generation import Generation
from .spec import AnswerScore

log = logging.getLogger(__name__)


class PassCache:
    """Results of one model's passes by fingerprint of what was asked, kept in a file of JSON lines.

    Each line has its own checksum. A line that a killed run cut, or that was changed, is left out and
    computed again.

    Args:
        folder: Folder of the model's results; None keeps them in memory alone.
        writer: Name of this process's own file in the folder. The files of all processes are read.
    """

    def __init__(self, folder: Path | None = None, writer: str = "0"):
        self.path = folder / f"passes-{writer}.jsonl" if folder else None
        self.found: dict[str, Any] = {}
        for path in sorted(folder.glob("passes-*.jsonl")) if folder else ():
            self.found |= _read(path)

    def score(self, key: str, moments: bool) -> AnswerScore | None:
        """A kept score; None where there is none, or one without the moments that are asked for."""
        kept = self.found.get(key)
        if kept is None or (moments and "mean" not in kept):
            return None
        columns = [np.array(kept[name]) for name in ("mean", "variance") if name in kept]
        return AnswerScore(np.array(kept["logp"]), np.array(kept["hit"], bool), kept["end"], *columns)

    def add_scores(self, scores: Mapping[str, AnswerScore]) -> None:
        """Keep scores by key; those that are not finite are left out."""
        self._add({key: _score_cells(score) for key, score in scores.items() if _is_finite(score)})

    def generation(self, key: str) -> Generation | None:
        kept = self.found.get(key)
        return Generation(**{**kept, "ids": tuple(kept["ids"])}) if kept else None

    def add_generations(self, texts: Mapping[str, Generation]) -> None:
        self._add({key: {**vars(text), "ids": list(text.ids)} for key, text in texts.items()})

    def number(self, key: str) -> float | None:
        return self.found.get(key)

    def add_numbers(self, numbers: Mapping[str, float]) -> None:
        self._add({key: value for key, value in numbers.items() if math.isfinite(value)})

    def _add(self, values: Mapping[str, Any]) -> None:
        self.found |= values
        if not self.path or not values:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps([key, value, fingerprint(key, value)]) for key, value in values.items()]
        # In one write, so that lines of two runs on one model do not mix. The line break comes first: a line
        # that a killed run cut then ends there.
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(f"\n{line}" for line in lines))


def _score_cells(score: AnswerScore) -> dict[str, Any]:
    cells = {"logp": score.logp.tolist(), "hit": score.hit.astype(int).tolist(), "end": score.n_terminator}
    if len(score.mean):
        cells |= {"mean": score.mean.tolist(), "variance": score.variance.tolist()}
    return cells


def _is_finite(score: AnswerScore) -> bool:
    return all(bool(np.isfinite(column).all()) for column in (score.logp, score.mean, score.variance))


def _read(path: Path) -> dict[str, Any]:
    """Key -> value of the whole lines of a file."""
    with path.open(encoding="utf-8", errors="replace") as file:
        parsed = list(_parsed(file))
    whole = dict(filter(None, parsed))
    if broken := parsed.count(None):
        log.warning("%s: %d lines are not as they were written; their texts are measured again", path, broken)
    return whole


def _parsed(lines: Iterable[str]) -> Iterable[tuple[str, Any] | None]:
    """Key and value of each line; None for a broken one."""
    for line in lines:
        if not line.strip():
            continue
        try:
            key, value, checksum = json.loads(line)
            yield (key, value) if checksum == fingerprint(key, value) else None
        except (ValueError, TypeError):
            yield None
