"""Inputs of metrics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..core.generation import Generation
from ..core.parity_templates import OPEN_UNLEARNING
from ..core.thinking import TAGS, Tags, TracedAnswer, split_trace
from .spec import RUN, AnswerScore, Decoding, Generations, GradientNorm, Judge, Judges, Rows, Samples, Value

Columns = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Row set -> row id -> column -> value."""


@dataclass
class MetricInputs:
    """All that a metric may read: rows, scores and generated texts by need, and values of earlier metrics.

    Args:
        rows: Row sets by name.
        retain_columns: Per-row values of a retain model; None without `evaluate.retain_results`.
        tags: Opening and closing tag of reasoning traces.
        decoding: Mode and sampling of generated texts.
        convention: Whose definition counts where a metric has several, see `EvalOptions`.
        judges: Judge of answers and traces, embedding similarity, entailment model.
        cut: The beginning of a text, at most so many tokens, see `EvalRunner.cut`.
        ids: Token ids of a text.
        token_spans: Which tokens of a row's answer hold given texts, see `EvalRunner.token_spans`.
        scores: (row set, field, prefix) -> row -> score of each answer.
        documents: Row set -> row -> score of each piece of its document.
        gradient_norms: Need -> row -> norm of the gradient of each answer's loss.
        texts: Need -> row -> generated text of each question.
        samples: Need -> row -> sampled answers.
        fluencies: Need -> row -> mean log p per token of each generated text, under the original model.
        values: Metric key -> value, of the metrics computed so far.
        second_retain_columns: Per-row values of a second retain model, of another seed; None without
            `evaluate.second_retain_results`.
        original_columns: Per-row values of the model before unlearning, None without.
        benchmarks: Figures of the run's benchmarks, `lm_eval/...`. They are measured after the metrics:
            empty at first, and a metric that reads them is computed again.
        original_benchmarks: The same of the model before unlearning.
    """

    rows: Rows
    retain_columns: Columns | None = None
    tags: Tags = TAGS
    decoding: Decoding = Decoding()
    convention: str = "none"
    judges: Judges = Judges()
    cut: Callable[[str, int], str] = lambda text, most: text
    ids: Callable[[str], Sequence] = str.split
    token_spans: Callable[[dict, str, Sequence[str]], list[tuple[int, int] | None]] = (
        lambda row, name, texts: [None for _ in texts]
    )
    scores: dict[tuple[str, str, str], list[list[AnswerScore]]] = field(default_factory=dict)
    documents: dict[str, list[list[AnswerScore]]] = field(default_factory=dict)
    gradient_norms: dict[GradientNorm, list[list[float]]] = field(default_factory=dict)
    texts: dict[Generations, list[list[Generation]]] = field(default_factory=dict)
    samples: dict[Samples, list[list[Generation]]] = field(default_factory=dict)
    fluencies: dict[Generations, list[list[float]]] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    second_retain_columns: Columns | None = None
    original_columns: Columns | None = None
    benchmarks: Mapping[str, float | None] = field(default_factory=dict)
    original_benchmarks: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def judge(self) -> Judge:
        judge = self.judges.judge
        assert judge is not None, "a metric that is judged is measured with a judge"
        return judge

    def likelihood(self, rows: str, field: str, prefix: str = "") -> list[list[AnswerScore]]:
        """For each row, the scores of its answers in `field`, behind the rows of `prefix`."""
        return self.scores[rows, field, prefix]

    def raw_texts(self, rows: str, field: str) -> list[AnswerScore]:
        """For each row, the score of its raw text in `field`; OpenUnlearning takes the last token of raw text
        for a terminator."""
        scores = [found[0] for found in self.likelihood(rows, field)]
        return [s.without_last() for s in scores] if self.convention == OPEN_UNLEARNING else scores

    def generations(
        self, rows: str, field: str = "question", mode: str = "direct", most: int = 0
    ) -> list[list[Generation]]:
        """For each row, the generated answers to its questions in `field`."""
        return self.texts[Generations(rows, field, mode, most)]

    def sampled_texts(self, rows: str, field: str = "question") -> list[list[str]]:
        """For each row, the texts of the answers sampled for its questions in `field`."""
        return [[answer.text for answer in answers] for answers in self.samples[Samples(rows, field)]]

    def traced_answers(self, rows: str, mode: str = RUN) -> list[TracedAnswer]:
        """For each row, trace and answer of the text generated for its question."""
        used = self.decoding.mode if mode == RUN else mode
        return [split_trace(texts[0].text, self.tags, used) for texts in self.generations(rows, mode=mode)]

    def fluency(self, rows: str, mode: str = RUN) -> list[float]:
        """For each row, mean log p per token of the text generated for its question, under the original
        model."""
        return [scores[0] for scores in self.fluencies[Generations(rows, mode=mode)]]

    def value(self, key: str) -> float | None:
        return self.values[key].value


def texts_of(row: dict, field: str) -> list[str]:
    """The texts in a field, which holds one or a list of them."""
    return row[field] if isinstance(row[field], list) else [row[field]]
