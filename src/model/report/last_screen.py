"""Last screen of a run: figures, sample answers before and after, path of the run folder."""

from collections.abc import Sequence

from rich.table import Table

from ...core.screen import Screen
from ...metrics.spec import ARROWS, METRICS
from ..run.unlearn_run import Outcome
from ..settings.run_settings import Settings
from .comparison import Conditions, conditions_of, differing_settings
from .deciding_figures import deciding, group_of, measured
from .finished_run import retain_figures

NEEDS_A_VALUE = ("partial_utility", "forget_quality_yardstick", "forget/nearer_to_retain")
"""Figures that most runs have no value for, by their nature: shown without one they would only distract."""
ALWAYS = (
    *(
        "forget_quality",
        "forget_quality_yardstick",
        "forget/nearer_to_retain",
        "forget/rougeL",
        "forget/prob",
    ),
    *("model_utility", "partial_utility", "retain/rougeL"),
)
"""Figures of TOFU's family that are shown; the others are their parts."""
MOST_LINES = 4
"""Lines of a group; the rest is in metrics.json."""
SAMPLES = 2
FIELDS = (("question", "prompt"), ("answer", "gt"))
"""Fields of prompt and true continuation, of question rows and of document rows."""


def show_outcome(outcome: Outcome, settings: Settings) -> None:
    """Print the table, two sample answers and the path of the run folder."""
    screen = Screen()
    screen.print(_table(outcome, settings))
    after = outcome.after
    for line in (
        *_reasons(outcome),
        *_forget_test(after.detail),
        *_bounds(outcome),
        *_cut_texts(after.detail, settings),
        *_differences_to_retain(after.detail, settings),
        *_judge_usage(after.judge),
        *_training(outcome.training),
        *_best(outcome.best),
    ):
        screen.print_text(line)
    for question, answers in _samples(outcome, settings):
        screen.print_text(f"\n{question}", style="bold")
        for answer in answers:
            screen.print_text(answer)
    screen.print_text(f"\nrun folder: {outcome.folder or 'none (overall.logger is none)'}")
    if outcome.report:
        screen.print_text(f"report: {outcome.report}")


def _table(outcome: Outcome, settings: Settings) -> Table:
    table = Table(title=f"{settings.method.name} on {settings.dataset.forget_dataset_name}")
    figures = outcome.after.metrics
    first = deciding(measured(figures), settings.unlearn.task_name)
    groups = _groups(outcome, first)
    shown = [key for keys in groups.values() for key in keys]
    columns = {
        title: metrics
        for title, metrics in _columns(outcome, settings).items()
        if title == _run_title(settings) or any(metrics.get(key) is not None for key in shown)
    }
    table.add_column("metric (arrow = good)", overflow="fold")
    for title in columns:
        table.add_column(title, justify="right")
    for group, keys in groups.items():
        cut = keys if group == DECIDING else keys[:MOST_LINES]
        table.add_row(group, style="dim" if group != DECIDING else "bold")
        for key in cut:
            table.add_row(
                f"  {key} {_arrow(key, outcome)}".rstrip(),
                *(_number(metrics, key) for metrics in columns.values()),
                style="bold" if group == DECIDING else None,
            )
        if len(keys) > len(cut):
            table.add_row(f"  {len(keys) - len(cut)} more in metrics.json", style="dim")
        table.add_section()
    if settings.method.trains:
        seconds = dict.fromkeys(columns, "") | {_run_title(settings): f"{outcome.train_seconds:.0f} s"}
        table.add_row("training time", *seconds.values())
    return table


DECIDING = "these decide"


def _groups(outcome: Outcome, first: Sequence[str]) -> dict[str, list[str]]:
    """Group -> its figures: those that decide, then the others by what they are about."""
    groups = {DECIDING: [*first]} if first else {}
    for key in _shown(outcome):
        if key not in first:
            groups.setdefault(group_of(key), []).append(key)
    return groups


def _shown(outcome: Outcome) -> list[str]:
    """The figures of the table, those that are always shown first."""
    figures = outcome.after.metrics
    others = [key for key in figures if key not in METRICS or METRICS[key].family != "tofu"]
    return [
        key
        for key in dict.fromkeys([*(key for key in ALWAYS if key in figures), *others])
        if not _is_hidden(key, outcome)
    ]


def _is_hidden(key: str, outcome: Outcome) -> bool:
    return key in NEEDS_A_VALUE and outcome.after.metrics[key] is None


def _arrow(key: str, outcome: Outcome) -> str:
    """The direction of improvement; empty for a benchmark that failed."""
    good = METRICS[key].good if key in METRICS else outcome.after.detail[key].get("better", "")
    return ARROWS.get(good, "")


def _columns(outcome: Outcome, settings: Settings) -> dict[str, dict]:
    columns = {"target": outcome.before.metrics} if outcome.before else {}
    columns[_run_title(settings)] = outcome.after.metrics
    retain = settings.evaluate.retain_results
    columns["retain"] = retain_figures(retain) if retain else {}
    return columns


def _run_title(settings: Settings) -> str:
    if settings.method.forget and settings.method.trains:
        return "unlearned"
    return "fine-tuned" if settings.method.trains else "measured"


def _number(metrics: dict, key: str) -> str:
    value = metrics.get(key)
    if value is None:
        return "–"
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}"


def _reasons(outcome: Outcome) -> list[str]:
    """Reasons of figures that are null (–) or incomplete (*), each reason once."""
    reasons = {
        detail["reason"]: key
        for key, detail in outcome.after.detail.items()
        if detail["reason"] and (key in ALWAYS or key not in METRICS) and not _is_hidden(key, outcome)
    }
    return [
        f"{'–' if outcome.after.metrics[key] is None else '*'} {key}: {reason}"
        for reason, key in reasons.items()
    ]


def _bounds(outcome: Outcome) -> list[str]:
    """The sentences that bounds on sampled answers stand for."""
    return [
        f"{key}: {detail['reason']}"
        for key, detail in outcome.after.detail.items()
        if key in METRICS and METRICS[key].family == "sampling"
        if detail["reason"] and outcome.after.metrics[key] is not None
    ]


def _forget_test(detail: dict[str, dict]) -> list[str]:
    """The test behind forget quality: its statistic, its sizes, and how coarse its p is."""
    found = detail.get("forget_quality", {})
    if "D" not in found:
        return []
    near = [f"{side['p']:.3g}" for side in (found["next_lower"], found["next_higher"]) if side]
    values = f"; the nearest other values of p are {' and '.join(near)}" if len(near) == 2 else ""
    return [
        f"forget_quality: D = {found['D']:.3g}, {found['rows']} rows against {found['other_rows']} of the"
        f" retain model{values}"
    ]


def _cut_texts(detail: dict[str, dict], settings: Settings) -> list[str]:
    """Row sets of which the token budget cut most texts: what stands at their end is not measured."""
    found = {
        (METRICS[key].rows, figures["cut_texts"], figures["n"]): key
        for key, figures in reversed(detail.items())
        if "cut_texts" in figures and METRICS[key].rows and 2 * figures["cut_texts"] > figures["n"] > 0
    }
    return [
        f"* {key}, {n} {rows} rows: evaluate.max_new_tokens {settings.evaluate.max_new_tokens} cut {cut} of"
        " its texts, so an answer at the end is missed"
        for (rows, cut, n), key in reversed(found.items())
    ]


def _differences_to_retain(detail: dict[str, dict], settings: Settings) -> list[str]:
    """Settings under which the retain model was measured and this run was not."""
    retain = settings.evaluate.retain_results
    if retain is None:
        return []
    sides = {"this run": Conditions(settings.resolved(), detail), "retain": conditions_of(retain)}
    return [f"– retain was not measured alike: {line}" for line in differing_settings(sides)]


def _judge_usage(judge: dict) -> list[str]:
    """Questions, tokens and cost of the judge in the final measurement."""
    if not judge:
        return []
    cost = f", cost {judge['cost']:g}" if "cost" in judge else ""
    return [
        f"judge: {judge['asked']} questions asked, {judge['cached']} known from before, {judge['failed']}"
        f" without a verdict; {judge['prompt_tokens']} + {judge['completion_tokens']} tokens{cost}"
        f" ({judge['name']})"
    ]


def _training(record: dict) -> list[str]:
    """Configured and done epochs and steps, and why the training stopped early."""
    if not record:
        return []
    by_steps = record["max_steps_configured"] is not None
    epochs = f"{record['epochs_done']:.4g}" if by_steps else _of(record, "epochs_done", "epochs_configured")
    steps = _of(record, "optimizer_steps_done", "optimizer_steps_planned")
    unit = "epoch" if epochs == "1" else "epochs"
    line = (
        f"training: {epochs} {unit}, {steps} optimizer steps of {record['rows_per_step']} rows"
        f" ({record['micro_steps_done']} micro-steps per process; the last step of an epoch has"
        f" {record['last_window_rows']} rows, {record['last_window_share']:.3g} of a full one)"
    )
    stopped = record["stopped"]
    if not stopped:
        return [line]
    kept = f"; the model is that of step {stopped['kept_step']}"
    if stopped["kept_step"] == 0:
        kept = "; the model is the initial one: no other evaluated step was within the budget"
    return [line, f"stopped at step {stopped['step']}: {stopped['reason']}{kept}"]


def _of(record: dict, done: str, planned: str) -> str:
    return f"{record[done]:.4g} of {record[planned]:g}"


def _best(best: dict) -> list[str]:
    """The best evaluated step beside the initial model and the last step, on both halves of the rows."""
    if not best:
        return []
    rule, found, last = best["rule"], best["best"], best["last"]
    head = f"best by {rule['forgetting']} {ARROWS[rule['better']]} at {rule['floor']:g} of the utility: "
    if found is None:
        return [f"{head}none ({best['reason']})"]
    place = "the last" if found["step"] == last["step"] else "kept in checkpoints/best"
    if best["kept"] == found["step"] != last["step"]:
        place = "the model of this run"
    lines = [f"{head}step {found['step']}, {place}"]
    steps = {entry["step"]: entry for entry in (best["initial"], found, last)}
    for half, title in (("chosen_on", "on the half that chose"), ("reported_on", "on the other half")):
        figures = [
            f"step {step} {_number(entry[half], 'forgetting')}, utility {_number(entry[half], 'utility')}"
            for step, entry in steps.items()
        ]
        lines.append(f"  {title}: {'; '.join(figures)}")
    return lines


def _samples(outcome: Outcome, settings: Settings) -> list[tuple[str, list[str]]]:
    """Two forget questions with the true answer, each with the answers before and after."""
    after = [row for row in outcome.after.samples.get("forget", []) if "generation" in row][:SAMPLES]
    before = {row["id"]: row for row in (outcome.before.samples if outcome.before else {}).get("forget", [])}
    found = []
    for row in after:
        answers = [_answer_line("before", before[row["id"]])] if row["id"] in before else []
        answers.append(_answer_line("after" if settings.method.trains else "answer", row))
        question, answer = (row.get(one, row.get(other, "")) for one, other in FIELDS)
        found.append((_indented(f"{question}  (true: {answer})"), answers))
    return found


def _answer_line(title: str, row: dict) -> str:
    return _indented(f"  {title:6}  {row['generation']}")


def _indented(text: str) -> str:
    """The text with all lines but the first indented: no generated line can pass for a line of the screen."""
    return text.replace("\n", "\n" + 10 * " ")
