"""Rules on the evaluation while training and on stop rules."""

from collections import Counter

from ....core.files import UserError
from ....core.registry import did_you_mean
from ....metrics.spec import ALL, METRICS, families, select
from ....model.run.best_choice import AUTO, FORGET_QUALITY, NONE
from ....model.settings.evaluation_keys import measures_samples
from ....model.settings.run_settings import Settings
from ....model.settings.stop_rules import BUDGETS, stop_rules


def training_evaluation_errors(settings: Settings) -> list[str]:
    evaluation = settings.evaluate
    if evaluation.every is None:
        return []
    if not settings.method.trains or settings.method.edits:
        return [f"evaluate.every: {settings.method.name} takes no training steps; leave it out (null)"]
    return [*_metric_errors(settings), *_best_errors(settings)]


def _metric_errors(settings: Settings) -> list[str]:
    names, known = settings.evaluate.every_metrics, [AUTO, ALL, *families(), *METRICS, *METRICS.aliases]
    unknown = [name for name in names if name not in known]
    if unknown:
        return [
            f"evaluate.every_metrics: unknown metric or family {name!r}{did_you_mean(name, known)}"
            for name in unknown
        ]
    keys = select([name for name in names if name != AUTO])
    judged = [key for key in keys if settings.asks_judge([key])]
    if judged:
        return [
            f"evaluate.every_metrics: {judged[0]} asks a judge, which is left to the evaluation at the end"
            " (evaluate.metrics); name others"
        ]
    return []


def _best_errors(settings: Settings) -> list[str]:
    name = settings.evaluate.best
    if name == NONE and settings.evaluate.keep == "best":
        return ["evaluate.keep best: evaluate.best none chooses no best; name a figure, or keep the last"]
    if name in (AUTO, NONE):
        return []
    able = [
        key for key, found in METRICS.items() if found.rows == "forget" and not settings.asks_judge([key])
    ]
    try:
        key = METRICS.proper(name)
    except UserError:
        key = name
    if key not in (*able, FORGET_QUALITY):
        known = METRICS.get(key)
        what = did_you_mean(name, [*able, FORGET_QUALITY])
        if known:
            judged = settings.asks_judge([key])
            what = ", which asks a judge" if judged else ", which is no metric of each forget row"
        return [
            f"evaluate.best: expected auto, none, {FORGET_QUALITY} or a metric of the forget rows without a"
            f" judge, such as forget/prob; got {name!r}{what}"
        ]
    if key != FORGET_QUALITY and measures_samples([key]) and not settings.evaluate.samples:
        return [f"evaluate.best {name} is of sampled answers: set evaluate.samples, or name another metric"]
    if not settings.method.forget:
        return [f"evaluate.best {name}: {settings.method.name} forgets nothing; leave it out"]
    if key == FORGET_QUALITY and settings.evaluate.retain_results is None:
        return [f"evaluate.best {name} needs a retain model's results: set evaluate.retain_results"]
    return []


def stop_errors(settings: Settings) -> list[str]:
    texts = settings.unlearn.stop
    if not texts:
        return []
    rules, name = stop_rules(texts), settings.method.name
    if not settings.method.trains or settings.method.edits:
        return [f"unlearn.stop: {name} takes no training steps that could stop; leave it out (null)"]
    found = [
        f"unlearn.stop: the rule {rule} is given {count} times; give it once"
        for rule, count in Counter(text.partition("=")[0] for text in texts).items()
        if count > 1
    ]
    if settings.evaluate.every is None:
        found.append("unlearn.stop is looked at when the model is measured: set evaluate.every, as '1 epoch'")
    if "holdout" in rules and not settings.method.forget:
        found.append(f"unlearn.stop {rules['holdout']}: {name} forgets nothing; leave it out")
    if "kl_neutral" in rules and not settings.evaluate.neutral_text:
        found.append(
            f"unlearn.stop {rules['kl_neutral']}: there is no text to measure the KL on; name one with"
            " evaluate.neutral_text"
        )
    for budget in (rules[name] for name in BUDGETS if name in rules and settings.overall.random_init):
        found.append(
            f"unlearn.stop {budget}: overall.random_init draws the initial model at random, and a KL to"
            " it means nothing; leave it out"
        )
    return found
