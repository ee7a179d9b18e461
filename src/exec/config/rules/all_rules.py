"""Every rule on settings: errors, warnings, missing files."""

from typing import Any

from ....core.thinking import TAGS
from ....dataset import parse_name
from ....model.settings.run_settings import Settings
from ....unlearn.base import section_of
from .data_rules import _data
from .evaluation_rules import _benchmarks, _convention_of, _judge, _metrics, _retain_results
from .method_rules import _agreement, _combinations, _composition, _edit, _mask, _resume, _sides, _weights
from .model_rules import _inside, _model, _packages


def broken_rules(settings: Settings) -> list[str]:
    """Every reason why this run cannot start, each naming its keys."""
    return [
        *_mask(settings),
        *_model(settings),
        *_metrics(settings),
        *_weights(settings),
        *_combinations(settings),
        *_edit(settings),
        *_data(settings),
        *_retain_results(settings),
        *_resume(settings),
        *_packages(settings),
        *_inside(settings),
        *_judge(settings),
        *_agreement(settings),
        *_benchmarks(settings),
    ]


def warnings(settings: Settings) -> list[str]:
    """What is allowed and probably not meant."""
    found = []
    if settings.unlearn.mask_path and not settings.method.trains:
        found.append("unlearn.mask_path is set without effect: origin trains nothing")
    if settings.unlearn.gamma == 0 and settings.method.retain:
        found.append(f"unlearn.gamma is 0: the retain objective of {settings.method.name} is left out")
    theirs = _convention_of(settings.evaluate.retain_results)
    if theirs not in (None, settings.evaluate.convention):
        found.append(
            f"evaluate.convention is {settings.evaluate.convention} but evaluate.retain_results was measured"
            f" with {theirs}: forget quality would compare two readings of the rows"
        )
    if getattr(settings.components.get("unlearn.R2MU"), "beta", 1) == 0:
        found.append("unlearn.R2MU.beta is 0, which is R2MU-v0: nothing holds the ability to reason")
    if not parse_name(settings.dataset.forget_dataset_name)[0].measured:
        found.append(
            f"{settings.dataset.forget_dataset_name} has no rows to measure: every metric will be null"
        )
    active: list[Any] = [objective for _, _, objective in _composition(settings).active]
    layers = {section_of(objective): objective.layer for objective in active if hasattr(objective, "layer")}
    if len(set(layers.values())) > 1:
        found.append(
            "several blocks are compared:"
            f" {', '.join(f'{section}.layer {layer}' for section, layer in layers.items())}"
        )
    reflection = settings.components.get("unlearn.RTP")
    if reflection and TAGS.open in reflection.words and settings.dataset.think_open != TAGS.open:
        found.append(
            f"unlearn.RTP.words has {TAGS.open}, but dataset.think_open is {settings.dataset.think_open}"
        )
    data = settings.dataset
    mixed = parse_name(data.forget_dataset_name)[0].own != parse_name(data.retain_dataset_name)[0].own
    if settings.method.forget and mixed and "retain" in _sides(settings) and not data.self_retain:
        found.append(
            f"the rows to forget are {data.forget_dataset_name} and those to keep"
            f" {data.retain_dataset_name}: is dataset.retain_dataset_name meant to be your own rows too?"
        )
    weights = (settings.unlearn.forget_weight, settings.unlearn.gamma)
    if not settings.combiner.weighs and weights != (1.0, 1.0):
        found.append(
            f"unlearn.combiner {settings.unlearn.combiner} has no place for unlearn.forget_weight and"
            " unlearn.gamma"
        )
    if getattr(settings.flatness, "rho", 1) == 0:
        found.append(f"unlearn.flat.{settings.unlearn.flatness}.rho is 0: the wrapper is left out")
    return found
