"""What metrics read."""

from collections.abc import Callable, Mapping

from ..core.generation import Generation
from ..core.thinking import TAGS, Tags, Thought, split_thought
from .spec import RUN, AnswerScore, Decoding, Generations, Judge, Judges, Likelihood, Rows, Value


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
