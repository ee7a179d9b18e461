"""The contract of a metric, and the runner whose passes over the model feed all of them.

A metric names the row set it looks at and what it needs of it; each need is met once, for all metrics that
share it, and handed over as `MetricInputs`. Adding a metric is a function in one file:

    @metric("forget/prob", rows="forget", needs=[Likelihood("forget", "answer")], good="down", about="...")
    def prob(inputs):
        return [answers[0].prob for answers in inputs.likelihood("forget", "answer")]

It returns one number or None per row of its set (None: this row cannot be scored; it is counted as unscored
and left out of the mean, never counted as forgotten), or a `Value` where the summary is not a mean over rows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..core.encoding import CONTEXT, Encoded, Template, pad_rows, text_ids
from ..core.files import UserError
from ..core.generation import Generation, decode, generate, generate_on, length_batches, pad_id
from ..core.likelihood import shifted
from ..core.registry import Registry
from ..core.thinking import TAGS, Tags, Thought, split_thought

METRICS = Registry("metric")

RUN = "run"
"""Stands for the mode of `Decoding`: where a metric lets the model think."""

LOGITS = 2**29
"""Numbers of the largest logits tensor of a scoring pass (2 GB in float32)."""

Rows = Mapping[str, Sequence[dict]]
"""Row sets by name: forget, retain, real, world, ..."""

Cells = Mapping[str, Sequence[Any]]
"""Column -> a cell per row: a number, a text, or the numbers of a row's several answers."""

Good = Literal["up", "down"]
"""Which way a metric gets better."""

ARROWS = {"up": "↑", "down": "↓"}


# --- What a metric can ask for ------------------------------------------------------------------------------


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
    formerly: Sequence[str] = (),
) -> Callable:
    """Decorator that files a function as metric `key`. `after` names metrics whose values it reads, `fields`
    what its rows must have beside what the needs ask for; `judged` says that a judge had a part in it;
    `formerly` are names it had, which are still read."""

    def add(compute: Callable) -> Callable:
        family = compute.__module__.rpartition(".")[2]
        METRICS.register(key, *formerly)(
            Metric(key, rows, tuple(needs), tuple(after), tuple(fields), judged, good, about, family, compute)
        )
        return compute

    return add


# --- Meeting the needs --------------------------------------------------------------------------------------


class MetricInputs:
    """What metrics read: rows, scores and generations by need, values of earlier metrics, a retain model's
    rows."""

    def __init__(
        self,
        rows: Rows,
        retain_columns: Mapping[str, Mapping[str, Mapping[str, float]]] | None,
        tags: Tags = TAGS,
        decoding: Decoding = Decoding(),
        judges: Judges = Judges(),
        cut: Callable[[str, int], str] = lambda text, most: text,
    ):
        self.cut = cut
        """The beginning of a text, see `EvalRunner.cut`."""
        self.rows, self.tags, self.decoding, self.judges = rows, tags, decoding, judges
        self.fluencies: dict[Generations, list[list[float]]] = {}
        self.scores: dict[Likelihood, list[list[AnswerScore]]] = {}
        self.texts: dict[Generations, list[list[Generation]]] = {}
        self.values: dict[str, Value] = {}
        self.retain_columns = retain_columns
        """Of the retain model: row set -> row id -> column -> value; None without
        `evaluate.retain_results`."""

    @property
    def judge(self) -> Judge:
        judge = self.judges.judge
        assert judge is not None, "a metric that is judged is measured with a judge"
        return judge

    def likelihood(self, rows: str, field: str) -> list[list[AnswerScore]]:
        """For each row, the scores of its answers in `field`."""
        return self.scores[Likelihood(rows, field)]

    def generations(self, rows: str, field: str = "question", mode: str = "direct") -> list[list[Generation]]:
        """For each row, the answers to its questions in `field`."""
        return self.texts[Generations(rows, field, mode)]

    def thoughts(self, rows: str, mode: str = RUN) -> list[Thought]:
        """For each row, trace and answer of what was said to its question."""
        asked = self.decoding.mode if mode == RUN else mode
        return [split_thought(said[0].text, self.tags, asked) for said in self.generations(rows, mode=mode)]

    def fluency(self, rows: str, mode: str = RUN) -> list[float]:
        """For each row, log p per token of what was said to its question, by the original model."""
        return [scores[0] for scores in self.fluencies[Generations(rows, mode=mode)]]

    def value(self, key: str) -> float | None:
        return self.values[key].value


def texts_of(row: dict, field: str) -> list[str]:
    return row[field] if isinstance(row[field], list) else [row[field]]


class EvalRunner:
    """Runs needs on one model. `batch_tokens` bounds the padded tokens of a batch; `original` gives the model
    whose word on fluency counts, or None."""

    def __init__(
        self,
        model,
        tokenizer,
        template: Template,
        max_length: int,
        max_new_tokens: int,
        batch_tokens: int,
        on_rows: Callable[[int], None] = lambda rows: None,
        decoding: Decoding = Decoding(),
        original: Callable[[], Any] = lambda: None,
    ):
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.decoding, self.original = decoding, original
        self.max_length, self.max_new_tokens, self.batch_tokens = max_length, max_new_tokens, batch_tokens
        self.on_rows = on_rows

    def likelihoods(self, rows: Sequence[dict], fields: Sequence[str]) -> dict[str, list[list[AnswerScore]]]:
        """One pass over all answers in `fields` of a row set: field -> row -> answers."""
        places, encoded = [], []
        for number, row in enumerate(rows):
            context = {key: row[key] for key in ("id", *CONTEXT) if key in row}
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
        usable = [(i, row) for i, row in enumerate(encoded) if row is not None]
        self.on_rows(len(encoded) - len(usable))
        for chosen in length_batches([len(row.input_ids) for _, row in usable], self._budget()):
            batch = [usable[k] for k in chosen]
            logp, hit = self._forward(pad_rows(batch, pad_id(self.tokenizer)))
            ends = np.cumsum([len(row.input_ids) - row.prompt_length for _, row in batch])[:-1]
            for (i, row), row_logp, row_hit in zip(batch, np.split(logp, ends), np.split(hit, ends)):
                scores[i] = AnswerScore(row_logp, row_hit, row.terminator_length)
            self.on_rows(len(batch))
        return scores

    def _budget(self) -> int:
        """Tokens of a scoring batch: `batch_tokens`, or fewer where a large vocabulary would make its logits
        too big."""
        return max(1, min(self.batch_tokens, LOGITS // self.model.config.vocab_size))

    @torch.inference_mode()
    def _forward(self, part: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """log p and hit of every labelled token of a batch, in reading order; nothing of [B, T, V] outlives
        the call."""
        device = self.model.device
        output = self.model(
            input_ids=part["input_ids"].to(device), attention_mask=part["attention_mask"].to(device)
        )
        scored, targets = shifted(output.logits, part["labels"].to(device))
        logp = scored.gather(-1, targets[:, None])[:, 0] - scored.logsumexp(-1)
        return logp.double().cpu().numpy(), (scored.argmax(-1) == targets).cpu().numpy()

    def generations(self, rows: Sequence[dict], need: Generations) -> list[list[Generation]]:
        """Answers to every question of the need, per row."""
        places, prompts = self._prompts(rows, need)
        options = {
            "batch_tokens": self.batch_tokens,
            "stop_ids": self.template.stop_ids,
            "unseen_id": self.template.unseen_id,
            "on_batch": self.on_rows,
            "temperature": self.decoding.temperature,
            "top_p": self.decoding.top_p,
            "tags": self.template.tags,
        }
        if self._mode(need) == "more":
            written = generate_on(
                self.model, self.tokenizer, prompts, self.max_new_tokens, self.decoding.rounds, **options
            )
        else:
            written = generate(self.model, self.tokenizer, prompts, self.max_new_tokens, **options)
        return _by_row(places, written, len(rows))

    def cut(self, text: str, most: int) -> str:
        """The beginning of a text: as many tokens as may be generated, and no more than `most`."""
        ids, limit = text_ids(self.tokenizer, text), min(most, self.max_new_tokens)
        return text if len(ids) <= limit else decode(self.tokenizer, ids[:limit], self.template.tags)

    def fluency(
        self, rows: Sequence[dict], need: Generations, said: list[list[Generation]]
    ) -> list[list[float]]:
        """log p per token of what was said, by the original model; NaN for what is empty. UserError when
        there is none."""
        original = self.original()
        if original is None:
            raise UserError("fluency is judged by the original model: name it with evaluate.original_model")
        places, prompts = self._prompts(rows, need)
        written = [generation for row in said for generation in row]
        encoded = [
            Encoded("", prompt + list(text.ids), len(prompt), 0) if text.ids else None
            for prompt, text in zip(prompts, written)
        ]
        judge = EvalRunner(
            original, self.tokenizer, self.template, self.max_length, 0, self.batch_tokens, self.on_rows
        )
        return _by_row(
            places,
            [-score.loss if len(score.logp) else math.nan for score in judge._score(encoded)],
            len(rows),
        )

    def _prompts(self, rows: Sequence[dict], need: Generations) -> tuple[list[int], list[list[int]]]:
        """The row number and the tokens of every question of a need."""
        asked = [(number, text) for number, row in enumerate(rows) for text in texts_of(row, need.field)]
        prompts = [self._prompt(need, text, rows[number].get("turns", ())) for number, text in asked]
        return [number for number, _ in asked], prompts

    def _mode(self, need: Generations) -> str:
        return self.decoding.mode if need.mode == RUN else need.mode

    def _prompt(self, need: Generations, text: str, turns: Sequence[dict]) -> list[int]:
        return (
            self.template.text_ids(text)
            if need.field == "prompt"
            else self.template.prompt_ids(text, self._mode(need), turns)
        )


def _by_row(places: Sequence[int], values: Sequence, count: int) -> list[list]:
    """Values by the row they belong to."""
    results: list[list] = [[] for _ in range(count)]
    for number, value in zip(places, values):
        results[number].append(value)
    return results


# --- From inputs to values --------------------------------------------------------------------------------


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


def measure(
    keys: Sequence[str],
    rows: Rows,
    runner: EvalRunner,
    retain_columns=None,
    bootstrap: int = 1000,
    seed: int = 0,
    judges: Judges = Judges(),
) -> MetricInputs:
    """Meet the needs of all metrics, one teacher-forced pass per row set, then compute them in order."""
    inputs = MetricInputs(rows, retain_columns, runner.template.tags, runner.decoding, judges, runner.cut)
    refused: dict[Need, str] = {}
    needs = _needs(keys, rows)
    for name in dict.fromkeys(need.rows for need in needs if isinstance(need, Likelihood)):
        fields = [need.field for need in needs if isinstance(need, Likelihood) and need.rows == name]
        for text_field, scores in runner.likelihoods(rows[name], fields).items():
            inputs.scores[Likelihood(name, text_field)] = scores
    for need in _generations(needs):
        _meet(need, inputs.texts, refused, lambda need=need: runner.generations(rows[need.rows], need))
    for need in needs:
        if isinstance(need, Fluency) and need.of in refused:
            refused[need] = refused[need.of]
        elif isinstance(need, Fluency):
            _meet(
                need,
                inputs.fluencies,
                refused,
                lambda need=need: runner.fluency(rows[need.rows], need.of, inputs.texts[need.of]),
                need.of,
            )
    for key in keys:
        reason = _missing(METRICS[key], rows) or next(
            (refused[need] for need in METRICS[key].needs if need in refused), ""
        )
        inputs.values[key] = (
            Value(None, reason) if reason else _compute(METRICS[key], inputs, bootstrap, seed)
        )
    return inputs


def count_texts(keys: Sequence[str], rows: Rows, decoding: Decoding = Decoding()) -> int:
    """How many texts `measure` puts to a model, as `EvalRunner.on_rows` counts them: every answer that is
    scored, every one that is generated, of MoreThink once for each of its turns."""
    needs, count = _needs(keys, rows), lambda need: sum(len(texts_of(r, need.field)) for r in rows[need.rows])
    turns = lambda need: decoding.rounds + 1 if (need.mode, decoding.mode) == (RUN, "more") else 1
    scored = sum(count(need) for need in needs if not isinstance(need, Generations))
    return scored + sum(count(need) * turns(need) for need in _generations(needs))


def _needs(keys: Sequence[str], rows: Rows) -> list[Need]:
    """What the metrics that can be measured on these rows ask for, each once."""
    usable = [METRICS[key] for key in keys if not _missing(METRICS[key], rows)]
    return list(dict.fromkeys(need for found in usable for need in found.needs))


def _generations(needs: Sequence[Need]) -> list[Generations]:
    """What is to be generated, for itself or to have its fluency judged."""
    generated = (need.of if isinstance(need, Fluency) else need for need in needs)
    return list(dict.fromkeys(need for need in generated if isinstance(need, Generations)))


def _meet(need: Need, kept: dict, refused: dict[Need, str], act: Callable, key: Need | None = None) -> None:
    """Keep what a need asks for, or the reason why it is not to be had."""
    try:
        kept[key or need] = act()
    except UserError as error:
        refused[need] = str(error)


def _missing(found: Metric, rows: Rows) -> str:
    """Why a metric cannot be measured on these row sets ("" when it can)."""
    for need in found.needs:
        if not rows.get(need.rows):
            return f"this data set has no {need.rows} rows"
        lacking = sum(need.field not in row for row in rows[need.rows])
        if lacking:
            count = "the" if lacking == len(rows[need.rows]) else f"{lacking} of {len(rows[need.rows])}"
            return f"{count} {need.rows} rows have no {need.field!r}"
    if found.rows is None:
        return ""
    absent = [name for name in found.fields if any(name not in row for row in rows[found.rows])]
    return f"the {found.rows} rows have no {absent[0]!r}" if absent else ""


def _compute(found: Metric, inputs: MetricInputs, bootstrap: int, seed: int) -> Value:
    result = found.compute(inputs)
    if isinstance(result, Value):
        return result
    if not isinstance(result, PerRow):
        result = PerRow(result)
    values = [_finite(value) for value in result.values]
    scored = np.array([value for value in values if value is not None], dtype=float)
    columns = {found.name.partition("/")[2]: values} | {
        name: [_finite(v) for v in cells] for name, cells in result.columns.items()
    }
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
