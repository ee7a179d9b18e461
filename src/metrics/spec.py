"""Contract of a metric: its declaration, its needs, its result."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol

import numpy as np

from ..core.registry import Registry

METRICS = Registry("metric")

RUN = "run"
"""In place of a mode: the mode of the run's `Decoding`."""

MAX_LOGITS = 2**29
"""Most elements of the logits tensor of a scoring pass (2 GB in float32)."""

CPU_SCORE_TOKENS = 512
"""Padded tokens of a batch of scored answers on a CPU, which is fastest with what stays in its caches."""

Rows = Mapping[str, Sequence[dict]]
"""Row sets by name: forget, retain, real, world, ..."""

Cells = Mapping[str, Sequence[Any]]
"""Column -> a cell per row: a number, a text, or the numbers of a row's several answers."""

Good = Literal["up", "down"]
"""Direction in which a metric gets better."""

ALL = "all"
"""Stands for every family in `evaluate.metrics`."""

ARROWS = {"up": "↑", "down": "↓"}

OPEN_UNLEARNING_PAPER = "OpenUnlearning (arXiv:2506.12618)"
"""Source of the metrics that this toolkit brought in."""


@dataclass(frozen=True)
class Likelihood:
    """Need: a teacher-forced pass over the answers in `field` (a text or a list of them) of every row of set
    `rows`.

    Args:
        rows: Row set.
        field: Field of its rows; `text` is a document, all of whose tokens but the first are scored, as far
            as `dataset.max_length` reaches.
        moments: Whether mean and variance of log p under the model's own distribution are needed too.
        prefix: Row set whose first `PREFIX_ROWS` rows stand before every question, as text; none if empty.
    """

    rows: str
    field: str
    moments: bool = False
    prefix: str = ""


PREFIX_ROWS = 3
"""Rows of a prefix, see `Likelihood`."""


@dataclass(frozen=True)
class Documents:
    """Need: a teacher-forced pass over the whole of every document of row set `rows`, in pieces of
    `dataset.max_length` tokens."""

    rows: str
    field: str = "text"


@dataclass(frozen=True)
class GradientNorm:
    """Need: L2 norm of the gradient of each row's loss with respect to all weights."""

    rows: str
    field: str


@dataclass(frozen=True)
class Generations:
    """Need: texts generated for the questions in `field` (a text or a list of them) of every row of set
    `rows`.

    Args:
        rows: Row set.
        field: Field of its rows; `prompt` is a text that the model continues, without a template.
        mode: One of `core.thinking.MODES`, or RUN: the mode of the run's `Decoding`.
        most: Most tokens of a text, where fewer than `evaluate.max_new_tokens` are enough; 0 is that many.
        stops: Strings in front of which a text ends.
    """

    rows: str
    field: str = "question"
    mode: str = "direct"
    most: int = 0
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Samples:
    """Need: `Sampling.count` answers, sampled without a reasoning trace, to the questions in `field` (a text
    or a list of them) of every row of set `rows`."""

    rows: str
    field: str = "question"


@dataclass(frozen=True)
class Fluency:
    """Need: mean log p per token of generated texts under the original model."""

    of: Generations

    @property
    def rows(self) -> str:
        return self.of.rows

    @property
    def field(self) -> str:
        return self.of.field


Need = Likelihood | Documents | GradientNorm | Generations | Samples | Fluency


@dataclass(frozen=True)
class Decoding:
    """Decoding of a run.

    Args:
        mode: One of `core.thinking.MODES`, for metrics that let the model think.
        rounds: Rounds of MoreThink.
        temperature: Sampling temperature; 0 is greedy.
        top_p: Probability mass that is sampled from.
    """

    mode: str = "thinking"
    rounds: int = 2
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Sampling:
    """Answers sampled for the metrics of family `sampling`.

    Args:
        count: Answers to each question; 0 is none.
        temperature: Temperature, above 0.
        top_p: Probability mass that is sampled from.
        seed: Seed of all answers; an answer depends on it, its row, its question and its number.
    """

    count: int = 0
    temperature: float = 1.0
    top_p: float = 0.9
    seed: int = 0


class Judge(Protocol):
    """Judge of reasoning traces and answers."""

    name: str

    def verdicts(self, cases: "Sequence[Case]") -> Sequence[int | None]:
        """Classify the trace of each case.

        Returns:
            A class per case, 1 to 4 (see `metrics.verdicts`); None without a verdict.
        """
        ...

    def matches(self, cases: "Sequence[Case]") -> Sequence[bool | None]:
        """Compare the answer of each case with its reference answer.

        Returns:
            Whether the two mean the same, per case; None without a verdict.
        """
        ...


@dataclass(frozen=True)
class Judges:
    """Models that read generated texts."""

    judge: Judge | None = None
    similarity: Callable[[Sequence[str], Sequence[str]], list[float]] | None = None
    """The cosine of the sentence embeddings of each pair of texts."""
    entailment: Callable[[Sequence[tuple[str, str]]], list[str]] | None = None
    """Label of each (premise, hypothesis): entailment, neutral or contradiction; None without
    `judge.nli_model`."""
    toxicity: Callable[[Sequence[str]], Sequence[float | None]] | None = None
    """The probability that each text is toxic, by `evaluate.toxicity_model`, else by a judge that is a
    language model; None without either."""
    toxicity_by: str = ""
    """What gives the toxicity."""


@dataclass(frozen=True)
class Case:
    """A trace or an answer to be judged, with the secrets of its row.

    Args:
        id: Id of the row.
        question: Question of the row.
        answer: Reference answer.
        text: Generated trace or answer; all that the model contributed.
        key: Key fact of the answer, verbatim; None where the data set has none.
        wrong: Wrong options.
        facts: Other facts about the same subject.
    """

    id: str
    question: str
    answer: str
    text: str
    key: str | None = None
    wrong: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnswerScore:
    """Scores of one answer.

    An answer that could not be scored (no token, too long) has an empty `logp`, and every figure of it is
    NaN, which makes its row unscored.

    Args:
        logp: log p of each token, natural logarithm, [N].
        hit: Whether each token was the argmax, [N].
        n_terminator: Number of last tokens that end the answer (EOS, end of turn). `loss` and `prob` count
            them, as TOFU does.
        mean: Mean of log p under the model's own distribution at each token, [N]; empty where it was not
            asked for.
        variance: Variance of log p likewise, [N].
    """

    logp: np.ndarray
    hit: np.ndarray
    n_terminator: int
    mean: np.ndarray = field(default_factory=lambda: np.empty(0))
    variance: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def n_text(self) -> int:
        """Tokens of the answer text, without its terminator."""
        return len(self.logp) - self.n_terminator

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood per token, terminator included: -1/N sum log p."""
        return float(-self.logp.mean()) if len(self.logp) else math.nan

    @property
    def answer_logp(self) -> float:
        """Mean log p per token of the answer text, without its terminator."""
        text = self.logp[: self.n_text]
        return float(text.mean()) if len(text) else math.nan

    @property
    def prob(self) -> float:
        """exp(-loss): the geometric mean of the token probabilities."""
        return math.exp(-self.loss)

    def without_last(self) -> "AnswerScore":
        """The score without the last token of the text."""
        return replace(self, n_terminator=min(self.n_terminator + 1, len(self.logp)))


@dataclass(frozen=True)
class Value:
    """Result of a metric.

    Args:
        value: The figure; None with a `reason`.
        reason: Why there is no value, or what it leaves out, or the sentence that it stands for.
        n: Number of rows behind the value.
        unscored: Number of rows that could not be scored.
        interval: 95 % interval over rows, see `resampling`.
        columns: Column -> cell per row, in row order, for samples/*.jsonl.
        details: Further figures that explain the value, for metrics_detail.json.
        resamples: The figure of each bootstrap sample, [resamples]; empty without an interval.
    """

    value: float | None
    reason: str = ""
    n: int = 0
    unscored: int = 0
    interval: tuple[float, float] | None = None
    columns: Cells = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    resamples: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)


@dataclass(frozen=True)
class PerRow:
    """Per-row values (None: unscored) whose mean is the metric, further columns for samples/*.jsonl, and
    further figures for metrics_detail.json."""

    values: Sequence[float | None]
    columns: Cells = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OfSamples:
    """A figure of several samples of rows, such as an AUC. Its interval resamples the rows of each sample.

    Args:
        figure: The figure of one array of values per sample.
        samples: Values of each sample, a number or an array per row; unscored rows left out.
        unscored: Rows left out of all samples.
        details: As in `Value`.
    """

    figure: Callable[..., float]
    samples: Sequence[np.ndarray]
    unscored: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class About:
    """What a metric measures, for docs/metrics.md and `--help METRIC`.

    Metrics with equal declarations, such as one figure on several row sets, share a line of the page. All but
    `other_toolkits` must be given, see `metric`.

    Args:
        formula: How the figure is computed, with the mean that is taken.
        range: Least and largest value, and values with a meaning, such as chance.
        blind_spot: What the figure cannot see, and what moves it beside the thing it measures.
        source: Where the formula comes from: paper with arXiv id, code base, or "this project".
        other_toolkits: How other code computes it under this or another name; empty where nothing is known.
    """

    formula: str = ""
    range: str = ""
    blind_spot: str = ""
    source: str = ""
    other_toolkits: str = ""

    @property
    def lacking(self) -> list[str]:
        """Names of the parts that must be given and are empty."""
        needed = [item.name for item in fields(self) if item.name != "other_toolkits"]
        return [name for name in needed if not getattr(self, name).strip()]


@dataclass(frozen=True)
class Metric:
    """A registered metric, see `metric`. `compute` is its function; `column` names its per-row values."""

    name: str
    rows: str | None
    needs: tuple[Need, ...]
    after: tuple[str, ...]
    fields: tuple[str, ...]
    judged: bool
    good: Good
    about: About
    family: str
    compute: Callable
    column: str
    benchmarks: bool = False

    @property
    def is_share(self) -> bool:
        """Whether its values lie between 0 and 1, by its declared range."""
        return bool(re.match(r"0 to 1(?!\d)", self.about.range))


def metric(
    key: str,
    *,
    rows: str | None = None,
    needs: Sequence[Need] = (),
    after: Sequence[str] = (),
    fields: Sequence[str] = (),
    judged: bool = False,
    good: Good,
    about: About,
    aliases: Sequence[str] = (),
    column: str = "",
    family: str = "",
    benchmarks: bool = False,
) -> Callable:
    """Register a function as a metric (decorator).

    The function takes `MetricInputs` and returns a list with a number or None (unscored) per row of `rows`, a
    `PerRow`, an `OfSamples`, or a `Value`. It runs only where all needs are met.

    Args:
        key: Name in metrics.json.
        rows: Row set that per-row values belong to; None for a metric of several sets.
        needs: Scores and generated texts that it reads.
        after: Keys of metrics whose values it reads; they are computed first.
        fields: Fields that its rows must have beside those of the needs.
        judged: Whether a judge's verdicts enter it.
        good: Direction in which it gets better.
        about: Formula, range, blind spot, source, other toolkits.
        aliases: Earlier names, which configs may still use.
        column: Name of its per-row values in samples/*.jsonl; by default the key behind the slash.
        family: Name under which it is chosen with others; by default the module that defines it.
        benchmarks: Whether it reads figures of the run's benchmarks, see `MetricInputs.benchmarks`.

    Raises:
        ValueError: `good` is no direction, or a part of `about` is missing.
    """

    if good not in ARROWS:
        raise ValueError(f"metric {key}: good must be one of {', '.join(ARROWS)}, not {good!r}")
    if not isinstance(about, About):
        raise ValueError(f"metric {key}: about must be an About, not {about!r}")
    if about.lacking:
        raise ValueError(f"metric {key}: about lacks {', '.join(about.lacking)}")

    def add(compute: Callable) -> Callable:
        group = family or compute.__module__.rpartition(".")[2]
        cells = column or key.partition("/")[2]
        reads = tuple(needs), tuple(after), tuple(fields)
        found = Metric(key, rows, *reads, judged, good, about, group, compute, cells, benchmarks)
        METRICS.register(key, *aliases)(found)
        return compute

    return add


def select(names: Sequence[str]) -> list[str]:
    """Metric keys for a list of keys and families: each once, after the metrics whose values it reads.
    UserError for an unknown name."""
    keys: list[str] = []

    def add(key: str) -> None:
        for earlier in METRICS[key].after:
            add(earlier)
        if key not in keys:
            keys.append(key)

    for name in names:
        members = [key for key, found in METRICS.items() if name in (found.family, ALL)]
        for key in members or [METRICS.proper(name)]:
            add(key)
    return keys


def families() -> list[str]:
    """Families in order of registration."""
    return list(dict.fromkeys(found.family for found in METRICS.values()))
