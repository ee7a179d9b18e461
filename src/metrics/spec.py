"""The contract of a metric: what it declares, what it returns."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from ..core.registry import Registry

METRICS = Registry("metric")

RUN = "run"
"""Stands for the mode of `Decoding`: where a metric lets the model think."""

MAX_LOGITS = 2**29
"""Numbers of the largest logits tensor of a scoring pass (2 GB in float32)."""

Rows = Mapping[str, Sequence[dict]]
"""Row sets by name: forget, retain, real, world, ..."""

Cells = Mapping[str, Sequence[Any]]
"""Column -> a cell per row: a number, a text, or the numbers of a row's several answers."""

Good = Literal["up", "down"]
"""Which way a metric gets better."""

ARROWS = {"up": "↑", "down": "↓"}


@dataclass(frozen=True)
class Likelihood:
    """A teacher-forced pass over the answers in `field` (one text or a list of them) of every row of set
    `rows`."""

    rows: str
    field: str


@dataclass(frozen=True)
class Generations:
    """What the model says to the questions in `field` (one text or a list) of every row of set `rows`, asked
    in a `mode` of `core.thinking.MODES`, or RUN: the one that the run decodes in."""

    rows: str
    field: str = "question"
    mode: str = "direct"


@dataclass(frozen=True)
class Fluency:
    """How likely the original model finds what was generated: log p per token of every generation."""

    of: Generations

    @property
    def rows(self) -> str:
        return self.of.rows

    @property
    def field(self) -> str:
        return self.of.field


Need = Likelihood | Generations | Fluency


@dataclass(frozen=True)
class Decoding:
    """How answers are generated: the mode where a metric lets the model think, rounds of MoreThink, sampling
    (temperature 0 is greedy)."""

    mode: str = "thinking"
    rounds: int = 2
    temperature: float = 0.0
    top_p: float = 1.0


class Judge(Protocol):
    """Reads what was thought and answered to a question."""

    name: str

    def verdicts(self, cases: "Sequence[Case]") -> Sequence[int | None]:
        """For each case the class of its trace, 1 to 4 (see `metrics.verdicts`); None where there is no
        verdict."""
        ...

    def matches(self, cases: "Sequence[Case]") -> Sequence[bool | None]:
        """For each case whether its text, an answer, means what the reference answer means; None where there
        is not a verdict."""
        ...


@dataclass(frozen=True)
class Judges:
    """Who reads what a model wrote, beside the metrics themselves."""

    judge: Judge | None = None
    similarity: Callable[[Sequence[str], Sequence[str]], list[float]] | None = None
    """The cosine of the sentence embeddings of each pair of texts."""
    entailment: Callable[[Sequence[tuple[str, str]]], list[str]] | None = None
    """The label of each (premise, hypothesis): entailment, neutral or contradiction; None when no model for
    it was named."""


@dataclass(frozen=True)
class Case:
    """A trace or an answer to be judged, with what it may give away. `text` is all that was written by the
    model."""

    id: str
    question: str
    answer: str
    text: str
    key: str | None = None
    """The fact that the answer states, word for word."""
    wrong: tuple[str, ...] = ()
    """Wrong options."""
    facts: tuple[str, ...] = ()
    """Other facts about the same thing."""


@dataclass(frozen=True)
class AnswerScore:
    """What one teacher-forced pass keeps of an answer: log p of each token and whether it was the argmax.

    The last `n_terminator` tokens end the answer (EOS, end-of-turn); likelihoods count them, as TOFU does. An
    answer that could not be scored (no token, too long) has no logp, and every figure of it is NaN, which
    makes its row unscored.
    """

    logp: np.ndarray
    hit: np.ndarray
    n_terminator: int

    @property
    def loss(self) -> float:
        """Mean NLL per token, terminator included."""
        return float(-self.logp.mean()) if len(self.logp) else math.nan

    @property
    def answer_logp(self) -> float:
        """Mean log p per token of the answer text, without its terminator."""
        text = self.logp[: len(self.logp) - self.n_terminator]
        return float(text.mean()) if len(text) else math.nan

    @property
    def prob(self) -> float:
        """exp(-loss): the geometric mean of the token probabilities."""
        return math.exp(-self.loss)


@dataclass(frozen=True)
class Value:
    """A metric's result. `value` None has a `reason`. `columns` are per-row values, in row order, for
    samples/*.jsonl."""

    value: float | None
    reason: str = ""
    n: int = 0
    unscored: int = 0
    interval: tuple[float, float] | None = None
    columns: Cells = field(default_factory=dict)


@dataclass(frozen=True)
class PerRow:
    """Per-row values to be averaged, and further columns worth keeping beside them."""

    values: Sequence[float | None]
    columns: Cells = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A registered metric; `about` is its line in the metrics page."""

    name: str
    rows: str | None
    needs: tuple[Need, ...]
    after: tuple[str, ...]
    fields: tuple[str, ...]
    judged: bool
    good: Good
    about: str
    family: str
    compute: Callable


def metric(
    key: str,
    *,
    rows: str | None = None,
    needs: Sequence[Need] = (),
    after: Sequence[str] = (),
    fields: Sequence[str] = (),
    judged: bool = False,
    good: Good,
    about: str,
    aliases: Sequence[str] = (),
) -> Callable:
    """Decorator that files a function as metric `key`. `after` names metrics whose values it reads, `fields`
    what its rows must have beside what the needs ask for; `judged` says that a judge had a part in it;
    `aliases` are names it had, which are still read."""

    def add(compute: Callable) -> Callable:
        family = compute.__module__.rpartition(".")[2]
        METRICS.register(key, *aliases)(
            Metric(key, rows, tuple(needs), tuple(after), tuple(fields), judged, good, about, family, compute)
        )
        return compute

    return add


def select(names: Sequence[str]) -> list[str]:
    """Metric keys for a list of keys and families, each with the metrics it reads first, every key once."""
    keys: list[str] = []

    def add(key: str) -> None:
        for earlier in METRICS[key].after:
            add(earlier)
        if key not in keys:
            keys.append(key)

    for name in names:
        for key in [key for key, found in METRICS.items() if found.family == name] or [
            METRICS.find(name).name
        ]:
            add(key)
    return keys


def families() -> list[str]:
    return list(dict.fromkeys(found.family for found in METRICS.values()))
