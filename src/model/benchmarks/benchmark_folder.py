"""run_benchmarks.py: the run folder of benchmarks, the plan that is shown before, the table that is shown
after."""

import contextlib
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from ...core.encoding import Template
from ...core.files import UserError, lock, write_json
from ...core.screen import Screen
from ...metrics.spec import ARROWS
from ..load.loading import initial_tokenizer, load_initial
from ..run.environment import environment
from ..run.places import process_state
from ..settings.run_settings import Settings
from .benchmark_runner import ERROR, Benchmarks, Done, as_results, mode_of, run_in_memory, with_earlier
from .suites import TaskInfo, task_info

RUN_FOLDER_ENTRIES = (
    "config.json",
    "metrics.json",
    "metrics_detail.json",
    "environment.json",
    "lm_eval",
    "lock",
)


def run_benchmarks(settings: Settings) -> tuple[list[Done] | None, Path]:
    """Run the tasks and write the run folder; (None, folder) on all but the first of several processes."""
    start, state = time.time(), process_state(settings)
    overall, plan = settings.overall, settings.benchmarks
    folder = run_folder(settings)
    Benchmarks(settings, "direct").check_names()
    with _writing(folder, settings) if state.is_main_process else contextlib.nullcontext():
        if plan.backend == "transformers":
            tokenizer = initial_tokenizer(overall)
            model = load_initial(overall, state.local_process_index)
            found = run_in_memory(model, tokenizer, settings, folder, _title(settings), share=True)
        else:
            from .served_models import served

            subject = served(settings)
            found = Benchmarks(settings, subject.mode).run(subject, folder, _title(settings))
        if not state.is_main_process:
            return None, folder
        results = as_results(with_earlier(found, folder))
        write_json(folder / "metrics_detail.json", results.detail)
        write_json(folder / "metrics.json", results.metrics)
        write_json(folder / "environment.json", environment(settings, state.num_processes, start, 0.0))
    return found, folder


def _title(settings: Settings) -> str:
    return Path(settings.overall.model_name).name


def run_folder(settings: Settings) -> Path:
    """The folder of logger.name, by default `benchmarks-<model>`: the same command finds what it did."""
    name = settings.logger.name or f"benchmarks-{_model_word(settings.overall.model_name)}"
    return Path(settings.json_logger.root).expanduser() / name


def _model_word(name: str) -> str:
    """The last two parts of a path, so that the checkpoints of two runs have two folders."""
    return "-".join(part for part in Path(name).parts[-2:] if part not in ("/", "..", "."))


@contextlib.contextmanager
def _writing(folder: Path, settings: Settings) -> Iterator[None]:
    """Hold the run folder; UserError when something else than benchmarks lies there."""
    strangers = (
        sorted(
            path.name
            for path in folder.iterdir()
            if path.name not in RUN_FOLDER_ENTRIES and path.name[0] != "."
        )
        if folder.is_dir()
        else []
    )
    if folder.is_file() or strangers:
        what = (
            f"holds {', '.join(strangers[:3])}, which benchmarks do not write" if strangers else "is a file"
        )
        raise UserError(f"{folder} {what}; choose another logger.name")
    with lock(folder / "lock"):
        (folder / "environment.json").unlink(missing_ok=True)
        write_json(folder / "config.json", settings.resolved())
        yield


# --- What is shown ------------------------------------------------------------------------------------------


def show_done(found: Sequence[Done], folder: Path) -> None:
    """Print a line per figure, the reasons of what failed, and the folder."""
    table, screen = Table(title="benchmarks"), Screen()
    for title in ("task", "metric (arrow = good)", "value", "95 % interval", "n", "seconds"):
        justify = "left" if title in ("task", "metric (arrow = good)") else "right"
        table.add_column(title, justify=justify, overflow="fold")
    for done in found:
        seconds = f"{done.seconds:.0f}" + (" (kept)" if done.kept else "")
        for place, (key, score) in enumerate(done.scores.items()):
            task, _, metric = key.rpartition("/")
            n = f"{score['n']}" + (f" (+{score['unscored']} unscored)" if score.get("unscored") else "")
            table.add_row(
                task if not place else "",
                f"{metric} {ARROWS.get(score['better'], '')}".strip(),
                _number(score["value"]),
                _around(score["interval"]),
                n,
                seconds if not place else "",
            )
        if done.status == ERROR:
            table.add_row(done.task, "failed", "–", "–", "–", f"{done.seconds:.0f}")
    screen.print(table)
    for done in found:
        if done.status == ERROR:
            screen.print_text(f"– {done.task}: {done.message}")
    screen.print_text(f"\nrun folder: {folder}")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}" if abs(value) >= 10 else f"{value:.3f}"


def _around(interval: Sequence[float] | None) -> str:
    return "–" if not interval else f"{interval[0]:.3f} to {interval[1]:.3f}"


def show_plan(settings: Settings) -> None:
    """Print what every task reads, what it needs and what it costs in tokens. Loads rows and the tokenizer,
    no model."""
    tokenizer = initial_tokenizer(settings.overall)
    template = Template(tokenizer, settings.dataset.template, settings.dataset.tags)
    benchmarks = Benchmarks(settings, mode_of(settings, template))
    table = Table(title=f"plan for {settings.overall.model_name}")
    for title in (
        "task",
        "rows",
        "asked for",
        "prompt tokens",
        "new tokens at most",
        "data, licence",
        "here",
    ):
        justify = "right" if "tokens" in title or title == "rows" else "left"
        table.add_column(title, justify=justify, overflow="fold")
    missing = {}
    for name in settings.benchmark_tasks:
        try:
            cells = _read_row(benchmarks.load(name), tokenizer, settings)
        except UserError as error:
            cells, missing[name] = _published_row(name, benchmarks), str(error)
        here = "no" if name in missing else "yes"
        table.add_row(benchmarks.label(name), *cells, _source(task_info(name)), here)
    screen = Screen(least_width=130)
    screen.print(table)
    screen.print_text(
        "~ as published, since the rows are not here. Prompt tokens are estimated from the first rows of a"
        " task; of new tokens a model writes fewer where it ends by itself."
    )
    for reason in missing.values():
        screen.print_text(f"– {reason}")


def _source(facts: TaskInfo) -> str:
    gated = ", gated" if facts.access == "gated" else ""
    return f"{facts.data or 'see its file'}, {facts.licence}{gated}"


def _read_row(loaded: dict, tokenizer, settings: Settings) -> Sequence[str]:
    """Rows, what is asked for and tokens of a task whose rows are here."""
    from ...metrics.lm_eval import costs_of

    plan = settings.benchmarks
    costs = costs_of(loaded, plan.limit, plan.repeats, plan.decoding)
    length = statistics.fmean(len(tokenizer(text)["input_ids"]) for text in costs.prompts)
    forwards = costs.samples if costs.new_tokens else 1
    return _cells(
        "", costs.rows, costs.samples, costs.new_tokens, f"{round(costs.rows * forwards * length):,}"
    )


def _published_row(name: str, benchmarks: Benchmarks) -> Sequence[str]:
    """The same as far as it is known of a task whose rows are not here."""
    facts, plan = task_info(name), benchmarks.plan
    rows = min(facts.rows, plan.limit or facts.rows)
    if facts.options or not rows:
        return _cells("~", rows, facts.options, 0, "–")
    declared = benchmarks.tasks.declared(name)
    settings = {**declared.get("generation_kwargs", {}), **plan.decoding}
    samples = plan.repeats or declared.get("repeats", 1)
    return _cells("~", rows, samples, settings.get("max_gen_toks", 0), "–")


def _cells(mark: str, rows: int, samples: int, new_tokens: int, prompt_tokens: str) -> Sequence[str]:
    what = f"text x {samples}" if new_tokens else f"{samples} continuations" if samples else "–"
    written = f"{mark}{rows * samples * new_tokens:,}" if new_tokens else "–"
    return f"{mark}{rows:,}" if rows else "–", what, prompt_tokens, written
