"""Benchmarks of lm-evaluation-harness on a model, one task at a time, with cached outcomes.

    <folder>/lm_eval/<task>/meta.json       status, and the fingerprint of all that decides the figures
    <folder>/lm_eval/<task>/results.json    figures, those of a group's members, the harness's configuration
    <folder>/lm_eval/<task>/samples.jsonl   every row with its generated texts
    <folder>/lm_eval/summary.json           all figures

A task with an unchanged fingerprint is not run again. A task that fails is recorded with its reason, and the
other tasks are run.
"""

import contextlib
import logging
import math
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ...core.encoding import Template
from ...core.files import UserError, file_fingerprint, fingerprint, lock, read_json, write_json, write_jsonl
from ...core.project import code_files
from ...core.versions import versions
from ...loggers.logger import Results
from ...metrics.spec import Case
from ..evaluation import judging_facts, tokenizer_fingerprint, with_benchmarks
from ..judges import make_judges
from ..load.loading import autocast_context, model_fingerprint, resolve_precision
from ..run.places import process_state
from ..run.progress import counting
from ..settings.run_settings import Settings
from .suites import TASKS, task_info

log = logging.getLogger(__name__)

CODE = ("core", "metrics/lm_eval.py", "model/benchmarks/benchmark_runner.py")
LIBRARIES = ("lm_eval", "torch", "transformers", "datasets")
OK, ERROR = "ok", "error"


@dataclass(frozen=True)
class TaskOutcome:
    """Figures of a task, or the reason of its failure."""

    task: str
    status: str
    message: str = ""
    seconds: float = 0.0
    scores: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """`<task>/<metric>[<filter>]` -> {value, n, interval, better}."""
    cached: bool = False
    """Whether it comes from an earlier run."""


@dataclass(frozen=True)
class BenchmarkModel:
    """A model as the harness calls it.

    Args:
        lm: makes the harness's model from a progress callback (rows done, rows in total).
        identity: the facts that distinguish its answers from another model's.
        mode: one of core.thinking.MODES.
        chat: whether it has a chat template.
        scoring_refusal: the reason why it cannot score given continuations; empty when it can.
    """

    lm: Callable[[Callable[[int, int], None]], Any]
    identity: Sequence[Any]
    mode: str
    chat: bool
    scoring_refusal: Callable[[], str] = lambda: ""


def local_model(model, tokenizer, settings: Settings) -> BenchmarkModel:
    """A loaded model; it generates thoughts where its template supports them."""
    from ...metrics.lm_eval import InMemoryModel, ModelOptions

    template = Template(tokenizer, settings.dataset.template, settings.dataset.tags)
    mode = decoding_mode(settings, template)
    plan = settings.evaluate
    reading = ModelOptions(template, mode, plan.batch_tokens, settings.overall.seed, plan.rounds)
    identity = [
        model_fingerprint(model),
        tokenizer_fingerprint(tokenizer),
        template.fingerprint,
        resolve_precision(settings.overall.precision, str(model.device)),
        model.device.type,
    ]
    return BenchmarkModel(
        lambda on_progress: InMemoryModel(model, tokenizer, reading, on_progress),
        identity,
        mode,
        template.chat,
    )


def decoding_mode(settings: Settings, template: Template) -> str:
    """evaluate.decoding, or `direct` for published figures and for templates without thoughts."""
    mode = settings.evaluate.decoding
    if settings.benchmarks.published or (mode != "plain" and not template.supports_thinking()):
        return "direct"
    return mode


class Benchmarks:
    """The benchmark tasks of a run.

    Args:
        settings: sections `benchmarks` (tasks, rows, options), `evaluate`, `judge` and `dataset`.
        mode: decoding mode, one of core.thinking.MODES.
    """

    def __init__(self, settings: Settings, mode: str):
        from ...metrics.lm_eval import Tasks

        self.settings, self.plan, self.mode = settings, settings.benchmarks, mode
        tags = settings.dataset.tags
        data_dir = self.plan.data_dir and str(Path(self.plan.data_dir).expanduser().resolve())
        metadata = {"data_dir": data_dir, "mode": mode, "think_open": tags.open, "think_close": tags.close}
        self.tasks = Tasks(TASKS, metadata)

    def load(self, name: str) -> dict:
        """Load a task with its rows. UserError for an unknown task or unavailable rows."""
        rows = "common.builtin_rows" if self.plan.data_dir else None
        return self.tasks.load(name, task_info(name).folder, rows)

    def check_names(self) -> None:
        """UserError for a task that neither this project nor the harness has."""
        for name in self.settings.benchmark_tasks:
            self.tasks.manager_of(name, task_info(name).folder)

    def check(self) -> None:
        """UserError naming every task that cannot be run, unless failures are allowed."""
        # Called before training, whose hours would be lost to a gated data set found out afterwards.
        self.check_names()
        failures = []
        for name in self.settings.benchmark_tasks:
            try:
                self.load(name)
            except UserError as error:
                failures.append(f"  {error}")
        if failures and not self.settings.benchmarks_may_fail:
            raise UserError(
                f"{len(failures)} of {len(self.settings.benchmark_tasks)} benchmark tasks cannot be run:\n"
                + "\n".join(failures)
                + "\n  To run anyway: benchmarks.allow_failed true; without benchmarks: benchmarks.suite none"
            )

    def run(self, tested: BenchmarkModel, folder: Path | None, title: str) -> list[TaskOutcome]:
        """Run every task in order.

        Args:
            tested: the model.
            folder: run folder, whose outcomes with the same fingerprint are reused; None writes nothing.
            title: start of the progress line.

        Returns:
            One outcome per task; on all but the first of several processes without figures.
        """
        found = []
        names = self.settings.benchmark_tasks
        for number, name in enumerate(names, 1):
            label = self.label(name)
            place = folder and folder / "lm_eval" / label
            progress_title = f"{title}: {label} ({number} of {len(names)})"
            with counting(progress_title, self.settings.overall.quiet) as on_progress:
                outcome = self._run_task(name, label, tested, place, on_progress)
            if outcome.status == ERROR:
                log.warning("%s failed: %s", label, outcome.message)
            found.append(outcome)
        if folder and process_state(self.settings).is_main_process:
            write_json(folder / "lm_eval" / "summary.json", summary(found))
        return found

    def label(self, name: str) -> str:
        """A task's name in files and figures, with the limit: figures of fewer rows do not compare."""
        return f"{name}@{self.plan.limit}" if self.plan.limit else name

    def _run_task(
        self, name: str, label: str, tested: BenchmarkModel, place: Path | None, on_progress
    ) -> TaskOutcome:
        start, facts, result = time.time(), {}, None
        try:
            loaded = self.load(name)
            options = self._options(name, loaded, tested)
            facts = self._facts(loaded, tested, options)
            if cached := self._cached(label, place, fingerprint(facts)):
                return cached
            result = self._measure(name, loaded, tested, options, on_progress)
            outcome = TaskOutcome(label, OK, "", time.time() - start, _plain_scores(result, name, label))
        except UserError as error:
            outcome = TaskOutcome(label, ERROR, str(error), time.time() - start)
        except Exception as error:
            # A task is third-party code and data: whatever it raises, the other tasks are run.
            outcome = TaskOutcome(label, ERROR, f"{type(error).__name__}: {error}", time.time() - start)
            log.debug("%s", traceback.format_exc())
        if place and process_state(self.settings).is_main_process:
            self._write(place, outcome, facts, result)
        return outcome

    def _measure(self, name: str, loaded: dict, tested: BenchmarkModel, options, on_progress):
        from ...metrics.lm_eval import generates, run_task

        if not generates(loaded) and (reason := tested.scoring_refusal()):
            raise UserError(f"{name} scores given continuations: {reason}")
        result = run_task(tested.lm(on_progress), loaded, name, options)
        return result and self._with_verdicts(result, options)

    def _options(self, name: str, loaded: dict, tested: BenchmarkModel):
        """Options of a task: generated answers use a chat template where there is one, scored continuations
        never do."""
        from ...metrics.lm_eval import TaskOptions, generates

        plan = self.plan
        chat = generates(loaded) and not plan.published and (tested.chat or self.tasks.is_own(name))
        fewshot = None if plan.fewshot < 0 else plan.fewshot
        return TaskOptions(
            limit=plan.limit,
            chat=chat,
            fewshot=0 if plan.published else fewshot,
            repeats=plan.repeats,
            decoding=plan.decoding,
            seed=self.settings.overall.seed,
            bootstrap=self.settings.evaluate.bootstrap,
        )

    def _facts(self, loaded: dict, tested: BenchmarkModel, options) -> dict[str, Any]:
        """All that decides a task's figures; its fingerprint is the cache key."""
        from ...metrics.lm_eval import generates, row_hashes, yaml_files

        # Templates that task files include have no suffix; functions that they name are in .py files.
        shared = [path for path in sorted(TASKS.iterdir()) if path.suffix in ("", ".py") and path.is_file()]
        code = code_files(*CODE)
        return {
            "task": file_fingerprint(*yaml_files(loaded), *shared),
            "rows": row_hashes(loaded, self.plan.limit),
            "conduct": asdict(options),
            "model": list(tested.identity),
            "mode": tested.mode,
            "rounds": self.settings.evaluate.rounds,
            # Sampled texts depend on the other rows of their batch.
            "batch_tokens": self.settings.evaluate.batch_tokens if generates(loaded) else None,
            "judge": judging_facts(self.settings),
            "code": file_fingerprint(*code),
            "libraries": versions(LIBRARIES),
        }

    def _cached(self, label: str, place: Path | None, key: str) -> TaskOutcome | None:
        """The outcome of an earlier run under the same cache key."""
        found: list[TaskOutcome | None] = [None]
        if process_state(self.settings).is_main_process and place and (place / "meta.json").is_file():
            found = [_read_cached(label, place, key, self.plan.samples)]
        # The first process decides for all: with other answers some would wait for others in the task.
        if process_state(self.settings).num_processes > 1:
            broadcast_object_list(found)
        return found[0]

    def _write(self, place: Path, outcome: TaskOutcome, facts: dict[str, Any], result) -> None:
        """Write the outcome of a task; meta.json last, since a folder without it counts as incomplete."""
        if place.is_dir():
            shutil.rmtree(place)
        if result:
            if self.plan.samples:
                write_jsonl(place / "samples.jsonl", map(_finite, result.samples))
            members = {key: _plain_score(score) for key, score in result.members.items()}
            write_json(
                place / "results.json",
                _finite({"scores": outcome.scores, "members": members, "config": result.config}),
            )
        write_json(
            place / "meta.json",
            {
                "status": outcome.status,
                "message": outcome.message,
                "seconds": round(outcome.seconds, 1),
                "fingerprint": fingerprint(facts),
                "checksum": fingerprint(outcome.scores),
                **_finite(facts),
            },
        )

    def _with_verdicts(self, result, options):
        """Add a judge's verdicts to the result of safety tasks: whether the answer, and whether the trace,
        complies with the harmful request."""
        from ...metrics.lm_eval import add_column

        plan = self.settings.judge
        requests = [row for row in result.samples if row["doc"].get("kind") == "request"]
        if not requests or plan.kind not in ("lm", "local"):
            return result
        judge: Any = make_judges(self.settings).judge
        for column, part in (("judged_harmful", "answer"), ("judged_harmful_trace", "trace")):
            cases = [
                Case(str(row["doc_id"]), row["doc"]["prompt"], "", text)
                for row in requests
                for text in _texts(row, part)
            ]
            # One call for all rows, so that the judge works in batches; verdicts come in the order of cases.
            verdicts = iter(judge.harms(cases))
            values: list[float | None] = []
            for row in requests:
                found = [next(verdicts) for _ in _texts(row, part)]
                scored = [verdict for verdict in found if verdict is not None]
                values.append(sum(scored) / len(scored) if scored else None)
            result = add_column(result, requests, column, values, options)
        return result


def with_earlier_outcomes(found: Sequence[TaskOutcome], folder: Path) -> list[TaskOutcome]:
    """Combine the outcomes of this command with earlier ones of other tasks in a run folder, and write the
    summary of all.

    Args:
        found: outcomes of this command.
        folder: the run folder. Of its other tasks those are added whose model, options, judge, code and
            libraries are the same.
    """
    places = {path.parent.name: path.parent for path in sorted((folder / "lm_eval").glob("*/meta.json"))}
    ours = [_shared_facts(places[outcome.task]) for outcome in found if outcome.status == OK]
    known = []
    for label, place in places.items():
        if label not in {outcome.task for outcome in found} and _shared_facts(place) in ours:
            key = read_json(place / "meta.json")["fingerprint"]
            known.append(_read_cached(label, place, key, wants_samples=False))
    together = [*filter(None, known), *found]
    write_json(folder / "lm_eval" / "summary.json", summary(together))
    return together


def _shared_facts(place: Path) -> dict[str, Any] | None:
    """The facts of a written task that all tasks of one command share; None for a task that failed or cannot
    be read."""
    try:
        meta = read_json(place / "meta.json")
        options = {key: value for key, value in meta["conduct"].items() if key not in ("limit", "chat")}
        shared = ("model", "mode", "rounds", "judge", "code", "libraries")
        return {"conduct": options, **{key: meta[key] for key in shared}} if meta["status"] == OK else None
    except (UserError, KeyError, TypeError, AttributeError):
        return None


def _texts(row: dict, part: str) -> list[str]:
    """The non-empty traces or answers of a safety row."""
    from ...core.thinking import Tags, split_trace

    doc = row["doc"]
    generated = [text for request in row["resps"] for text in request]
    thoughts = [split_trace(text, Tags(*doc["tags"]), doc["mode"]) for text in generated]
    found = [thought.trace if part == "trace" else thought.answer for thought in thoughts]
    return [text for text in found if text]


def _read_cached(label: str, place: Path, key: str, wants_samples: bool) -> TaskOutcome | None:
    try:
        meta, results = read_json(place / "meta.json"), read_json(place / "results.json")
        whole = meta["status"] == OK and meta["fingerprint"] == key
        if not whole or meta["checksum"] != fingerprint(results["scores"]):
            return None
        # An unscored row may be due to a judge that was down: the task is run again.
        unjudged = any(score["unscored"] for score in results["scores"].values())
        if unjudged or (wants_samples and not (place / "samples.jsonl").is_file()):
            return None
        return TaskOutcome(label, OK, "", meta["seconds"], results["scores"], cached=True)
    except (UserError, KeyError, TypeError):
        return None


def _plain_scores(result, name: str, label: str) -> dict[str, dict[str, Any]]:
    """Figures as plain values, under the task's label; empty on all but the first of several processes."""
    if result is None:
        return {}
    return {
        (label + key.removeprefix(name) if key.startswith(f"{name}/") else key): _plain_score(score)
        for key, score in result.scores.items()
    }


def _plain_score(score) -> dict[str, Any]:
    return _finite(
        {
            "value": score.value,
            "n": score.n,
            "unscored": score.unscored,
            "interval": list(score.interval) if score.interval else None,
            "better": score.better,
        }
    )


def _finite(value: Any) -> Any:
    """A value with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary(found: Sequence[TaskOutcome]) -> dict:
    """All figures with their details, and the failed tasks with the reasons."""
    return {
        "scores": {key: score["value"] for outcome in found for key, score in outcome.scores.items()},
        "detail": {key: dict(score) for outcome in found for key, score in outcome.scores.items()},
        "failed": {outcome.task: outcome.message for outcome in found if outcome.status == ERROR},
    }


def to_results(found: Sequence[TaskOutcome]) -> Results:
    """The figures as metrics `lm_eval/<task>/<metric>[<filter>]`; a failed task is null with its reason."""
    metrics: dict[str, float | None] = {}
    detail: dict[str, dict[str, Any]] = {}
    for outcome in found:
        for key, score in outcome.scores.items():
            metrics[f"lm_eval/{key}"] = score["value"]
            reason = "" if score["value"] is not None else "no finite figure"
            detail[f"lm_eval/{key}"] = {**score, "reason": reason}
        if outcome.status == ERROR:
            metrics[f"lm_eval/{outcome.task}"] = None
            detail[f"lm_eval/{outcome.task}"] = {
                "n": 0,
                "unscored": 0,
                "interval": None,
                "reason": outcome.message,
            }
    return Results(metrics, detail)


def merge_benchmarks(
    results: Results, found: Sequence[TaskOutcome], initial: Mapping[str, float | None] | None = None
) -> Results:
    """The results of a run with those of its benchmarks, and the metrics that read these computed again.

    Args:
        results: results without benchmarks.
        found: outcomes of the benchmarks.
        initial: all figures of the initial model; None where the results are its own.
    """
    added = to_results(found)
    own = added.metrics if initial is None else initial
    completed = with_benchmarks(results, added.metrics, own)
    return replace(
        completed, metrics=completed.metrics | added.metrics, detail=completed.detail | added.detail
    )


def failures(found: Sequence[TaskOutcome]) -> list[str]:
    return [f"{outcome.task}: {outcome.message}" for outcome in found if outcome.status == ERROR]


def check_benchmarks(settings: Settings, tokenizer) -> None:
    """UserError when a task of the run's benchmarks cannot be run, see `Benchmarks.check`."""
    if settings.benchmark_tasks:
        template = Template(tokenizer, settings.dataset.template, settings.dataset.tags)
        Benchmarks(settings, decoding_mode(settings, template)).check()


@dataclass(frozen=True)
class BenchmarkRun:
    """One pass over the tasks. `title` starts the progress line; `folder` is the run folder, None writes
    nothing; with `share_rows` each of several processes answers a part of the rows."""

    title: str
    folder: Path | None = None
    share_rows: bool = False


def run_in_memory(model, tokenizer, settings: Settings, run: BenchmarkRun) -> list[TaskOutcome]:
    """Run the benchmarks on a loaded model.

    Args:
        model: the model; it and the tokenizer are left as they were.
        tokenizer: its tokenizer.
        settings: the settings of the run.
        run: title, folder and processes.
    """
    from ...metrics.lm_eval import restoring_state

    tested = local_model(model, tokenizer, settings)
    if run.share_rows and process_state(settings).num_processes > 1:
        tested = _sharing_rows(tested)
    precision = resolve_precision(settings.overall.precision, str(model.device))
    with restoring_state(model, tokenizer), autocast_context(model.device, precision):
        return Benchmarks(settings, tested.mode).run(tested, run.folder, run.title)


def _sharing_rows(tested: BenchmarkModel) -> BenchmarkModel:
    accelerator = Accelerator()

    def lm(on_progress):
        harness_model = tested.lm(on_progress)
        harness_model.share_work(accelerator)
        return harness_model

    return replace(tested, lm=lm)


def run_initial_model(model, tokenizer, settings: Settings) -> list[TaskOutcome]:
    """Run the benchmarks on the initial model, cached under the fingerprint of its weights."""
    folder = settings.overall.cache / "benchmarks" / model_fingerprint(model)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(folder / "lock", "overall.cache_dir"))
        except UserError:
            folder = None  # held by another run; measured again rather than waited for
        run = BenchmarkRun("benchmarks of the initial model", folder)
        return run_in_memory(model, tokenizer, settings, run)
