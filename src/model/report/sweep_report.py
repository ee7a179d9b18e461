"""What a sweep found: winners, ranking, budgets, importances, as Markdown, CSV and a picture."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.files import write_text
from ..run.sweep_rule import Figures, SweepRule
from .grid_table import Line, aggregate, markdown, short

SHOWN = 15
"""Trials of the ranking on the screen."""


@dataclass(frozen=True)
class SweepResults:
    """The results of a sweep.

    Args:
        name: its name.
        rule: how trials were compared.
        metrics: columns of the tables.
        budgets: config -> number of trials it was to get.
        seeds: seeds of the search.
        trials: all that ended; of each config, number, values, state, reason, figures.
        winners: config -> its best trial.
        reported: config -> figures of the winner on the report seeds.
        failures: run -> reason, of report runs that failed.
        importances: config -> key -> share of the score's variance.
        ratios: truth ratios of the winners beside the retain model's, as Markdown; empty without.
    """

    name: str
    rule: SweepRule
    metrics: Sequence[str]
    budgets: Mapping[str, int]
    seeds: Sequence[int]
    trials: Sequence[Any]
    winners: Mapping[str, Any]
    reported: Mapping[str, Sequence[Figures]]
    failures: Mapping[str, str]
    importances: Mapping[str, Mapping[str, float]]
    ratios: str = ""


def choose_winners(trials: Sequence[Any], rule: SweepRule) -> dict[str, Any]:
    """Config -> its complete trial with the most forgetting among those that hold the floor on every seed."""
    found: dict[str, Any] = {}
    for trial in ranked(trials, rule):
        if holds(trial, rule):
            found.setdefault(trial.config, trial)
    return found


def holds(trial: Any, rule: SweepRule) -> bool:
    """Whether a trial is complete and holds the floor on every seed."""
    return trial.state == "complete" and rule.shortfall(trial.figures) <= 0


def ranked(trials: Sequence[Any], rule: SweepRule) -> list[Any]:
    """Trials that hold the floor by forgetting, then the others by what they keep, then pruned and failed
    ones."""

    def rank(trial: Any) -> tuple:
        if trial.state == "failed":
            return 3, trial.config, trial.number
        if trial.state == "pruned":
            return 2, rule.shortfall(trial.figures), trial.number
        if holds(trial, rule):
            return 0, -rule.mean_score(trial.figures), rule.shortfall(trial.figures), trial.number
        return 1, rule.shortfall(trial.figures), trial.number

    return sorted(trials, key=rank)


def title(trial: Any, rule: SweepRule) -> str:
    """Config, number and values of a trial, and why it is no candidate."""
    values = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in trial.values.items())
    state = trial.state
    if state == "complete":
        state = "" if holds(trial, rule) else "below the floor"
    return f"{trial.config} #{trial.number}: {values}" + (f" ({state})" if state else "")


def lines(trials: Sequence[Any], results: SweepResults) -> list[Line]:
    rule = results.rule
    return [
        aggregate(
            title(one, rule), one.figures, results.metrics, [one.reason] if one.state == "failed" else []
        )
        for one in trials
    ]


def summary(results: SweepResults, shown: int = SHOWN) -> str:
    """All that is to be read, as Markdown; the ranking cut to its first lines."""
    order = ranked(results.trials, results.rule)
    ranking = markdown([_plain(line) for line in lines(order[:shown], results)], results.metrics)
    left = f"\n{len(order) - shown} more in trials.csv.\n" if len(order) > shown else ""
    parts = [
        f"# Sweep {results.name}\n\n{_rule_text(results)}\n",
        f"## Budgets\n\n{_budgets(results)}",
        f"## Ranking on the seeds of the search ({', '.join(map(str, results.seeds))})\n\n{ranking}{left}",
        f"## Winners on seeds that no choice has seen\n\n{_report_text(results)}",
    ]
    if results.ratios:
        parts.append(
            "## Which part of the truth ratios is off\n\nLog truth ratios of the winners' forget rows, all"
            f" report seeds together; above 0 wrong answers are likelier.\n\n{results.ratios}"
        )
    if text := _importance_text(results):
        parts.append(f"## What mattered\n\n{text}")
    return "\n".join(parts)


def _plain(line: Line) -> Line:
    """Without the note below the table: reasons of failures stand with the budgets."""
    return Line(line.title, line.cells)


def _rule_text(results: SweepResults) -> str:
    rule = results.rule
    floor = (
        f"among trials that keep {rule.floor:g} of the initial {rule.utility} on every seed"
        if rule.floor
        else "without a floor of utility"
    )
    mean = "the mean of log10 over seeds" if rule.on_log_scale else "the mean over seeds"
    return f"Best {rule.goal} ({mean}) {floor}."


def _budgets(results: SweepResults) -> str:
    rows = []
    for config, budget in results.budgets.items():
        mine = [trial for trial in results.trials if trial.config == config]
        count = Counter(trial.state for trial in mine)
        runs = sum(len(trial.figures) for trial in mine)
        seconds = sum(run.get("seconds") or 0 for trial in mine for run in trial.figures)
        able = sum(holds(trial, results.rule) for trial in mine)
        rows.append(
            f"- {config}: {len(mine)} of {budget} trials ({count['complete']} complete, {count['pruned']}"
            f" pruned, {count['failed']} failed), {runs} runs, {seconds:.0f} s of training; {able} hold the"
            " floor"
        )
    counts = {sum(trial.config == config for trial in results.trials) for config in results.budgets}
    if len(results.budgets) > 1:
        equal = (
            "had the same number of trials" if len(counts) == 1 else "NOT had the same number of trials yet"
        )
        rows.append(f"- The configs have {equal}.")
    reasons = Counter((t.config, t.reason) for t in results.trials if t.state == "failed")
    rows += [f"- {config}, {count} failed: {reason}" for (config, reason), count in reasons.items()]
    return "\n".join(rows) + "\n"


def _report_text(results: SweepResults) -> str:
    """The winners with mean, spread and the worst seed."""
    rows = []
    for config in results.budgets:
        winner, runs = results.winners.get(config), results.reported.get(config, [])
        if winner is None:
            rows.append(
                Line(f"{config}: none (no trial holds the floor)", aggregate("", [], results.metrics).cells)
            )
        elif runs:
            cells = aggregate("", runs, results.metrics).cells
            rows.append(Line(f"{config} #{winner.number} ({len(runs)} seeds)", cells))
        else:
            rows.append(
                Line(f"{config} #{winner.number} (no report seeds)", aggregate("", [], results.metrics).cells)
            )
    text = markdown(rows, results.metrics)
    for config, runs in results.reported.items():
        if runs:
            goals = ", ".join(short(run[results.rule.goal] or 0.0) for run in runs)
            kept = [share for run in runs if (share := results.rule.kept(run)) is not None]
            shares = f"; share of the utility: {', '.join(short(share) for share in kept)}" if kept else ""
            text += f"\n{config}, {results.rule.goal} by seed: {goals}{shares}"
    text += "".join(f"\n{run} failed: {reason}" for run, reason in results.failures.items())
    return text + "\n"


def _importance_text(results: SweepResults) -> str:
    rows = []
    for config, shares in results.importances.items():
        if shares:
            parts = ", ".join(f"{key} {share:.2f}" for key, share in shares.items())
            rows.append(f"- {config}: {parts}")
    return "\n".join(rows) + ("\n\nShares of the variance of the score (fANOVA).\n" if rows else "")


def write_report(root: Path, results: SweepResults) -> None:
    """Write sweep.md, trials.csv and sweep.png."""
    from .sweep_figure import draw

    picture = "\n![Forgetting over utility, all complete trials](sweep.png)\n"
    write_text(root / "sweep.md", summary(results, len(results.trials)) + picture)
    write_text(root / "trials.csv", _csv(results))
    draw(results, root / "sweep.png")


def _csv(results: SweepResults) -> str:
    """A line for each trial: its values, its state, mean, spread and n of each metric."""
    keys = list(dict.fromkeys(key for trial in results.trials for key in trial.values))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = [f"{key}{part}" for key in results.metrics for part in ("", " sd", " n")]
    writer.writerow(["config", "trial", "state", "holds floor", "reason", "score", *keys, *parts])
    for trial in ranked(results.trials, results.rule):
        cells = aggregate("", trial.figures, results.metrics).cells
        score = results.rule.mean_score(trial.figures) if trial.figures else ""
        able = holds(trial, results.rule)
        row = [trial.config, trial.number, trial.state, able, trial.reason, score]
        row += [trial.values.get(key, "") for key in keys]
        for key in results.metrics:
            found = cells[key]
            row += ["" if value is None else value for value in (found.mean, found.spread, found.n)]
        writer.writerow(row)
    return text.getvalue()
