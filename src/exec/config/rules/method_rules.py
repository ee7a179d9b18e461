"""Rules on the method, its parts and its training."""

from pathlib import Path
from typing import Any

from ....model.load.adapters import is_adapter
from ....model.settings.run_settings import Settings
from ....unlearn.base import RunFacts, section_of
from .model_rules import model_path_error


def mask_errors(settings: Settings) -> list[str]:
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


def weight_errors(settings: Settings) -> list[str]:
    method, unlearn = settings.method, settings.unlearn
    weights = [unlearn.forget_weight] * bool(method.forget) + [unlearn.gamma] * bool(method.retain)
    if method.trains and not any(weights):
        return ["unlearn.forget_weight and unlearn.gamma leave nothing to train; set one above 0"]
    return []


def combination_errors(settings: Settings) -> list[str]:
    """What settings, beyond names, cannot stand together."""
    found, method, unlearn = [], settings.method, settings.unlearn
    if unlearn.flatness not in ("none", "WA") and (not method.forget or unlearn.forget_weight == 0):
        found.append(
            f"unlearn.flatness {unlearn.flatness} flattens the forget loss, and there is none in"
            f" {method.name}"
        )
    if unlearn.flatness != "none" and method.edits:
        found.append(f"unlearn.flatness {unlearn.flatness}: {method.forget} edits the model and takes none")
    sides = {side for side, _, _ in settings.composition.active} | ({"retain"} & parts_of(settings))
    if unlearn.combiner != "sum" and (method.edits or sides < {"forget", "retain"}):
        found.append(
            f"unlearn.combiner {unlearn.combiner} combines the gradients of two sides, and {method.name} has"
            " not both"
        )
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
    return found


def parts_of(settings: Settings) -> set[str]:
    """The batch parts that the run reads."""
    return set(settings.composition.parts)


def edit_errors(settings: Settings) -> list[str]:
    if not settings.method.edits:
        return []
    section = f"unlearn.{settings.method.forget}"
    path = settings.components[section].reinforced
    return (
        [complaint] if path and (complaint := model_path_error(f"{section}.reinforced", path, False)) else []
    )


def resume_errors(settings: Settings) -> list[str]:
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


def objective_errors(settings: Settings) -> list[str]:
    """What the objectives and the flatness wrapper find wrong themselves."""
    taking_part = [*settings.components.values(), settings.flatness]
    run = facts_of(settings)
    found = [error for objective in settings.components.values() for error in objective.errors(run)]
    if settings.unlearn.use_lora:
        found += [
            f"unlearn.use_lora: {type(part).__name__} is about the weights, and LoRA trains factors of"
            " updates to them; take one"
            for part in taking_part
            if getattr(part, "on_weights", False)
        ]
    return found


def facts_of(settings: Settings) -> RunFacts:
    method = settings.method
    return RunFacts(method.name, bool(method.retain), settings.unlearn.published, settings.dataset.think_open)


def adapter_errors(settings: Settings) -> list[str]:
    unlearn, name = settings.unlearn, settings.overall.model_name
    if unlearn.save_adapter == "none":
        return []
    if not unlearn.use_lora:
        return ["unlearn.save_adapter keeps what LoRA trained: set unlearn.use_lora true too"]
    if is_adapter(name):
        return [
            f"unlearn.save_adapter: {name} is an adapter itself, and an adapter has one base; start from a"
            " whole model, or keep merged weights (none)"
        ]
    if settings.overall.random_init:
        return ["unlearn.save_adapter: overall.random_init leaves no base model to put the adapter on"]
    return []


def quantization_errors(settings: Settings) -> list[str]:
    """What cannot be done over weights in 4 bits."""
    unlearn, overall = settings.unlearn, settings.overall
    if settings.lora.quantize == "none" or not settings.method.trains:
        return []
    key = f"unlearn.lora.quantize {settings.lora.quantize}"
    if not unlearn.use_lora:
        return [
            f"{key}: weights in 4 bits cannot be trained, only adapters on them: set unlearn.use_lora true"
        ]
    found = []
    if unlearn.save_adapter != "only":
        found.append(
            f"{key}: an update merged into 4 bits would be rounded away: set unlearn.save_adapter only, which"
            " keeps the adapter"
        )
    if overall.random_init:
        found.append(f"{key}: overall.random_init draws whole weights; load a model")
    if is_adapter(overall.model_name):
        found.append(f"{key}: {overall.model_name} is an adapter itself; merge it into its base first")
    if settings.needs_double_backward:
        found.append(f"{key}: {settings.method.name} differentiates gradients, which 4-bit layers cannot")
    if settings.method.edits:
        found.append(f"{key}: {settings.method.forget} edits the weights themselves")
    return found


def reference_errors(settings: Settings) -> list[str]:
    """Objectives that compare with an initial model that is random, or that draw labels on absent rows."""
    found = []
    active = [objective for _, _, objective in settings.composition.active]
    comparing = [section_of(objective) for objective in active if objective.reads_reference]
    if settings.overall.random_init and comparing:
        found.append(
            f"{', '.join(comparing)} compares with the initial model, but overall.random_init draws that one"
            " at random: there is no reference; take another objective or load the model"
        )
    estimates = settings.unlearn.optimizer == "Sophia" and settings.optimizer.hessian == "gnb"
    if estimates and (missing := set(settings.optimizer.parts()) - parts_of(settings)):
        found.append(
            f"unlearn.optim.Sophia.on {settings.optimizer.on}: {settings.method.name} has no"
            f" {' and no '.join(sorted(missing))} rows to draw labels on; choose another, or"
            " unlearn.optim.Sophia.hessian none, which makes every step a sign step"
        )
    return found


def method_warnings(settings: Settings) -> list[str]:
    """What is allowed and probably not meant about the method."""
    found, unlearn, method = [], settings.unlearn, settings.method
    if unlearn.mask_path and not method.trains:
        found.append("unlearn.mask_path is set without effect: origin trains nothing")
    if unlearn.gamma == 0 and method.retain:
        found.append(f"unlearn.gamma is 0: the retain objective of {method.name} is left out")
    run = facts_of(settings)
    found += [text for objective in settings.components.values() for text in objective.warnings(run)]
    active: list[Any] = [objective for _, _, objective in settings.composition.active]
    layers = {section_of(objective): objective.layer for objective in active if hasattr(objective, "layer")}
    if len(set(layers.values())) > 1:
        places = ", ".join(f"{section}.layer {layer}" for section, layer in layers.items())
        found.append(f"several blocks are compared: {places}")
    if not settings.combiner.weighs and (unlearn.forget_weight, unlearn.gamma) != (1.0, 1.0):
        found.append(
            f"unlearn.combiner {unlearn.combiner} has no place for unlearn.forget_weight and unlearn.gamma"
        )
    if getattr(settings.flatness, "rho", 1) == 0:
        found.append(f"unlearn.flat.{unlearn.flatness}.rho is 0: the wrapper is left out")
    return found
