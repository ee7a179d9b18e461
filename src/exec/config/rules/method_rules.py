"""Rules on the method, its parts and its training."""

import math
from pathlib import Path

from ....model.load.adapters import is_adapter
from ....model.settings.run_settings import Settings
from ....unlearn import Composition, compose
from ....unlearn.base import section_of
from ....unlearn.gradients.agreement import MAX_TEXTS, always_passes
from .model_rules import _model_path


def _mask(settings: Settings) -> list[str]:
    unlearn = settings.unlearn
    if unlearn.mask_path is None:
        return []
    found = []
    if unlearn.use_lora:
        found.append(
            "unlearn.mask_path and unlearn.use_lora: a mask selects weights, and LoRA trains factors of"
            " updates to all of them; take one"
        )
    if settings.method.edits:
        found.append(f"unlearn.mask_path: {settings.method.forget} edits all weights and takes no mask")
    return found


def _weights(settings: Settings) -> list[str]:
    method, unlearn = settings.method, settings.unlearn
    weights = [unlearn.forget_weight] * bool(method.forget) + [unlearn.gamma] * bool(method.retain)
    if method.trains and not any(weights):
        return ["unlearn.forget_weight and unlearn.gamma leave nothing to train; set one above 0"]
    return []


def _combinations(settings: Settings) -> list[str]:
    """What settings, beyond names, cannot stand together."""
    found, method, unlearn = [], settings.method, settings.unlearn
    refusal = settings.components.get("unlearn.CL")
    if refusal and refusal.batch == "concat" and method.retain:
        by = f" (it comes from unlearn.published {unlearn.published})" if unlearn.published != "none" else ""
        found.append(
            f"unlearn.CL.batch concat has the retain rows in the same mean{by}: unlearn_method CL, not"
            f" {method.name}"
        )
    if unlearn.flatness not in ("none", "WA") and (not method.forget or unlearn.forget_weight == 0):
        found.append(
            f"unlearn.flatness {unlearn.flatness} flattens the forget loss, and there is none in"
            f" {method.name}"
        )
    if unlearn.flatness != "none" and method.edits:
        found.append(f"unlearn.flatness {unlearn.flatness}: {method.forget} edits the model and takes none")
    sides = {side for side, _, _ in _composition(settings).active} | ({"retain"} & _sides(settings))
    if unlearn.combiner != "sum" and (method.edits or sides < {"forget", "retain"}):
        found.append(
            f"unlearn.combiner {unlearn.combiner} combines the gradients of two sides, and {method.name} has"
            " not both"
        )
    if unlearn.save_adapter != "none" and not unlearn.use_lora:
        found.append("unlearn.save_adapter keeps what LoRA trained: set unlearn.use_lora true too")
    elif unlearn.save_adapter != "none" and is_adapter(settings.overall.model_name):
        found.append(
            f"unlearn.save_adapter: {settings.overall.model_name} is an adapter itself, and an adapter has"
            " one base; start from a whole model, or keep merged weights (none)"
        )
    elif unlearn.save_adapter != "none" and settings.overall.random_init:
        found.append("unlearn.save_adapter: overall.random_init leaves no base model to put the adapter on")
    if unlearn.use_lora:
        whole = [name for name in (*method.regularizers, unlearn.flatness) if name in ("L1", "ILU", "WA")]
        found += [
            f"unlearn.use_lora: {name} is about the weights, and LoRA trains factors of updates to them;"
            " take one"
            for name in whole
        ]
    if (
        unlearn.gamma == 0
        and method.forget
        and "retain" in settings.components[f"unlearn.{method.forget}"].parts
    ):
        found.append(
            f"unlearn.gamma 0: {method.forget} has its retain term in itself; take another method to leave"
            " it out"
        )
    if unlearn.flatness == "WA" and 0 < unlearn.max_steps < settings.flatness.start:
        found.append(
            f"unlearn.flat.WA.start is {settings.flatness.start} but unlearn.max_steps {unlearn.max_steps}:"
            " no step would count"
        )
    asks = lambda needs: any("reference" in need or need == "activation_norm" for need in needs)
    needy = [
        section_of(objective) for _, _, objective in _composition(settings).active if asks(objective.needs)
    ]
    if settings.overall.random_init and needy:
        found.append(
            f"{', '.join(needy)} compares with the initial model, but overall.random_init draws that one at"
            " random: there is no reference to be had; take another objective or load the model"
        )
    gathers = unlearn.optimizer == "Sophia" and settings.optimizer.hessian == "gnb"
    if gathers and (missing := set(settings.optimizer.parts()) - _sides(settings)):
        found.append(
            f"unlearn.optim.Sophia.on {settings.optimizer.on}: {method.name} has no"
            f" {' and no '.join(sorted(missing))} rows to draw labels on; choose another, or"
            " unlearn.optim.Sophia.hessian none, which makes every step a sign step"
        )
    return found


def _agreement(settings: Settings) -> list[str]:
    """What GAO's numbers cannot mean together."""
    plan = settings.components.get("unlearn.GAO")
    if plan is None or not plan.adds_gradient:
        return []
    found = []
    if plan.agreement != "none" and always_passes(plan.tau, plan.K):
        tau, even = math.ceil(1000 / plan.K) / 1000, plan.K - 1 if plan.K == MAX_TEXTS else plan.K + 1
        found.append(
            f"unlearn.GAO.K {plan.K} and unlearn.GAO.tau {plan.tau:g}: {plan.K} signs, an odd number, sum to"
            f" at least 1, and 1 > tau x K = {plan.tau * plan.K:.3g}: every coordinate passes and nothing is"
            f" compared; take K {even}, or tau {tau:g}, or say unlearn.GAO.agreement none if that is meant"
        )
    if plan.pad_to and plan.positions != "all":
        found.append(
            "unlearn.GAO.pad_to counts the padding of paraphrases, which needs unlearn.GAO.positions all"
        )
    return found


def _sides(settings: Settings) -> set[str]:
    """The batch parts that the run reads."""
    return set(_composition(settings).parts)


def _composition(settings: Settings) -> Composition:
    return compose(
        settings.method, settings.components, settings.unlearn.forget_weight, settings.unlearn.gamma
    )


def _edit(settings: Settings) -> list[str]:
    if not settings.method.edits:
        return []
    section = f"unlearn.{settings.method.forget}"
    path = settings.components[section].reinforced
    return [complaint] if path and (complaint := _model_path(f"{section}.reinforced", path, False)) else []


def _resume(settings: Settings) -> list[str]:
    path = settings.unlearn.resume_path
    if (path or settings.unlearn.save_steps) and settings.overall.logger == "none":
        return [
            "unlearn.resume_path and unlearn.save_steps need overall.logger json or wandb: none keeps no"
            " checkpoint"
        ]
    if path is None:
        return []
    if path == "auto" and settings.logger.name:
        return []
    if path == "auto":
        return ["unlearn.resume_path auto needs logger.name: the run to go on with"]
    if not (Path(path).expanduser() / "config.json").is_file():
        return [
            f"unlearn.resume_path: {path} is not a run folder (it has no config.json); expected"
            " files/results/<name> or auto"
        ]
    return []
