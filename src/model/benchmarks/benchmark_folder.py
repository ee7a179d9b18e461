"""Run folder, plan and table of run_benchmarks.py."""

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
from .benchmark_runner import (
    ERROR,
    BenchmarkRun,
    Benchmarks,
    TaskOutcome,
    decoding_mode,
    run_in_memory,
    to_results,
    with_earlier_outcomes,
)
from .suites import task_info

RUN_FOLDER_ENTRIES = (
    "config.json",
    "metrics.json",
    "metrics_detail.json",
    "environment.json",
    "lm_eval",
    "lock",
)


def run_benchmarks(settings: Settings) -> tuple[list[TaskOutcome] | None, Path]:
    """Run the tasks and write the run folder.

    Returns:
        (outcomes, run folder); outcomes are None on all but the first of several processes.

    Raises:
        UserError: an unknown task, or a run folder with other files.
    """
    start, state = time.time(), process_state(settings)
    overall, plan = settings.overall, settings.benchmarks
    folder, title = run_folder(settings), Path(overall.model_name).name
    Benchmarks(settings, "direct").check_names()
    with _locked_folder(folder, settings) if state.is_main_process else contextlib.nullcontext():
        if plan.backend == "transformers":
            tokenizer = initial_tokenizer(overall)
            model = load_initial(overall, state.local_process_index)
            run = BenchmarkRun(title, folder, share_rows=True)
            found = run_in_memory(model, tokenizer, settings, run)
        else:
            from .served_models import served_model

            tested = served_model(settings)
            found = Benchmarks(settings, tested.mode).run(tested, folder, title)
        if not state.is_main_process:
            return None, folder
        results = to_results(with_earlier_outcomes(found, folder))
        # environment.json is written last: a run folder without it counts as incomplete.
        write_json(folder / "metrics_detail.json", results.detail)
        write_json(folder / "metrics.json", results.metrics)
        write_json(folder / "environment.json", environment(settings, state.num_processes, start, 0.0))
    return found, folder


def run_folder(settings: Settings) -> Path:
    """The folder of logger.name, by default `benchmarks-<model>`."""
    # A fixed name, so that the same command resumes; two parts of the path, since the models of all runs are
    # called `checkpoints`.
    parts = [part for part in Path(settings.overall.model_name).parts[-2:] if part not in ("/", "..", ".")]
    name = settings.logger.name or f"benchmarks-{'-'.join(parts)}"
    return Path(settings.json_logger.root).expanduser() / name


@contextlib.contextmanager
def _locked_folder(folder: Path, settings: Settings) -> Iterator[None]:
    """Lock the run folder and write its config.json. UserError when it holds files of another script."""
    if folder.is_file():
        raise UserError(f"{folder} is a file; choose another logger.name")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in names if name not in RUN_FOLDER_ENTRIES and name[0] != "."]
    if others:
        raise UserError(
            f"{folder} holds {', '.join(others[:3])}, which benchmarks do not write; choose another"
            " logger.name"
        )
    with lock(folder / "lock"):
        (folder / "environment.json").unlink(missing_ok=True)
        write_json(folder / "config.json", settings.resolved())
        yield


# --- Screens ------------------------------------------------------------------------------------------------


def show_outcomes(found: Sequence[TaskOutcome], folder: Path) -> None:
    """Print a line per figure, the reasons of failed tasks, and the folder."""
    table, screen = Table(title="benchmarks"), Screen()
    for title in ("task", "metric (arrow = good)", "value", "95 % interval", "n", "seconds"):
        justify = "left" if title in ("task", "metric (arrow = good)") else "right"
        table.add_column(title, justify=justify, overflow="fold")
    for outcome in found:
        seconds = f"{outcome.seconds:.0f}" + (" (cached)" if outcome.cached else "")
        for place, (key, score) in enumerate(outcome.scores.items()):
            task, _, metric = key.rpartition("/")
            n = f"{score['n']}" + (f" (+{score['unscored']} unscored)" if score.get("unscored") else "")
            table.add_row(
                task if not place else "",
                f"{metric} {ARROWS.get(score['better'], '')}".strip(),
                _number(score["value"]),
                "–" if not score["interval"] else "{:.3f} to {:.3f}".format(*score["interval"]),
                n,
                seconds if not place else "",
            )
        if outcome.status == ERROR:
            table.add_row(outcome.task, "failed", "–", "–", "–", f"{outcome.seconds:.0f}")
    screen.print(table)
    for outcome in found:
        if outcome.status == ERROR:
            screen.print_text(f"– {outcome.task}: {outcome.message}")
    screen.print_text(f"\nrun folder: {folder}")


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if abs(value) >= 10 else f"{value:.3f}"


def show_plan(settings: Settings) -> None:
    """Print data, licence and cost in tokens of every task. Loads rows and the tokenizer, but no model."""
    tokenizer = initial_tokenizer(settings.overall)
    template = Template(tokenizer, settings.dataset.template, settings.dataset.tags)
    benchmarks = Benchmarks(settings, decoding_mode(settings, template))
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
            cells = _cells_of_loaded(benchmarks.load(name), tokenizer, settings)
        except UserError as error:
            cells, missing[name] = _cells_of_published(name, benchmarks), str(error)
        info = task_info(name)
        gated = ", gated" if info.access == "gated" else ""
        source = f"{info.data or 'see its file'}, {info.licence}{gated}"
        table.add_row(benchmarks.label(name), *cells, source, "no" if name in missing else "yes")
    screen = Screen(least_width=130)
    screen.print(table)
    screen.print_text(
        "~ as published, since the rows are not here. Prompt tokens are estimated from the first rows of a"
        " task. Texts may end before the limit of new tokens."
    )
    for reason in missing.values():
        screen.print_text(f"– {reason}")


def _cells_of_loaded(loaded: dict, tokenizer, settings: Settings) -> Sequence[str]:
    """Rows, request and tokens of a task whose rows are available."""
    from ...metrics.lm_eval import costs_of

    plan = settings.benchmarks
    costs = costs_of(loaded, plan.limit, plan.repeats, plan.decoding)
    length = statistics.fmean(len(tokenizer(text)["input_ids"]) for text in costs.prompts)
    forwards = costs.samples if costs.new_tokens else 1
    return _cells(
        "", costs.rows, costs.samples, costs.new_tokens, f"{round(costs.rows * forwards * length):,}"
    )


def _cells_of_published(name: str, benchmarks: Benchmarks) -> Sequence[str]:
    """The same cells from the published numbers of a task."""
    info, plan = task_info(name), benchmarks.plan
    rows = min(info.rows, plan.limit or info.rows)
    if info.options or not rows:
        return _cells("~", rows, info.options, 0, "–")
    declared = benchmarks.tasks.declared(name)
    settings = {**declared.get("generation_kwargs", {}), **plan.decoding}
    samples = plan.repeats or declared.get("repeats", 1)
    return _cells("~", rows, samples, settings.get("max_gen_toks", 0), "–")


def _cells(mark: str, rows: int, samples: int, new_tokens: int, prompt_tokens: str) -> Sequence[str]:
    if new_tokens:
        request, written = f"text x {samples}", f"{mark}{rows * samples * new_tokens:,}"
    else:
        request, written = f"{samples} continuations" if samples else "–", "–"
    return f"{mark}{rows:,}" if rows else "–", request, prompt_tokens, written
