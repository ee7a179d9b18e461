"""Measures a model: plans the metrics, runs their passes, turns their values into plain results, keeps them
in a cache."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from ..core.encoding import Template
from ..core.files import UserError, file_fingerprint, fingerprint, read_json, write_json
from ..core.generation import learned_positions
from ..core.parity_templates import CONVENTIONS
from ..core.project import code_files
from ..core.sharing import Share
from ..core.versions import versions
from ..dataset import row_files
from ..loggers.logger import Results
from ..metrics.external_results import Columns, match_rows, read_results
from ..metrics.inputs import MetricInputs
from ..metrics.measure import MeasureOptions, count_texts, measure, without_rows
from ..metrics.pass_cache import PassCache
from ..metrics.pii_few_shot import ORIGINS
from ..metrics.runner import EvalOptions, EvalRunner, RunnerHooks
from ..metrics.spec import (
    ALL,
    CPU_SCORE_TOKENS,
    METRICS,
    RUN,
    Decoding,
    Generations,
    Samples,
    Sampling,
    Value,
    select,
)
from ..metrics.verdicts import RuleJudge
from .judges import make_judges
from .load.loading import (
    Loading,
    autocast_context,
    load_model,
    load_tokenizer,
    loading_of,
    model_fingerprint,
    resolve_precision,
)
from .run.progress import Phase, activity, make_phase
from .settings.run_settings import Settings, deciding

CODE = ("core", "metrics", "model")
log = logging.getLogger(__name__)

LIBRARIES = (
    *("torch", "transformers", "rouge_score", "sacrebleu", "scipy", "nltk", "scikit-learn"),
    "sentence-transformers",
)
JUDGED_ROWS = (
    "reasoning/rt_ua",
    "reasoning/rt_ua_published",
    "semantic/forget_accuracy",
    "semantic/retain_accuracy",
    "semantic/forget_accuracy_rephrased",
    "sampling/coverage",
    "toxic/mean_score",
    "toxic/mean_score_test",
    "toxic/mean_score_prompts",
)
"""Metrics whose rows are unscored only when the judge failed: such results are not kept."""
READING_WEIGHTS = "reading the weights, for the names of kept results"
SAMPLE_FIELDS = ("id", "question", "answer", "key", "prompt", "gt")


@dataclass(frozen=True)
class Occasion:
    """One evaluation.

    Args:
        title: What stands in the progress bar.
        share: The part of this process, where several share the rows. All of them must call then.
        passes: What becomes of the results of single texts in the cache: `meanwhile` keeps them until the
            evaluation is done, so that an interrupted one resumes, `always` for later evaluations too, and
            `never` writes none.
        before: Results of the initial model, where they were measured earlier in the run.
    """

    title: str
    share: Share = Share()
    passes: Literal["never", "meanwhile", "always"] = "never"
    before: Results | None = None


def evaluate(
    model, tokenizer, rows: dict[str, list[dict]], settings: Settings, occasion: Occasion
) -> Results:
    """All metrics of the run on `model`, in the arithmetic of the run. Of several processes only the first
    has results."""
    template, share = template_of(settings, tokenizer), occasion.share
    precision = resolve_precision(settings.overall.precision, str(model.device))
    model.eval()
    share = replace(share, model=model)
    torch.manual_seed(settings.overall.seed)
    keys, options = chosen_metrics(settings, rows), _options(settings, model, share)
    quiet = settings.overall.quiet or not share.is_main
    folder = _pass_folder(model, tokenizer, settings, quiet) if occasion.passes != "never" else None
    texts = count_texts(keys, rows, options.decoding, options.sampling)
    showing = _Showing(occasion.title, quiet)
    with showing, autocast_context(model.device, precision):
        phase = showing.next("", "rows", texts)
        hooks = RunnerHooks(
            lambda done: phase.add(done * share.size),
            cache(lambda: showing.noting("loading the original model", original_model, settings, model)),
            lambda asked: PassCache(_part_of(folder, model, asked), str(share.rank)),
        )
        measuring = MeasureOptions(
            **other_columns(settings, rows, occasion.before),
            judges=make_judges(settings),
            bootstrap=settings.evaluate.bootstrap,
            seed=settings.overall.seed,
            row_files={**row_files(settings.dataset.forget_dataset_name), **ORIGINS},
            on_metric=lambda number, key: showing.metric(number, key, len(keys)),
        )
        inputs = measure(keys, rows, EvalRunner(model, template, options, hooks), measuring)
    if folder and occasion.passes == "meanwhile" and share.is_main:
        shutil.rmtree(folder, ignore_errors=True)
    return to_results(inputs, (settings.judge.price_in, settings.judge.price_out))


class _Showing(contextlib.ExitStack):
    """What an evaluation shows: the rows that the model reads and writes, then the metrics with their
    intervals, which take long where a figure is costly to resample."""

    def __init__(self, title: str, quiet: bool):
        super().__init__()
        self.title, self.quiet, self.phase = title, quiet, Phase(title, "")

    def next(self, what: str, unit: str, total: int) -> Phase:
        """End the phase so far, and begin one."""
        self.close()
        title, is_late = f"{self.title}{what}", bool(what)
        self.phase = self.enter_context(make_phase(title, unit, self.quiet, total, is_late=is_late))
        return self.phase

    def metric(self, number: int, key: str, total: int) -> None:
        """Show the metric that is computed now."""
        if number == 1:
            self.next(": figures and their intervals", "metrics", total)
        self.phase.update(number - 1, note=key)

    def noting(self, note: str, make: Callable, *words) -> Any:
        """Make something, with a note meanwhile."""
        self.phase.update(note=note)
        made = make(*words)
        self.phase.update(note="")
        return made


def chosen_metrics(settings: Settings, rows: dict[str, list[dict]]) -> list[str]:
    """Keys of the metrics of an evaluation, in the order of their computation; of `all` those that the data
    set has rows for."""
    names = settings.metric_names
    keys = select(names)
    if ALL not in names:
        return keys
    named = select([name for name in names if name != ALL])
    lacking = without_rows(keys, rows).difference(named)
    return [key for key in keys if key not in lacking]


def _options(settings: Settings, model, share: Share) -> EvalOptions:
    """Limits, decoding and sampling of the run's evaluation."""
    plan, longest = settings.evaluate, settings.dataset.max_length
    return EvalOptions(
        min(longest, learned_positions(model) or longest),
        plan.max_new_tokens,
        plan.batch_tokens,
        Decoding(plan.decoding, plan.rounds, plan.temperature, plan.top_p),
        score_tokens(settings, model.device.type),
        share,
        plan.convention,
        Sampling(plan.samples, plan.sample_temperature, plan.sample_top_p, settings.overall.seed),
    )


def score_tokens(settings: Settings, device: str) -> int:
    """Padded tokens of a batch of scored answers."""
    chosen = settings.evaluate.score_tokens
    return chosen or (CPU_SCORE_TOKENS if device == "cpu" else settings.evaluate.batch_tokens)


def _pass_folder(model, tokenizer, settings: Settings, quiet: bool) -> Path | None:
    """Folder of a model's results for single texts, named by all that decides them but the texts and their
    budgets; None for a model with adapters, which its fingerprint leaves out."""
    if any("lora_" in name for name in model.state_dict()):
        return None
    with activity(READING_WEIGHTS, quiet):
        return settings.overall.cache / "passes" / fingerprint(_pass_facts(model, tokenizer, settings))


def _pass_facts(model, tokenizer, settings: Settings) -> list:
    """What decides a model's results for a text: weights and configs, the tokenizer, the tags of a trace, the
    arithmetic, the code and the libraries."""
    return [
        model_fingerprint(model),
        model.generation_config.to_dict(),
        tokenizer_fingerprint(tokenizer),
        asdict(settings.dataset.tags),
        resolve_precision(settings.overall.precision, str(model.device)),
        model.device.type,
        file_fingerprint(*code_files(*CODE)),
        versions(LIBRARIES),
    ]


def _part_of(folder: Path | None, model, asked) -> Path | None:
    """Where results of `asked` are kept: the folder of `model`, or for another model, which judges its texts,
    a folder in it."""
    return folder and (folder if asked is model else folder / model_fingerprint(asked))


def original_model(settings: Settings, model):
    """The model whose word on fluency counts: the one that is named, or the initial model of a run that
    trains; else None."""
    overall = settings.overall
    name = settings.evaluate.original_model or (overall.model_name if settings.method.trains else None)
    if name is None or (overall.random_init and not settings.evaluate.original_model):
        return None
    precision = resolve_precision(overall.precision, model.device.type)
    return load_model(name, precision, str(model.device), seed=overall.seed, loading=_original(overall, name))


def _original(overall, name: str) -> Loading:
    """How the original model is loaded: as the run's where it is that one, else without exceptions but for
    the base of an adapter."""
    return loading_of(overall) if name == overall.model_name else Loading(base_model=overall.base_model)


def check_original(settings: Settings, tokenizer) -> None:
    """UserError when the named original model reads other tokens than the tokenizer of the run."""
    name = settings.evaluate.original_model
    if name and load_tokenizer(name, _original(settings.overall, name)).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"evaluate.original_model: {name} has another tokenizer than the run, so it cannot judge its"
            " words; name the model that the measured one was made from"
        )


def template_of(settings: Settings, tokenizer) -> Template:
    """How the evaluation reads rows: as this project does or as a peer."""
    return CONVENTIONS[settings.evaluate.convention](
        tokenizer, settings.dataset.template, settings.dataset.tags
    )


def evaluate_cached(
    model, tokenizer, rows: dict[str, list[dict]], settings: Settings, occasion: Occasion
) -> Results:
    """As `evaluate`, looked up when all that decides the answer is as it was then: weights and configs of the
    model, the tokenizer and its template, the rows, the settings of the evaluation, the code and the
    libraries."""
    overall = settings.overall
    with activity(READING_WEIGHTS, overall.quiet or not occasion.share.is_main):
        facts = _pass_facts(model, tokenizer, settings)
    key = fingerprint(
        facts,
        rows,
        other_columns(settings, rows, occasion.before),
        chosen_metrics(settings, rows),
        deciding(settings.evaluate),
        judging_facts(settings),
        stamp(settings.evaluate.original_model or ""),
        template_of(settings, tokenizer).fingerprint,
        settings.dataset.max_length,
        overall.seed,
    )
    path = overall.cache / "evaluations" / f"{key}.json"
    if kept := occasion.share.from_main(lambda: _kept(path)):
        return kept
    results = evaluate(model, tokenizer, rows, settings, occasion)
    if occasion.share.is_main and not any(
        results.detail[key]["unscored"] for key in JUDGED_ROWS if key in results.detail
    ):
        found = asdict(results)
        write_json(path, {"checksum": fingerprint(found), "results": found})
    return results


def _kept(path: Path) -> Results | None:
    """What an earlier run found; None when there is nothing, or something else than what was written."""
    if not path.is_file():
        return None
    try:
        kept = read_json(path)
        if kept["checksum"] == fingerprint(kept["results"]):
            return Results(**kept["results"])
    except (UserError, TypeError, KeyError):
        pass
    log.warning("%s is not what was written there; the model is measured again", path)
    return None


def judging_facts(settings: Settings) -> list:
    """What decides a verdict: the judge's settings and the files of its models as they are now."""
    plan = settings.judge
    toxicity = settings.evaluate.toxicity_model
    names = [plan.model if plan.kind == "local" else "", plan.embedder, plan.nli_model, toxicity]
    return [deciding(plan), *(stamp(name or "") for name in names)]


def stamp(name: str) -> list:
    """Sizes and times of the files of a model's folder; nothing for a hub name."""
    files = sorted(Path(name).expanduser().glob("*.*")) if name else []
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def tokenizer_fingerprint(tokenizer) -> str:
    """A hash of how a tokenizer reads and writes: its model, special tokens and chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    reading = backend.to_str() if backend is not None else tokenizer.get_vocab()
    return fingerprint(reading, str(tokenizer.special_tokens_map), str(tokenizer.chat_template))


def other_columns(
    settings: Settings, rows: dict[str, list[dict]], before: Results | None
) -> dict[str, Columns | None]:
    """Per-row values of other models, matched to the rows of this run, as fields of `MeasureOptions`: of the
    retain models and of the original one, which is the initial model where none is named. None for a model
    without results."""
    ids = {name: [row["id"] for row in table] for name, table in rows.items()}

    def read(path: str | None) -> Columns | None:
        return match_rows(read_results(path), ids) if path is not None else None

    evaluation = settings.evaluate
    initial = (
        {name: {row["id"]: row for row in table} for name, table in before.samples.items()}
        if before
        else None
    )
    return {
        "retain_columns": read(evaluation.retain_results),
        "second_retain_columns": read(evaluation.second_retain_results),
        "original_columns": read(evaluation.original_results) or initial,
    }


def to_results(inputs: MetricInputs, prices: tuple[float, float] = (0.0, 0.0)) -> Results:
    """MetricInputs as plain values, ready for files. `prices`: of a million prompt tokens and answered tokens
    of the judge."""
    values = inputs.values
    decoded = lambda key: any(
        isinstance(need, Generations) and need.mode == RUN for need in METRICS[key].needs
    )
    detail = {
        key: (
            _plain_value(v)
            | ({"cut_texts": cut} if (cut := _cut_texts(inputs, key)) else {})
            | ({"longest_text": longest} if (longest := _longest_text(inputs, key)) is not None else {})
            | ({"judge": judge_name(inputs, key)} if METRICS[key].judged else {})
            | ({"decoding": inputs.decoding.mode} if decoded(key) else {})
        )
        for key, v in values.items()
    }
    usage = getattr(inputs.judge, "usage", None)
    judging = (
        {"name": inputs.judge.name} | usage.summary(*prices)
        if usage and any(METRICS[key].judged for key in values)
        else {}
    )
    return Results({key: v.value for key, v in values.items()}, detail, _samples(inputs), judging)


def _plain_value(value: Value) -> dict[str, Any]:
    """What is kept of a value beside its figure."""
    return {
        "n": value.n,
        "unscored": value.unscored,
        "interval": list(value.interval) if value.interval else None,
        "reason": value.reason,
    } | dict(value.details)


def with_benchmarks(
    results: Results, figures: Mapping[str, float | None], original: Mapping[str, float | None]
) -> Results:
    """The results with the metrics that read figures of benchmarks computed again.

    Args:
        results: Results of the evaluation, which precedes the benchmarks.
        figures: Benchmark figures of the model.
        original: Benchmark figures of the model before unlearning.
    """
    values = {
        key: Value(value, results.detail.get(key, {}).get("reason", ""))
        for key, value in results.metrics.items()
    }
    late = MetricInputs({}, values=values, benchmarks=figures, original_benchmarks=original)
    keys = [key for key in values if key in METRICS and METRICS[key].benchmarks]
    for key in keys:
        values[key] = METRICS[key].compute(late)
    return replace(
        results,
        metrics=results.metrics | {key: values[key].value for key in keys},
        detail=results.detail | {key: _plain_value(values[key]) for key in keys},
    )


def _cut_texts(inputs: MetricInputs, key: str) -> int:
    """Texts that a metric reads and that the token budget cut, not the model. A budget of the metric's own
    cuts no answer."""
    needs = [need for need in METRICS[key].needs if isinstance(need, Generations) and not need.most]
    return sum(not text.ended for need in needs for texts in inputs.texts.get(need, ()) for text in texts)


def _longest_text(inputs: MetricInputs, key: str) -> int | None:
    """Tokens of the longest text that a metric reads; None where it reads none. A budget above it changes
    nothing."""
    needs = METRICS[key].needs
    read = [inputs.texts[need] for need in needs if isinstance(need, Generations) and need in inputs.texts]
    read += [inputs.samples[need] for need in needs if isinstance(need, Samples) and need in inputs.samples]
    lengths = [text.n_tokens for rows in read for texts in rows for text in texts]
    return max(lengths, default=None)


def judge_name(inputs: MetricInputs, key: str) -> str:
    """The judge; the rule is a matter of words where rows name no key fact."""
    rows = inputs.rows.get(METRICS[key].rows or "forget", ())
    lexical = isinstance(inputs.judge, RuleJudge) and any("key" not in row for row in rows)
    return f"{inputs.judge.name}, lexical" if lexical else inputs.judge.name


def _samples(inputs: MetricInputs) -> dict[str, list[dict]]:
    """Row set -> its rows with every per-row value of every metric on that set."""
    tables: dict[str, list[dict]] = {}
    for key, value in inputs.values.items():
        name = METRICS[key].rows
        if not value.columns:
            continue
        if name not in tables:
            tables[name] = [
                {field: row[field] for field in SAMPLE_FIELDS if field in row} for row in inputs.rows[name]
            ]
        for column, cells in value.columns.items():
            _fill(tables[name], column, cells)
    return tables


def _fill(table: list[dict], column: str, cells: Sequence) -> None:
    for row, cell in zip(table, cells):
        row[column] = cell
