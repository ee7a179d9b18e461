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


def convention_of(retain_results: str | None) -> str | None:
    """How the retain model's rows were read, if its run folder says so."""
    config = Path(retain_results).expanduser() / "config.json" if retain_results else None
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


def retain_results_errors(settings: Settings) -> list[str]:
    if settings.evaluate.retain_results is None:
        return []
    try:
        columns = read_results(settings.evaluate.retain_results)
        read_summary(settings.evaluate.retain_results)  # what the last screen shows beside the run
    except UserError as error:
        return [f"evaluate.retain_results: {error}"]
    if not columns.get("forget"):
        return [
            f"evaluate.retain_results: {settings.evaluate.retain_results} has no forget rows; expected the"
            " run folder of an evaluate_model.py run on the retain model"
        ]
    return []


def judge_errors(settings: Settings) -> list[str]:
    plan, found = settings.judge, []
    keys = [] if metric_errors(settings) else select(settings.metric_names)
    judged = {METRICS[key].family for key in keys if METRICS[key].judged}
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
    if settings.evaluate.samples or not measures_samples(settings.metric_names):
        return []
    return [
        "evaluate.samples is 0, so that leak_at/* and sampling/* are null: set the number of answers that are"
        " sampled to each question"
    ]


def convention_warnings(settings: Settings) -> list[str]:
    """Two readings of the rows that forget quality would compare."""
    own, theirs = settings.evaluate.convention, convention_of(settings.evaluate.retain_results)
    if theirs in (None, own):
        return []
    return [
        f"evaluate.convention is {own} but evaluate.retain_results was measured with {theirs}: forget"
        " quality would compare two readings of the rows"
    ]
