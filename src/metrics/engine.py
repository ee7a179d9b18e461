"""The contract of a metric, and the passes over the model that feed all of them.

A metric names the row set it looks at and what it needs of it; each need is met once, for all metrics that share it, and
handed over as `Evidence`. Adding a metric is a function in one file:

    @metric("forget/prob", rows="forget", needs=[Likelihood("forget", "answer")], good="down", about="...")
    def prob(evidence):
        return [answers[0].prob for answers in evidence.likelihood("forget", "answer")]

It returns one number or None per row of its set (None: this row cannot be scored; it is counted as unscored and left out
of the mean, never counted as forgotten), or a `Value` where the summary is not a mean over rows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from core.encoding import Encoded, Template, pad_rows
from core.files import UserError
from core.generation import Generation, generate, length_batches, pad_id
from core.likelihood import shifted
from core.registry import Registry

METRICS = Registry("metric")

LOGITS = 2**29
"""Numbers of the largest logits tensor of a scoring pass (2 GB in float32)."""

Rows = Mapping[str, Sequence[dict]]
"""Row sets by name: forget, retain, real, world, ..."""


# --- What a metric can ask for ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Likelihood:
    """A teacher-forced pass over the answers in `field` (one text or a list of them) of every row of set `rows`."""

    rows: str
    field: str


@dataclass(frozen=True)
class Generations:
    """Greedy answers to the questions in `field` (one text or a list) of every row of set `rows`."""

    rows: str
    field: str = "question"
    thinking: bool = False


Need = Likelihood | Generations


@dataclass(frozen=True)
class AnswerScore:
    """What one teacher-forced pass keeps of an answer: log p of each token and whether it was the argmax.

    The last `n_terminator` tokens end the answer (EOS, end-of-turn); likelihoods count them, as TOFU does. An answer that
    could not be scored (no token, too long) has no logp, and every figure of it is NaN, which makes its row unscored."""

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
        text = self.logp[:len(self.logp) - self.n_terminator]
        return float(text.mean()) if len(text) else math.nan

    @property
    def prob(self) -> float:
        """exp(-loss): the geometric mean of the token probabilities."""
        return math.exp(-self.loss)


@dataclass(frozen=True)
class Value:
    """A metric's result. `value` None has a `reason`. `columns` are per-row values, in row order, for samples/*.jsonl."""

    value: float | None
    reason: str = ""
    n: int = 0
    unscored: int = 0
    interval: tuple[float, float] | None = None
    columns: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class PerRow:
    """Per-row values to be averaged, and further columns worth keeping beside them."""

    values: Sequence[float | None]
    columns: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A registered metric; `about` is its line in the metrics page."""

    name: str
    rows: str | None
    needs: tuple[Need, ...]
    after: tuple[str, ...]
    good: Literal["up", "down"]
    about: str
    family: str
    compute: Callable


def metric(key: str, *, rows: str | None = None, needs: Sequence[Need] = (), after: Sequence[str] = (),
           good: Literal["up", "down"], about: str) -> Callable:
    """Decorator that files a function as metric `key`. `after` names metrics whose values it reads."""

    def add(compute: Callable) -> Callable:
        family = compute.__module__.rpartition(".")[2]
        METRICS.register(key)(Metric(key, rows, tuple(needs), tuple(after), good, about, family, compute))
        return compute

    return add


# --- Meeting the needs ------------------------------------------------------------------------------------------------

class Evidence:
    """What metrics read: rows, scores and generations by need, values of earlier metrics, a retain model's rows."""

    def __init__(self, rows: Rows, retain_columns: Mapping[str, Mapping[str, Mapping[str, float]]] | None):
        self.rows = rows
        self.scores: dict[Likelihood, list[list[AnswerScore]]] = {}
        self.texts: dict[Generations, list[list[Generation]]] = {}
        self.values: dict[str, Value] = {}
        self.retain_columns = retain_columns
        """Of the retain model: row set -> row id -> column -> value; None without `evaluate.retain_results`."""

    def likelihood(self, rows: str, field: str) -> list[list[AnswerScore]]:
        """For each row, the scores of its answers in `field`."""
        return self.scores[Likelihood(rows, field)]

    def generations(self, rows: str, field: str = "question", thinking: bool = False) -> list[list[Generation]]:
        """For each row, the answers to its questions in `field`."""
        return self.texts[Generations(rows, field, thinking)]

    def value(self, key: str) -> float | None:
        return self.values[key].value


def texts_of(row: dict, field: str) -> list[str]:
    return row[field] if isinstance(row[field], list) else [row[field]]


class Passes:
    """Runs needs on one model. `batch_tokens` bounds the padded tokens of a batch."""

    def __init__(self, model, tokenizer, template: Template, max_length: int, max_new_tokens: int, batch_tokens: int,
                 on_rows: Callable[[int], None] = lambda rows: None):
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.max_length, self.max_new_tokens, self.batch_tokens = max_length, max_new_tokens, batch_tokens
        self.on_rows = on_rows

    def likelihoods(self, rows: Sequence[dict], fields: Sequence[str]) -> dict[str, list[list[AnswerScore]]]:
        """One pass over all answers in `fields` of a row set: field -> row -> answers."""
        places, encoded = [], []
        for number, row in enumerate(rows):
            context = {key: row[key] for key in ("id", "question", "prompt") if key in row}
            for name in fields:
                for text in texts_of(row, name):
                    places.append((name, number))
                    encoded.append(self._encode({**context, "answer": text}))
        results = {name: [[] for _ in rows] for name in fields}
        for (name, number), score in zip(places, self._score(encoded)):
            results[name][number].append(score)
        return results

    def _encode(self, row: dict) -> Encoded | None:
        """None for an answer that cannot be scored: its row is counted as unscored and the run goes on."""
        try:
            return self.template.encode(row, self.max_length)
        except UserError:
            return None

    def _score(self, encoded: list[Encoded | None]) -> list[AnswerScore]:
        scores = [AnswerScore(np.empty(0), np.empty(0, dtype=bool), 0) for _ in encoded]
        usable = [i for i, row in enumerate(encoded) if row is not None]
        for chosen in length_batches([len(encoded[i].input_ids) for i in usable], self._budget()):
            batch = [usable[k] for k in chosen]
            part = pad_rows([(i, encoded[i]) for i in batch], pad_id(self.tokenizer))
            logp, hit = self._forward(part)
            ends = np.cumsum([len(encoded[i].input_ids) - encoded[i].prompt_length for i in batch])[:-1]
            for i, row_logp, row_hit in zip(batch, np.split(logp, ends), np.split(hit, ends)):
                scores[i] = AnswerScore(row_logp, row_hit, encoded[i].terminator_length)
            self.on_rows(len(batch))
        return scores

    def _budget(self) -> int:
        """Tokens of a scoring batch: `batch_tokens`, or fewer where a large vocabulary would make its logits too big."""
        return max(1, min(self.batch_tokens, LOGITS // self.model.config.vocab_size))

    @torch.inference_mode()
    def _forward(self, part: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """log p and hit of every labelled token of a batch, in reading order; nothing of [B, T, V] outlives the call."""
        device = self.model.device
        output = self.model(input_ids=part["input_ids"].to(device), attention_mask=part["attention_mask"].to(device))
        scored, targets = shifted(output.logits, part["labels"].to(device))
        logp = scored.gather(-1, targets[:, None])[:, 0] - scored.logsumexp(-1)
        return logp.double().cpu().numpy(), (scored.argmax(-1) == targets).cpu().numpy()

    def generations(self, rows: Sequence[dict], need: Generations) -> list[list[Generation]]:
        """Greedy answers to every question of the need, per row."""
        places, prompts = [], []
        for number, row in enumerate(rows):
            for text in texts_of(row, need.field):
                places.append(number)
                prompts.append(self._prompt(row, need, text))
        stops = self.template.terminator[:1]
        written = generate(self.model, self.tokenizer, prompts, self.max_new_tokens, self.batch_tokens, stops,
                           self.template.unseen_id, self.on_rows)
        results: list[list[Generation]] = [[] for _ in rows]
        for number, generation in zip(places, written):
            results[number].append(generation)
        return results

    def _prompt(self, row: dict, need: Generations, text: str) -> list[int]:
        if need.field == "prompt":
            return self.template.text_ids(text)
        return self.template.prompt_ids(text, need.thinking)


# --- From evidence to values ------------------------------------------------------------------------------------------

def select(names: Sequence[str]) -> list[str]:
    """Metric keys for a list of keys and families, each with the metrics it reads first, every key once."""
    keys: list[str] = []

    def add(key: str) -> None:
        for earlier in METRICS[key].after:
            add(earlier)
        if key not in keys:
            keys.append(key)

    for name in names:
        for key in [key for key, found in METRICS.items() if found.family == name] or [METRICS.find(name).name]:
            add(key)
    return keys


def families() -> list[str]:
    return list(dict.fromkeys(found.family for found in METRICS.values()))


def measure(keys: Sequence[str], rows: Rows, passes: Passes, retain_columns=None, bootstrap: int = 1000,
            seed: int = 0) -> Evidence:
    """Meet the needs of all metrics, one teacher-forced pass per row set, then compute them in order."""
    evidence = Evidence(rows, retain_columns)
    refused: dict[Need, str] = {}
    usable = [METRICS[key] for key in keys if not _missing(METRICS[key], rows)]
    needs = list(dict.fromkeys(need for found in usable for need in found.needs))
    for name in dict.fromkeys(need.rows for need in needs if isinstance(need, Likelihood)):
        fields = [need.field for need in needs if isinstance(need, Likelihood) and need.rows == name]
        for text_field, scores in passes.likelihoods(rows[name], fields).items():
            evidence.scores[Likelihood(name, text_field)] = scores
    for need in needs:
        if isinstance(need, Generations):
            try:
                evidence.texts[need] = passes.generations(rows[need.rows], need)
            except UserError as error:
                refused[need] = str(error)
    for key in keys:
        reason = _missing(METRICS[key], rows) or next((refused[need] for need in METRICS[key].needs if need in refused), "")
        evidence.values[key] = Value(None, reason) if reason else _compute(METRICS[key], evidence, bootstrap, seed)
    return evidence


def _missing(found: Metric, rows: Rows) -> str:
    """Why a metric cannot be measured on these row sets ("" when it can)."""
    for need in found.needs:
        if not rows.get(need.rows):
            return f"this data set has no {need.rows} rows"
        if any(need.field not in row for row in rows[need.rows]):
            return f"the {need.rows} rows have no {need.field!r}"
    return ""


def _compute(found: Metric, evidence: Evidence, bootstrap: int, seed: int) -> Value:
    result = found.compute(evidence)
    if isinstance(result, Value):
        return result
    if not isinstance(result, PerRow):
        result = PerRow(result)
    values = [_finite(value) for value in result.values]
    scored = np.array([value for value in values if value is not None], dtype=float)
    columns = {found.name.partition("/")[2]: values} | {name: [_finite(v) for v in cells] for name, cells in result.columns.items()}
    unscored = len(values) - len(scored)
    if not len(scored):
        return Value(None, "no row could be scored", 0, unscored, None, columns)
    return Value(float(scored.mean()), "", len(scored), unscored, interval(scored, bootstrap, seed), columns)


def _finite(value):
    """A number that is none (no token to score, a wrecked model) is an unscored cell."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of the mean over rows; None when `resamples` is 0."""
    if not resamples:
        return None
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
