"""What an evaluation while training measures, and whether the rows have what it reads."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from ...core.files import UserError
from ...metrics.measure import unmeasurable
from ...metrics.spec import METRICS, select
from ..settings.method_keys import TASKS
from ..settings.run_settings import Settings
from ..settings.stop_rules import stop_rules
from .best_choice import AUTO, FORGET_QUALITY, UTILITY, best_figure

log = logging.getLogger(__name__)

EVERY_METRICS = ("forget/prob", "forget/extraction_strength", "retain/prob", "retain/extraction_strength")
"""What `evaluate.every_metrics auto` stands for; all of it one pass over the answers."""
LOSSES = ("forget/mia_loss", "holdout/mia_loss")


def metrics_while_training(settings: Settings) -> list[str]:
    """Keys of all metrics of an evaluation while training: the chosen ones and those that rules read."""
    chosen = [
        key for name in settings.evaluate.every_metrics for key in (EVERY_METRICS if name == AUTO else [name])
    ]
    figure = best_figure(settings)
    read = [figure, *UTILITY] if figure else []
    read += LOSSES if "holdout" in stop_rules(settings.unlearn.stop) else []
    return select([*chosen, *read])


def check_rows(settings: Settings, rows: dict[str, list[dict]], training: dict[str, list]) -> None:
    """UserError where the rows lack what `evaluate.best` or a stop rule reads, before a model is loaded."""
    if settings.evaluate.every is None:
        return
    settings, rules = default_figure(settings, rows), stop_rules(settings.unlearn.stop)
    if "holdout" in rules and (reasons := _lacking(LOSSES, rows)):
        raise UserError(
            f"unlearn.stop {rules['holdout']}: {reasons[0]}, and it compares losses of answers of forget and"
            " holdout rows; name a data set that has them (holdout.jsonl for your own rows), or leave it out"
        )
    if "kl" in rules and not kl_rows_place(rows, training):
        raise UserError(
            f"unlearn.stop {rules['kl']}: there are no retain rows to measure the KL on; name a data set that"
            " has them, or leave it out"
        )
    figure = best_figure(settings)
    if figure is None:
        return
    remedy = "name another figure, or evaluate.best none"
    if reasons := _lacking(select([figure]), rows):
        raise UserError(f"evaluate.best: {figure} cannot be measured: {reasons[0]}; {remedy}")
    if len(rows["forget"]) < 2:
        raise UserError("evaluate.best: one forget row has no two halves; set evaluate.best none")
    if len(_lacking(UTILITY, rows)) == len(UTILITY):
        raise UserError(
            f"evaluate.best: there is no utility to keep: {_lacking(UTILITY, rows)[0]}; name a data set with"
            " retain rows, or set evaluate.best none"
        )


def warn_of_unfit_task(settings: Settings, rows: dict[str, list[dict]]) -> None:
    """A warning where these rows are of another task, so that none of the task's metrics can be measured."""
    task, name = settings.unlearn.task_name, settings.dataset.forget_dataset_name
    keys = [key for key in select(TASKS[task]) if METRICS[key].needs]
    reasons = _lacking(keys, rows)
    if rows and AUTO in settings.evaluate.metrics and len(reasons) == len(keys):
        log.warning(
            "unlearn.task_name %s: none of its metrics can be measured on %s (%s), they will be null; set the"
            " task of these rows, or name others in evaluate.metrics",
            task,
            name,
            reasons[0],
        )


def kl_rows_place(rows: dict[str, list[dict]], training: dict[str, list]) -> str:
    """Where the rows of the KL budget are: `evaluation` (held-out retain rows where there are some), else
    `training`; empty without retain rows."""
    if rows.get("retain") and all("answer" in row for row in rows["retain"]):
        return "evaluation"
    return "training" if training.get("retain") else ""


def _lacking(keys: Sequence[str], rows: dict[str, list[dict]]) -> list[str]:
    """Why metrics cannot be measured on these rows, of those that cannot."""
    return list(filter(None, (unmeasurable(METRICS[key], rows) for key in keys)))


def default_figure(settings: Settings, rows: dict[str, list[dict]]) -> Settings:
    """The settings with `evaluate.best auto` resolved: extraction strength where the forget rows have no
    paraphrased and wrong answers for forget quality."""
    chosen = settings.evaluate.best == AUTO and best_figure(settings) == FORGET_QUALITY
    if not chosen or not _lacking(select([FORGET_QUALITY]), rows):
        return settings
    return replace(settings, evaluate=replace(settings.evaluate, best="forget/extraction_strength"))
