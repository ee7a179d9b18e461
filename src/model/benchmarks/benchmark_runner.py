"""Runs benchmarks of lm-evaluation-harness on a model, one task at a time, and keeps what each came to.

    <folder>/lm_eval/<task>/meta.json       how it went, the fingerprint of all that decides its figures
    <folder>/lm_eval/<task>/results.json    figures, those of a group's members, the harness's configuration
    <folder>/lm_eval/<task>/samples.jsonl   every row with what was written to it
    <folder>/lm_eval/summary.json           all figures

A task whose fingerprint is as it was is not run again. One that fails is recorded with its reason, and the
others go on.
"""

import contextlib
import logging
import math
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ...core.encoding import Template
from ...core.files import UserError, file_fingerprint, fingerprint, lock, read_json, write_json, write_jsonl
from ...core.project import code_files
from ...loggers.logger import Results
from ...metrics.spec import Case
from ..evaluation import judging_facts, tokenizer_fingerprint
from ..judges import make_judges
from ..load.loading import autocast_context, choose_precision, model_fingerprint
from ..run.places import process_state
from ..run.progress import counting
from ..settings import Settings
from .suites import TASKS, facts_of

log = logging.getLogger(__name__)

CODE = ("core", "metrics/lm_eval.py", "model/benchmarks/benchmark_runner.py")
LIBRARIES = ("lm_eval", "torch", "transformers", "datasets")
OK, ERROR = "ok", "error"


@dataclass(frozen=True)
class Done:
    """What a task came to. `scores`: `<task>/<metric>[<filter>]` -> {value, n, interval, better}; `kept`: it
    was there from an earlier run."""

    task: str
    status: str
    message: str = ""
    seconds: float = 0.0
    scores: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    kept: bool = False


@dataclass(frozen=True)
class Subject:
    """A model for the harness. `lm` makes it from a function that is told the progress; `identity` is what
    tells its answers from another's; `refuses` says why it cannot score given continuations, if so."""

    lm: Callable[[Callable[[int, int], None]], Any]
    identity: Sequence[Any]
    mode: str
    chat: bool
    """Has it a chat template?"""
    refuses: Callable[[], str] = lambda: ""


def in_memory(model, tokenizer, settings: Settings) -> Subject:
    """A loaded model. It is asked to think where its template knows how to."""
    from ...metrics.lm_eval import InMemoryModel, ModelOptions

    template = Template(tokenizer, settings.dataset.template, settings.dataset.tags)
    mode = mode_of(settings, template)
    plan = settings.evaluate
    reading = ModelOptions(template, mode, plan.batch_tokens, settings.overall.seed, plan.rounds)
    identity = [
        model_fingerprint(model),
        tokenizer_fingerprint(tokenizer),
        template.fingerprint,
        choose_precision(settings.overall.precision, str(model.device)),
        model.device.type,
    ]
    return Subject(
        lambda on_progress: InMemoryModel(model, tokenizer, reading, on_progress),
        identity,
        mode,
        template.chat,
    )


def mode_of(settings: Settings, template: Template) -> str:
    """How the model is asked: as evaluate.decoding says, plainly where published figures are wanted or the
    template knows no thoughts."""
    mode = settings.evaluate.decoding
    if settings.benchmarks.published or (mode != "plain" and not template.supports_thinking()):
        return "direct"
    return mode


class Benchmarks:
    """The benchmarks of a run: `settings` say which, on which rows and how."""

    def __init__(self, settings: Settings, mode: str):
        from ...metrics.lm_eval import Tasks

        self.settings, self.plan, self.mode = settings, settings.benchmarks, mode
        tags = settings.dataset.tags
        data_dir = self.plan.data_dir and str(Path(self.plan.data_dir).expanduser().resolve())
        metadata = {"data_dir": data_dir, "mode": mode, "think_open": tags.open, "think_close": tags.close}
        self.tasks = Tasks(TASKS, metadata)

    def load(self, name: str) -> dict:
        """A task with its rows; UserError when it is unknown or they are not to be had."""
        rows = "common.builtin_rows" if self.plan.data_dir else None
        return self.tasks.load(name, facts_of(name).folder, rows)

    def check_names(self) -> None:
        """UserError for a task that neither we nor the harness have."""
        for name in self.settings.benchmark_tasks:
            self.tasks.manager_of(name, facts_of(name).folder)

    def check(self) -> None:
        """UserError naming every task that cannot be run here, unless failures are allowed: before the heavy
        work that comes first."""
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
                + "\n  To go on: benchmarks.allow_failed true, or without any, benchmarks.suite none"
            )

    def run(self, subject: Subject, folder: Path | None, title: str) -> list[Done]:
        """Every task on the subject, in order. What is in `folder` with the same fingerprint is taken from
        there; None keeps nothing."""
        found = []
        names = self.settings.benchmark_tasks
        for place, name in enumerate(names, 1):
            label = self.label(name)
            with counting(f"{title}: {label} ({place} of {len(names)})", self.settings.overall.quiet) as tell:
                done = self._one(name, label, subject, folder and folder / "lm_eval" / label, tell)
            if done.status == ERROR:
                log.warning("%s failed: %s", label, done.message)
            found.append(done)
        if folder and process_state(self.settings).is_main_process:
            write_json(folder / "lm_eval" / "summary.json", summary(found))
        return found

    def label(self, name: str) -> str:
        """A task's name in files and figures: with a limit it says so, since such a figure is another."""
        return f"{name}@{self.plan.limit}" if self.plan.limit else name

    def _one(self, name: str, label: str, subject: Subject, place: Path | None, tell) -> Done:
        start, facts, result = time.time(), {}, None
        try:
            loaded = self.load(name)
            conduct = self._conduct(name, loaded, subject)
            facts = self._facts(loaded, subject, conduct)
            if kept := self._kept(label, place, fingerprint(facts)):
                return kept
            result = self._measure(name, loaded, subject, conduct, tell)
            done = Done(label, OK, "", time.time() - start, _plain_scores(result, name, label))
        except UserError as error:
            done = Done(label, ERROR, str(error), time.time() - start)
        except Exception as error:
            # A task is code and data of others: whatever it raises, the others go on.
            done = Done(label, ERROR, f"{type(error).__name__}: {error}", time.time() - start)
            log.debug("%s", traceback.format_exc())
        if place and process_state(self.settings).is_main_process:
            self._keep(place, done, facts, result)
        return done

    def _measure(self, name: str, loaded: dict, subject: Subject, conduct, tell):
        from ...metrics.lm_eval import generates, run_task

        if not generates(loaded) and (reason := subject.refuses()):
            raise UserError(f"{name} scores given continuations: {reason}")
        result = run_task(subject.lm(tell), loaded, name, conduct)
        return result and self._judged(result, conduct)

    def _conduct(self, name: str, loaded: dict, subject: Subject):
        """How a task is put: scored continuations never through a chat template, written answers through it
        where there is one."""
        from ...metrics.lm_eval import TaskOptions, generates

        plan = self.plan
        chat = generates(loaded) and not plan.published and (subject.chat or self.tasks.is_own(name))
        fewshot = 0 if plan.published else None if plan.fewshot < 0 else plan.fewshot
        return TaskOptions(
            plan.limit,
            chat,
            fewshot,
            plan.repeats,
            plan.decoding,
            self.settings.overall.seed,
            self.settings.evaluate.bootstrap,
        )

    def _facts(self, loaded: dict, subject: Subject, conduct) -> dict[str, Any]:
        """All that decides a task's figures: its files and rows, how it is put, the model, the code and the
        libraries."""
        from ...metrics.lm_eval import generates, row_hashes, yaml_files

        shared = [path for path in sorted(TASKS.iterdir()) if path.suffix in ("", ".py") and path.is_file()]
        code = code_files(*CODE)
        return {
            "task": file_fingerprint(*yaml_files(loaded), *shared),
            "rows": row_hashes(loaded, self.plan.limit),
            "conduct": asdict(conduct),
            "model": list(subject.identity),
            "mode": subject.mode,
            "rounds": self.settings.evaluate.rounds,
            # What is drawn depends on what stands beside it in a batch.
            "batch_tokens": self.settings.evaluate.batch_tokens if generates(loaded) else None,
            "judge": judging_facts(self.settings),
            "code": file_fingerprint(*code),
            "libraries": {library: version(library) for library in LIBRARIES},
        }

    def _kept(self, label: str, place: Path | None, key: str) -> Done | None:
        """What an earlier run found, when nothing that decides it has changed. Of several processes the first
        decides for all."""
        answer: list[Done | None] = [None]
        if process_state(self.settings).is_main_process and place and (place / "meta.json").is_file():
            answer = [_read_kept(label, place, key, self.plan.samples)]
        if process_state(self.settings).num_processes > 1:
            broadcast_object_list(answer)
        return answer[0]

    def _keep(self, place: Path, done: Done, facts: dict[str, Any], result) -> None:
        """Write what a task came to, meta.json last: without it nothing is taken for whole."""
        if place.is_dir():
            shutil.rmtree(place)
        if result:
            if self.plan.samples:
                write_jsonl(place / "samples.jsonl", map(_finite, result.samples))
            members = {key: _plain_score(score) for key, score in result.members.items()}
            write_json(
                place / "results.json",
                _finite({"scores": done.scores, "members": members, "config": result.config}),
            )
        write_json(
            place / "meta.json",
            {
                "status": done.status,
                "message": done.message,
                "seconds": round(done.seconds, 1),
                "fingerprint": fingerprint(facts),
                "checksum": fingerprint(done.scores),
                **_finite(facts),
            },
        )

    def _judged(self, result, conduct):
        """The result of safety tasks with the verdicts of a judge that is a language model: whether the
        answer, and whether the trace, gives the help that was asked for."""
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
            verdicts = iter(judge.harms(cases))
            per_row = [[next(verdicts) for _ in _texts(row, part)] for row in requests]
            values = [_mean([v for v in row if v is not None]) for row in per_row]
            result = add_column(result, requests, column, values, conduct)
        return result


def with_earlier(found: Sequence[Done], folder: Path) -> list[Done]:
    """What commands before this one measured of other tasks in `folder`, as far as all that decides a figure
    beside the task and its rows is the same, then what this one found. Writes the summary of all."""
    places = {path.parent.name: path.parent for path in sorted((folder / "lm_eval").glob("*/meta.json"))}
    ours = [_shared_facts(places[done.task]) for done in found if done.status == OK]
    known = []
    for label, place in places.items():
        if label not in {done.task for done in found} and _shared_facts(place) in ours:
            key = read_json(place / "meta.json")["fingerprint"]
            known.append(_read_kept(label, place, key, wants_samples=False))
    together = [*filter(None, known), *found]
    write_json(folder / "lm_eval" / "summary.json", summary(together))
    return together


def _shared_facts(place: Path) -> dict[str, Any] | None:
    """Of a task that is there, all that decides its figures but the task itself, its rows, and whether its
    prompts go through the chat template; None when it failed or cannot be read."""
    try:
        meta = read_json(place / "meta.json")
        conduct = {key: value for key, value in meta["conduct"].items() if key not in ("limit", "chat")}
        shared = ("model", "mode", "rounds", "judge", "code", "libraries")
        return {"conduct": conduct, **{key: meta[key] for key in shared}} if meta["status"] == OK else None
    except (UserError, KeyError, TypeError, AttributeError):
        return None


def _texts(row: dict, part: str) -> list[str]:
    """Traces or answers of a safety row, those that there are."""
    from ...core.thinking import Tags, split_trace

    doc = row["doc"]
    said = [text for request in row["resps"] for text in request]
    thoughts = [split_trace(text, Tags(*doc["tags"]), doc["mode"]) for text in said]
    found = [thought.trace if part == "trace" else thought.answer for thought in thoughts]
    return [text for text in found if text]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _read_kept(label: str, place: Path, key: str, wants_samples: bool) -> Done | None:
    try:
        meta, results = read_json(place / "meta.json"), read_json(place / "results.json")
        whole = meta["status"] == OK and meta["fingerprint"] == key
        if not whole or meta["checksum"] != fingerprint(results["scores"]):
            return None
        unjudged = any(score["unscored"] for score in results["scores"].values())
        if unjudged or (wants_samples and not (place / "samples.jsonl").is_file()):
            return None
        return Done(label, OK, "", meta["seconds"], results["scores"], kept=True)
    except (UserError, KeyError, TypeError):
        return None


def _plain_scores(result, name: str, label: str) -> dict[str, dict[str, Any]]:
    """Figures as plain values, under the task's label; none on all but the first of several processes."""
    if result is None:
        return {}
    return {
        (label + key.removeprefix(name) if key.startswith(f"{name}/") else key): _plain_score(score)
        for key, score in result.scores.items()
    }


def _plain_score(score) -> dict[str, Any]:
    around = list(score.interval) if score.interval else None
    return _finite(
        {
            "value": score.value,
            "n": score.n,
            "unscored": score.unscored,
            "interval": around,
            "better": score.better,
        }
    )


def _finite(value: Any) -> Any:
    """A value without NaN and infinities, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary(found: Sequence[Done]) -> dict:
    """All figures with what is known of them, and the tasks that failed with the reason."""
    return {
        "scores": {key: score["value"] for done in found for key, score in done.scores.items()},
        "detail": {key: dict(score) for done in found for key, score in done.scores.items()},
        "failed": {done.task: done.message for done in found if done.status == ERROR},
    }


def as_results(found: Sequence[Done]) -> Results:
    """The figures as metrics `lm_eval/<task>/<metric>[<filter>]`; a task that failed is null with its
    reason."""
    metrics: dict[str, float | None] = {}
    detail: dict[str, dict[str, Any]] = {}
    for done in found:
        for key, score in done.scores.items():
            metrics[f"lm_eval/{key}"] = score["value"]
            reason = "" if score["value"] is not None else "no finite figure"
            detail[f"lm_eval/{key}"] = {**score, "reason": reason}
        if done.status == ERROR:
            metrics[f"lm_eval/{done.task}"] = None
            detail[f"lm_eval/{done.task}"] = {
                "n": 0,
                "unscored": 0,
                "interval": None,
                "reason": done.message,
            }
    return Results(metrics, detail)


def merged(results: Results, found: Sequence[Done]) -> Results:
    """The results of a run with those of its benchmarks."""
    more = as_results(found)
    return replace(results, metrics=results.metrics | more.metrics, detail=results.detail | more.detail)


def failures(found: Sequence[Done]) -> list[str]:
    return [f"{done.task}: {done.message}" for done in found if done.status == ERROR]


def check_benchmarks(settings: Settings, tokenizer) -> None:
    """UserError when a task of the run's benchmarks cannot be had here, see `Benchmarks.check`."""
    if settings.benchmark_tasks:
        template = Template(tokenizer, settings.dataset.template, settings.dataset.tags)
        Benchmarks(settings, mode_of(settings, template)).check()


def run_in_memory(
    model, tokenizer, settings: Settings, folder: Path | None, title: str, share: bool = False
) -> list[Done]:
    """Benchmarks of a loaded model, which is left as it was found. `share`: several processes hold it and
    each answers a part."""
    from ...metrics.lm_eval import restoring_state

    subject = in_memory(model, tokenizer, settings)
    if share and process_state(settings).num_processes > 1:
        accelerator = Accelerator()
        subject = _shared(subject, accelerator)
    precision = choose_precision(settings.overall.precision, str(model.device))
    with restoring_state(model, tokenizer), autocast_context(model.device, precision):
        return Benchmarks(settings, subject.mode).run(subject, folder, title)


def run_initial_model(model, tokenizer, settings: Settings) -> list[Done]:
    """Benchmarks of the initial model, cached under a hash of its weights; not cached while another run holds
    that folder."""
    folder = settings.overall.cache / "benchmarks" / model_fingerprint(model)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(folder / "lock", "overall.cache_dir"))
        except UserError:
            folder = None
        return run_in_memory(model, tokenizer, settings, folder, "benchmarks of the initial model")


def _shared(subject: Subject, accelerator) -> Subject:
    def lm(on_progress):
        made = subject.lm(on_progress)
        made.share_work(accelerator)
        return made

    return replace(subject, lm=lm)
