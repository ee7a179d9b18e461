"""Rules on metrics, judges, retain results and benchmarks."""

from importlib.util import find_spec
from pathlib import Path

from ....core.embedding import MINILM
from ....core.files import UserError, read_json
from ....core.registry import did_you_mean
from ....metrics.external_results import read_results, read_summary
from ....metrics.spec import ALL, METRICS, families, select
from ....model.settings.evaluation_keys import measures_samples
from ....model.settings.run_settings import Settings
from .model_rules import model_path_error
from .writer_rules import key_error

RESULTS = ("retain_results", "second_retain_results", "original_results")
"""Keys of `evaluate` that name the evaluation of another model."""


READERS = {
    "second_retain_results": ("forget_quality_yardstick",),
    "original_results": ("forget/nearer_to_retain", "forget/relative_test_p"),
}
"""Keys of `RESULTS` -> the metrics that read them, where these are few."""


def convention_of(results: str | None) -> str | None:
    """How the rows of an evaluation were read, if its run folder says so."""
    config = Path(results).expanduser() / "config.json" if results else None
    try:
        if not config or not config.is_file():
            return None
        evaluate = read_json(config)["evaluate"]
        return evaluate.get("convention", evaluate.get("parity", "none"))  # parity: its name before 0.2
    except (UserError, KeyError, AttributeError, TypeError):
        return None


def metric_errors(settings: Settings) -> list[str]:
    known = ["auto", ALL, *families(), *METRICS, *METRICS.aliases]
    return [
        f"evaluate.metrics: unknown metric or family {name!r}{did_you_mean(name, known)}"
        for name in settings.evaluate.metrics
        if name not in known
    ]


def results_errors(settings: Settings) -> list[str]:
    """Evaluations of other models that cannot be read, have no forget rows, or are one and the same."""
    named = {key: getattr(settings.evaluate, key) for key in RESULTS}
    found = [_results_error(f"evaluate.{key}", path) for key, path in named.items() if path is not None]
    places = [Path(path).expanduser().resolve() for path in (named[key] for key in RESULTS[:2]) if path]
    if len(places) == 2 and places[0] == places[1]:
        found.append(
            "evaluate.second_retain_results: it is evaluate.retain_results itself, and p would be 1; name a"
            " retain model that was trained with another seed"
        )
    return [error for error in found if error]


def _results_error(key: str, path: str) -> str:
    try:
        found = read_results(path)
        read_summary(path)  # what the last screen shows beside the run
    except UserError as error:
        expected = "; expected a run folder, or a log in JSON" if Path(path).suffix != ".json" else ""
        return f"{key}: {error}{expected if Path(path).expanduser().is_file() else ''}"
    model = "model before unlearning" if key == "evaluate.original_results" else "retain model"
    if not any(rows for name, rows in found.items() if name.startswith("forget")):
        return (
            f"{key}: {path} has no forget rows; expected the run folder of an evaluate_model.py run on the"
            f" {model}"
        )
    if key != "evaluate.retain_results" and all(
        row.get("log_truth_ratio") is None for row in found.get("forget", {}).values()
    ):
        return (
            f"{key}: no forget row of {path} has a truth ratio, which is all that is read there; measure the"
            f" {model} with --evaluate.metrics tofu"
        )
    return ""


def judge_errors(settings: Settings) -> list[str]:
    plan, found = settings.judge, []
    keys = [] if metric_errors(settings) else select(settings.metric_names)
    judged = {METRICS[key].family for key in keys if settings.asks_judge([key])}
    if plan.kind in ("lm", "local") and not plan.model:
        found.append(f"judge.model: judge.kind {plan.kind} needs the name of a model")
    elif plan.kind == "local" and plan.model:
        found.append(model_path_error("judge.model", plan.model, False))
    elif plan.kind == "lm" and judged and not plan.allow_unscored:
        found.append(key_error(plan, "judge"))
    if plan.kind == "embedding" and "reasoning" in judged:
        found.append(
            "judge.kind embedding compares answers and reads no traces, which reasoning/* need; take rule, lm"
            " or local, or other evaluate.metrics"
        )
    if plan.embedder != MINILM and "semantic" in {METRICS[key].family for key in keys}:
        found.append(model_path_error("judge.embedder", plan.embedder, False))
    if plan.nli_model:
        found.append(model_path_error("judge.nli_model", plan.nli_model, False))
    if toxicity := settings.evaluate.toxicity_model:
        found.append(model_path_error("evaluate.toxicity_model", toxicity, False))
    return [complaint for complaint in found if complaint]


def benchmark_errors(settings: Settings) -> list[str]:
    """Only what can be told without reading rows."""
    plan, found = settings.benchmarks, []
    if not settings.benchmark_tasks:
        return []
    if find_spec("lm_eval") is None:
        found.append(
            "benchmarks: the package lm-eval is not installed; .venv/bin/pip install lm-eval[hf]==0.4.13"
        )
    if plan.backend == "vllm" and find_spec("vllm") is None:
        found.append(
            "benchmarks.backend vllm: the package vllm is not installed; .venv/bin/pip install"
            " lm-eval[vllm]==0.4.13"
        )
    if plan.backend == "server" and not plan.base_url:
        found.append("benchmarks.base_url: benchmarks.backend server needs the address of a server")
    if plan.backend != "transformers" and settings.method.trains:
        found.append(
            f"benchmarks.backend {plan.backend}: the benchmarks of a run measure the model in memory; take"
            " transformers, or run_benchmarks.py afterwards"
        )
    if plan.published and plan.fewshot > 0:
        found.append(
            "benchmarks.published is zero-shot and benchmarks.fewshot is above 0: set only one of the two"
        )
    return found


def sampling_warnings(settings: Settings) -> list[str]:
    """Metrics of sampled answers, named and without answers."""
    # Family pii has most of its figures without samples.
    asked = [name for name in settings.metric_names if name != "pii"]
    if settings.evaluate.samples or not measures_samples(asked):
        return []
    return [
        "evaluate.samples is 0, so that leak_at/* and sampling/* are null: set the number of answers that are"
        " sampled to each question"
    ]


def results_warnings(settings: Settings) -> list[str]:
    """Evaluations that no chosen metric reads."""
    if metric_errors(settings):
        return []
    chosen = select(settings.metric_names)
    return [
        f"evaluate.{key} is read by {' and '.join(readers)} alone, which evaluate.metrics does not choose"
        for key, readers in READERS.items()
        if getattr(settings.evaluate, key) is not None and not set(readers) & set(chosen)
    ]


def convention_warnings(settings: Settings) -> list[str]:
    """Two readings of the rows that forget quality would compare."""
    own = settings.evaluate.convention
    theirs = {key: convention_of(getattr(settings.evaluate, key)) for key in RESULTS}
    return [
        f"evaluate.convention is {own} but evaluate.{key} was measured with {read}: forget quality would"
        " compare two readings of the rows"
        for key, read in theirs.items()
        if read not in (None, own)
    ]
