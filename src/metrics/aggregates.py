"""Aggregates of memorisation, privacy and utility, in the scalings in use for OpenUnlearning's leaderboard.
Its repository has none of them; several re-implementations agree on memorisation.

A part that is missing makes its aggregate null with the reason; a part that is 0 makes it 0.
"""

from collections.abc import Callable, Mapping

from .inputs import MetricInputs
from .privacy import retain_auc
from .resampling import derived
from .spec import About, Value, metric

MEMORIZATION = ("extraction_strength", "exact_memorization", "para_prob", "truth_ratio_prob_mean")
MEMBERSHIP = ("loss", "zlib", "min_k", "min_k_plus_plus")
UTILITY = ("model_utility", "forget/fluent_share")
OVERALL = ("aggregate/memorization", "aggregate/privacy", "aggregate/utility")
SCALINGS: Mapping[str, Callable[[float, float], float]] = {
    "": lambda own, retain: min(own, retain) / max(own, retain) if max(own, retain) else 1.0,
    "_range": lambda own, retain: 1 - abs(own - retain) / max(retain, 1 - retain),
    "_relative": lambda own, retain: min(max(1 - abs(own - retain) / retain, 0.0), 1.0) if retain else 0.0,
}
"""Ending of `aggregate/privacy` -> the score of an AUC beside the retain model's."""
FORMULAS = {
    "": "min(a, r) / max(a, r)",
    "_range": "1 - |a - r| / max(r, 1 - r)",
    "_relative": "1 - |a - r| / r",
}
LEADERBOARD = "re-implementations of OpenUnlearning's leaderboard (arXiv:2506.12618)"
NO_CODE = (
    "OpenUnlearning's own repository has no code for it; unlearning-depth-score, for one, has this formula."
)


def harmonic_mean(parts: Mapping[str, float | None], reasons: Mapping[str, str] | None = None) -> Value:
    """The harmonic mean of all parts; None naming those that are missing."""
    absent = [key for key, value in parts.items() if value is None]
    if absent:
        why = (reasons or {}).get(absent[0], "")
        return Value(None, f"needs {', '.join(absent)}{f' ({why})' if why else ''}")
    values = [value for value in parts.values() if value is not None]
    return Value(harmonic(*values), n=len(values))


def harmonic(*values: float) -> float:
    """The harmonic mean; 0 where a value is 0 or below."""
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / value for value in values)


def mean_of_values(
    parts: Mapping[str, Value], score: Callable[[float], float] = lambda value: value
) -> Value:
    """The harmonic mean of the scores of other metrics' values, with its interval; None naming those that are
    missing."""
    if any(value.value is None for value in parts.values()):
        numbers = {key: value.value for key, value in parts.items()}
        return harmonic_mean(numbers, {key: value.reason for key, value in parts.items()})
    return derived(lambda *cells: harmonic(*map(score, cells)), list(parts.values()))


@metric(
    "aggregate/memorization",
    after=[f"forget/{name}" for name in MEMORIZATION],
    good="up",
    about=About(
        formula=(
            "harmonic mean of 1 - extraction_strength, 1 - exact_memorization, 1 - para_prob and 1 -"
            " truth_ratio_prob_mean on forget rows"
        ),
        range="0 to 1",
        blind_spot="a wrecked model scores high",
        source=LEADERBOARD,
        other_toolkits=NO_CODE,
    ),
)
def memorization(inputs: MetricInputs) -> Value:
    values = {f"forget/{name}": inputs.values[f"forget/{name}"] for name in MEMORIZATION}
    return mean_of_values(values, lambda value: 1 - value)


def _privacy(inputs: MetricInputs, scaling: str) -> Value:
    keys = {f"mia/{attack}/auc": attack for attack in MEMBERSHIP}
    return mean_of_values({key: _scaled(inputs, attack, scaling) for key, attack in keys.items()})


def _scaled(inputs: MetricInputs, attack: str, scaling: str) -> Value:
    """Score of an attack's AUC beside the retain model's."""
    own, retain = inputs.values[f"mia/{attack}/auc"], retain_auc(inputs, attack)
    if own.value is None:
        return own
    if isinstance(retain, str):
        return Value(None, retain)
    return derived(lambda area: SCALINGS[scaling](area, retain), [own])


def _register_privacy(scaling: str) -> None:
    @metric(
        f"aggregate/privacy{scaling}",
        after=[f"mia/{attack}/auc" for attack in MEMBERSHIP],
        good="up",
        about=About(
            formula=(
                f"harmonic mean of {FORMULAS[scaling]} over the AUCs of LOSS, zlib, Min-K and Min-K++, a of"
                " the model, r of the retain model"
            ),
            range="0 to 1; 1 is like the retain model",
            blind_spot=(
                "whether the model looks more or less like one that saw the rows than the retain model does:"
                " both lower it; the interval takes the retain model's AUCs as exact"
            ),
            source=LEADERBOARD,
            other_toolkits=(
                "The scaling differs between publications: name the metric with the value."
                " unlearning-depth-score adds its UDS by a harmonic mean."
            ),
        ),
    )
    def privacy(inputs: MetricInputs) -> Value:
        return _privacy(inputs, scaling)


for _scaling in SCALINGS:
    _register_privacy(_scaling)


@metric(
    "aggregate/utility",
    after=UTILITY,
    good="up",
    about=About(
        formula=("harmonic mean of model_utility and forget/fluent_share"),
        range="0 to 1",
        blind_spot="abilities beyond these questions; fluent nonsense on forget rows",
        source=LEADERBOARD,
        other_toolkits=(
            "Published: P(clean) of a gibberish classifier in place of forget/fluent_share, at times divided"
            " by the target model's utility."
        ),
    ),
)
def utility(inputs: MetricInputs) -> Value:
    return mean_of_values({key: inputs.values[key] for key in UTILITY})


@metric(
    "aggregate/overall",
    after=OVERALL,
    good="up",
    about=About(
        formula="harmonic mean of aggregate/memorization, aggregate/privacy and aggregate/utility",
        range="0 to 1",
        blind_spot="what its parts cannot see; sampling, relearning and quantisation, which no part measures",
        source=LEADERBOARD,
        other_toolkits="unlearning-depth-score divides utility by the target model's and caps it at 1.",
    ),
)
def overall(inputs: MetricInputs) -> Value:
    return mean_of_values({key: inputs.values[key] for key in OVERALL})
