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
        self.found: dict[str, AnswerScore | Generation | float] = {}
        for path in sorted(folder.glob("passes-*.jsonl")) if folder else ():
            self.found |= _read(path)

    def score(self, key: str, moments: bool) -> AnswerScore | None:
        """A kept score; None where there is none, or one without the moments that are asked for."""
        kept = self.found.get(key)
        return kept if isinstance(kept, AnswerScore) and (len(kept.mean) or not moments) else None

    def add_scores(self, scores: Mapping[str, AnswerScore]) -> None:
        """Keep scores by key; those that are not finite are left out."""
        self._add({key: score for key, score in scores.items() if _is_finite(score)})

    def generation(self, key: str) -> Generation | None:
        kept = self.found.get(key)
        return kept if isinstance(kept, Generation) else None

    def add_generations(self, texts: Mapping[str, Generation]) -> None:
        self._add(texts)

    def number(self, key: str) -> float | None:
        kept = self.found.get(key)
        return kept if isinstance(kept, float) else None

    def add_numbers(self, numbers: Mapping[str, float]) -> None:
        self._add({key: value for key, value in numbers.items() if math.isfinite(value)})

    def _add(self, values: Mapping[str, Any]) -> None:
        self.found |= values
        if not self.path or not values:
            return
        cells = {key: _cells(value) for key, value in values.items()}
        lines = [json.dumps([key, value, fingerprint(key, value)]) for key, value in cells.items()]
        # In one write, so that lines of two runs on one model do not mix. The line break comes first: a line
        # that a killed run cut then ends there.
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(f"\n{line}" for line in lines))
        except OSError as error:
            log.warning(
                "%s cannot be written (%s): an interrupted evaluation would begin anew",
                self.path,
                error.strerror,
            )
            self.path = None


def _cells(value: AnswerScore | Generation | float) -> Any:
    """A value as plain JSON."""
    if isinstance(value, Generation):
        return {**vars(value), "ids": list(value.ids)}
    if isinstance(value, AnswerScore):
        hit = value.hit.astype(int).tolist()
        cells = {"logp": value.logp.tolist(), "hit": hit, "n_terminator": value.n_terminator}
        moments = {"mean": value.mean.tolist(), "variance": value.variance.tolist()}
        return cells | (moments if len(value.mean) else {})
    return value


def _value(cells: Any) -> AnswerScore | Generation | float:
    """The value that `_cells` wrote."""
    if not isinstance(cells, dict):
        return float(cells)
    if "text" in cells:
        return Generation(**{**cells, "ids": tuple(cells["ids"])})
    moments = {name: np.array(cells[name]) for name in ("mean", "variance") if name in cells}
    return AnswerScore(
        np.array(cells["logp"]), np.array(cells["hit"], bool), cells["n_terminator"], **moments
    )


def _is_finite(score: AnswerScore) -> bool:
    return all(bool(np.isfinite(column).all()) for column in (score.logp, score.mean, score.variance))


def _read(path: Path) -> dict[str, AnswerScore | Generation | float]:
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
            yield (key, _value(value)) if checksum == fingerprint(key, value) else None
        except (ValueError, TypeError):
            yield None
