"""Search for values of any keys: the most forgetting that keeps a share of the utility, over several seeds.

    python src/exec/sweep.py --name npo --configs configs/fictional/npo+ft.json --trials 20 --seeds 0 1 \\
        --report-seeds 10 11 12 --vary unlearn.lr=3e-4..3e-3:log unlearn.num_epochs=10..40 unlearn.gamma=1,2,4

Every config gets the same number of trials (--trials). A trial is a run for each of --seeds; one that is far
below the floor, or worse than the median, after its first seeds is not run on the others. The best trial of
each config that holds the floor on every seed is the winner; it is run on --report-seeds, which no choice has
seen. files/results/<name>/ has sweep.md (ranking, budgets, importances), trials.csv, sweep.png, and
winners/<config>.json, which unlearn_model.py runs.

The same command resumes. Started again in another terminal while it runs, it shares the work.
"""

import argparse
import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if not __package__:  # started as a file: this checkout is the package
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import UserError, clear_write_errors, fingerprint, read_json, write_json
from ..core.screen import show, show_error
from .child_runs import (
    KILLED,
    PLACE,
    ChildProcesses,
    Run,
    add_flags,
    check,
    execute,
    expand_user,
    is_disk_failure,
    is_done,
    pair,
)
from .many_runs import METRICS, OWN, common_settings, run_all, seed_runs, threads_of
from .script import with_clear_errors
from .search_space import Dimension, SearchedConfig, read_space, searched_configs
from .search_study import SEARCHES, Claim, Ended, Studies, keep_definition
from .winning_config import winning_config

if TYPE_CHECKING:
    from ..model.run.sweep_rule import SweepRule


PASSING = ("logger.", "evaluate.metrics", "evaluate.bootstrap")
"""Beginnings of keys of --set that a winner's file leaves out."""
COMPARED = 4
"""Complete trials that hold the floor, before others are ended early for forgetting less."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that has been checked.

    Args:
        root: its folder.
        configs: the config files with what is varied in them.
        common: key -> value for all runs.
        seeds: seeds of the search.
        studies: its trials.
        rule: how they are compared, a `SweepRule`.
        arguments: the flags.
    """

    root: Path
    configs: Sequence[SearchedConfig]
    common: dict[str, str]
    seeds: Sequence[int]
    studies: Studies
    rule: "SweepRule"
    arguments: argparse.Namespace


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser)
    add = parser.add_argument
    add("--configs", nargs="+", required=True, metavar="FILE", help="config files, each searched on its own")
    add(
        "--vary",
        nargs="+",
        default=[],
        metavar="KEY=VALUES",
        help="LOW..HIGH, LOW..HIGH:log, or A,B,C (A|B where values hold commas)",
    )
    add("--space", metavar="FILE", help="the same as JSON; keys that a config's method lacks are left out")
    add("--search", choices=SEARCHES, default="tpe", help="tpe (optuna), random, or grid (choices only)")
    add("--trials", type=int, default=20, help="trials of each config [20]; a grid has all its points")
    add("--seeds", nargs="+", type=int, default=[0, 1], help="seeds of the search [0 1]")
    add("--report-seeds", nargs="*", type=int, default=[], help="seeds of the winners' report, others")
    add("--goal", help="metric of forgetting [forget_quality with a retain model, else extraction_strength]")
    add("--utility", default="model_utility", help="metric of what is kept [model_utility]")
    add("--floor", type=float, default=0.95, help="least share of the initial utility [0.95]; 0 is none")
    add("--prune", type=float, default=0.05, help="share below the floor that ends a trial early [0.05]")
    add("--metrics", nargs="+", default=METRICS, metavar="NAME", help="columns of the tables")
    add("--draw-seed", type=int, default=0, help="seed of the drawn values [0]")
    add("--jobs", type=int, default=1, help="trials at a time; the cores are shared among them")
    add("--gpus", nargs="+", type=int, default=[], metavar="N", help="GPUs that the jobs take in turn")
    add("--keep-models", action="store_true", help="keep the models of all trials, not of the report alone")
    arguments = parser.parse_args(argv)
    return with_clear_errors(
        lambda: run_sweep(arguments), failed=2, interrupted="interrupted; the same command resumes"
    )


def run_sweep(arguments: argparse.Namespace) -> int:
    """Check everything, make the trials, report the winners. Returns 1 when a config has no winner."""
    logging.disable(logging.WARNING)  # each run logs the warnings about its settings itself
    sweep = checked(arguments)
    with clear_write_errors(sweep.root, PLACE):
        sweep.root.mkdir(parents=True, exist_ok=True)
        keep_definition(sweep.root, definition(sweep))
        sweep.studies.open()
    counts = [f"{sweep.studies.size(one)} of {one.title}" for one in sweep.configs]
    done = len(sweep.studies.ended())
    show_error(f"trials: {', '.join(counts)}; {done} already ended")
    with clear_write_errors(sweep.root, PLACE):
        search(sweep)
    if sweep.studies.others_work():
        show_error("another process is at work on the last trials; it writes the report")
        return 0
    with sweep.studies.alone("report"):
        return report(sweep)


def checked(arguments: argparse.Namespace) -> Sweep:
    """The sweep of the flags. UserError for anything that is wrong with them, before anything is written."""
    from ..model.report.grid_table import check_metrics
    from ..model.run.sweep_rule import SweepRule

    threads_of(arguments.jobs)  # refuses a wrong number
    space = read_space(arguments.vary, arguments.space)
    common = common_settings(arguments.set, [one.key for one in space], own_settings(arguments))
    configs = searched_configs(arguments.configs, common, space, dict(map(pair, arguments.vary)))
    _check_numbers(arguments, space)
    root = expand_user(arguments.root) / arguments.name
    with clear_write_errors(root, PLACE):
        root.exists()  # raises for a name that is too long
    check(_corners(configs, common, arguments.seeds[0]), root)
    goal = arguments.goal or _usual_goal(configs, common, root)
    check_metrics([goal, arguments.utility, *arguments.metrics])
    if goal == "forget_quality":
        _check_all_rows(configs, common, root)
    rule = SweepRule(goal, arguments.utility, arguments.floor, arguments.prune)
    studies = Studies(root, configs, arguments.search, arguments.trials, arguments.draw_seed)
    return Sweep(root, configs, common, arguments.seeds, studies, rule, arguments)


def own_settings(arguments: argparse.Namespace) -> dict[str, str]:
    """Settings that are not the user's -> reason in the message."""
    if not arguments.floor:
        return OWN
    return OWN | {"evaluate.before": "stays true: the floor is a share of the initial model's utility"}


def _check_numbers(arguments: argparse.Namespace, space: Sequence[Dimension]) -> None:
    if not space:
        raise UserError("--vary or --space: name at least one key and its values")
    if arguments.trials < 1:
        raise UserError("--trials: expected a whole number at least 1")
    if not 0 <= arguments.floor <= 1:
        raise UserError("--floor: expected a share from 0 to 1")
    seeds = [*arguments.seeds, *arguments.report_seeds]
    if len(set(seeds)) < len(seeds):
        raise UserError("--seeds and --report-seeds: use each seed once; a report needs seeds of its own")
    ranges = [one.key for one in space if not one.choices]
    if arguments.search == "grid" and ranges:
        raise UserError(f"--search grid: {ranges[0]} is a range; give choices, or take tpe or random")


def _corners(configs: Sequence[SearchedConfig], common: dict[str, str], seed: int) -> list[Run]:
    """A run for each choice and each end of a range, to be checked, not made."""
    return [
        run
        for config in configs
        for one in config.dimensions
        for value in one.ends()
        for run in seed_runs(
            f"{config.title},{one.key}={value}", config.file, common | {one.key: value}, [seed]
        )
    ]


def _settings(config: SearchedConfig, common: dict[str, str], root: Path):
    return seed_runs(config.title, config.file, common, [0])[0].settings(root)


def _usual_goal(configs: Sequence[SearchedConfig], common: dict[str, str], root: Path) -> str:
    retain = [_settings(one, common, root).evaluate.retain_results for one in configs]
    return "forget_quality" if all(retain) else "forget/extraction_strength"


def _check_all_rows(configs: Sequence[SearchedConfig], common: dict[str, str], root: Path) -> None:
    """UserError where forget quality would be that of a part of the rows, on which it is higher."""
    for one in configs:
        if _settings(one, common, root).evaluate.rows:
            raise UserError(
                f"evaluate.rows of {one.title}: forget quality is measured on all rows; with fewer the test"
                " passes more easily (--set evaluate.rows=0)"
            )


def definition(sweep: Sweep) -> dict:
    """What must stay the same while a sweep is continued; more trials, configs, jobs and report seeds may
    come."""
    arguments = sweep.arguments
    return {
        "configs": {one.title: fingerprint(read_json(one.file)) for one in sweep.configs},
        "space": {
            one.title: {d.key: json.loads(json.dumps(asdict(d))) for d in one.dimensions}
            for one in sweep.configs
        },
        "set": sweep.common,
        "search": arguments.search,
        "seeds": list(arguments.seeds),
        "rule": asdict(sweep.rule),
        "draw_seed": arguments.draw_seed,
    }


def trial_runs(sweep: Sweep, config: SearchedConfig, number: int, values: dict[str, str]) -> list[Run]:
    """The runs of a trial, in the order of the seeds."""
    line = f"{config.title} #{number}"
    return seed_runs(line, config.file, sweep.common | values, sweep.seeds, f"{config.title}-{number:04}")


def search(sweep: Sweep) -> None:
    """Make all trials that are still to be made, several at a time."""
    jobs = sweep.arguments.jobs
    stop = threading.Event()
    with ThreadPoolExecutor(jobs) as pool, ChildProcesses(sweep.arguments.gpus) as children:
        try:
            for slot in [pool.submit(_work, sweep, children, stop) for _ in range(jobs)]:
                slot.result()
        finally:
            stop.set()


def _work(sweep: Sweep, children: ChildProcesses, stop: threading.Event) -> None:
    """Take trials until none is left."""
    while not stop.is_set() and (claim := sweep.studies.take()):
        try:
            if not _make(sweep, claim, children):
                return  # all end; the trial stays as it is, for whoever goes on
        finally:
            claim.release()


def _make(sweep: Sweep, claim: Claim, children: ChildProcesses) -> bool:
    """Run a trial seed by seed. Returns False when it was interrupted. UserError when the disk failed: the
    trial stays open, for whoever goes on."""
    from ..model.run.sweep_rule import trial_figures

    rule, figures, state, reason = sweep.rule, [], "complete", ""
    runs = trial_runs(sweep, claim.config, claim.number, claim.values)
    for count, run in enumerate(runs, 1):
        folder = sweep.root / run.name
        if not is_done(run, sweep.root):
            reason = _executed(sweep, run, children)
            if not children.open:
                return False
            if is_disk_failure(reason):
                raise UserError(f"{run.name}: {reason.removeprefix('error: ')}; the same command resumes")
        if not sweep.arguments.keep_models:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        found = trial_figures(folder) if not reason else {}
        reason = reason or rule.fault(found, folder)
        if reason:
            state = "failed"
            break
        figures.append(found)
        if count < len(runs) and (reason := _pruned(sweep, claim, figures)):
            state = "pruned"
            break
    _tell(sweep, claim, Ended(claim.config.title, claim.number, claim.values, state, reason, figures))
    return True


def _executed(sweep: Sweep, run: Run, children: ChildProcesses) -> str:
    """The reason of a run's failure, or "". What was killed from outside, as where memory was short, is begun
    once more: values are not to blame for it."""
    threads = threads_of(sweep.arguments.jobs)
    reason = execute(run, sweep.root, threads, children)
    if reason.startswith(KILLED) and children.open:
        reason = execute(run, sweep.root, threads, children)
    return reason


def _pruned(sweep: Sweep, claim: Claim, figures: list) -> str:
    """Why a trial is not run on its other seeds; empty when it is."""
    rule, shortfall = sweep.rule, sweep.rule.shortfall(figures)
    if shortfall > rule.margin:
        return f"utility {shortfall:.3f} of the initial model's below the floor"
    # Not against those below the floor: they forget more because they keep less.
    able = [
        trial
        for trial in sweep.studies.ended(claim.config)
        if trial.state == "complete" and rule.shortfall(trial.figures) <= 0
    ]
    scores = [rule.mean_score(trial.figures[: len(figures)]) for trial in able]
    if len(able) >= COMPARED and rule.mean_score(figures) < median(scores):
        return "forgets less than the median of those that hold the floor"
    return ""


def _tell(sweep: Sweep, claim: Claim, ended: Ended) -> None:
    rule = sweep.rule
    value = rule.mean_score(ended.figures) if ended.state == "complete" else None
    shortfall = rule.shortfall(ended.figures) if ended.figures else None
    sweep.studies.tell(claim, ended, value, shortfall)
    words = ", ".join(f"{key}={value}" for key, value in ended.values.items())
    result = ended.reason if value is None else _result(rule, ended)
    show_error(f"{ended.config} #{ended.number} {ended.state}: {words}: {result}")


def _result(rule: "SweepRule", ended: Ended) -> str:
    from ..model.report.grid_table import short

    goal = ", ".join(short(run[rule.goal] or 0.0) for run in ended.figures)
    kept = ", ".join(short(share) for run in ended.figures if (share := rule.kept(run)) is not None)
    return f"{rule.goal} {goal}" + (f"; {kept} of the utility" if kept else "")


def report(sweep: Sweep) -> int:
    """Run the winners on the report seeds, write tables, picture and configs, print the ranking."""
    from ..model.report.sweep_report import SweepResults, choose_winners, summary, write_report
    from ..model.run.sweep_rule import trial_figures

    trials = sweep.studies.ended()
    winners = choose_winners(trials, sweep.rule)
    importances = {one.title: sweep.studies.importances(one) for one in sweep.configs}
    with clear_write_errors(sweep.root, PLACE):
        _write_winners(sweep, winners)
        folders, failures = _report_runs(sweep, winners)
        results = SweepResults(
            sweep.arguments.name,
            sweep.rule,
            sweep.arguments.metrics,
            {one.title: sweep.studies.size(one) for one in sweep.configs},
            sweep.seeds,
            trials,
            winners,
            {title: [trial_figures(folder) for folder in found] for title, found in folders.items()},
            failures,
            importances,
            _truth_ratios(folders) if sweep.rule.goal == "forget_quality" else "",
        )
        write_report(sweep.root, results)
    show(summary(results))
    show_error(f"\nreport: {sweep.root}/sweep.md, sweep.png, trials.csv; configs: {sweep.root}/winners/")
    return 0 if len(winners) == len(sweep.configs) and not failures else 1


def _truth_ratios(folders: Mapping[str, Sequence[Path]]) -> str:
    """What forget quality tests, of each winner, as a table."""
    from ..model.report.finished_run import read_run
    from ..model.report.ratio_table import ratio_table
    from ..model.report.report_charts import gather

    return ratio_table({title: gather([read_run(one) for one in found]) for title, found in folders.items()})


def _write_winners(sweep: Sweep, winners: Mapping[str, Ended]) -> None:
    """The config of each winner, as a file that unlearn_model.py runs."""
    for config in sweep.configs:
        path = sweep.root / "winners" / f"{config.title}.json"
        best = winners.get(config.title)
        if best is None:
            path.unlink(missing_ok=True)
            continue
        note = (
            f"Trial {best.number} of sweep.py --name {sweep.arguments.name}, best of {sweep.rule.goal} at"
            f" {sweep.rule.floor:g} of the initial {sweep.rule.utility} on seeds {_listed(sweep.seeds)}."
        )
        # How trials were measured and logged to go fast is no part of what won.
        common = {key: value for key, value in sweep.common.items() if not key.startswith(PASSING)}
        tree = winning_config(config.file, {**common, **best.values})
        write_json(path, {"note": note} | tree)


def _report_runs(sweep: Sweep, winners: Mapping[str, Ended]) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """The folders of each winner's runs on the report seeds, and the reasons of those that failed."""
    runs = [
        run
        for config in sweep.configs
        if (best := winners.get(config.title))
        for run in seed_runs(
            config.title,
            config.file,
            {**sweep.common, **best.values},
            sweep.arguments.report_seeds,
            f"{config.title}-{best.number:04},report",
        )
    ]
    waiting = [run for run in runs if not is_done(run, sweep.root)]
    failures: dict[str, str] = {}
    ended: list[str] = []

    def on_end(run: Run, failure: str) -> None:
        ended.append(run.name)
        if failure:
            failures[run.name] = failure
        show_error(f"report {len(ended)}/{len(waiting)} {run.name}{f': {failure}' if failure else ''}")

    if waiting:
        run_all(waiting, sweep.root, sweep.arguments.jobs, on_end, sweep.arguments.gpus)
    folders: dict[str, list[Path]] = {title: [] for title in winners}
    for run in runs:
        if run.name not in failures:
            folders[run.line].append(sweep.root / run.name)
    return folders, failures


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


if __name__ == "__main__":
    sys.exit(main())
