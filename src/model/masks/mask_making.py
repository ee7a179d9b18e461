"""Making weight masks: gradients over the rows of a run, a score of every weight, the top share of them."""

import contextlib
import logging
import re
import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from ...core.encoding import Template
from ...core.files import UserError, clear_write_errors, fingerprint, lock
from ...core.generation import pad_id
from ...core.likelihood import count_labels
from ...dataset import load_rows
from ...dataset.collate import Collator
from ...dataset.pairs import Pairs
from ...unlearn.blocks import block_numbers, blocks
from ...unlearn.mask import SCORES, Sidecar, WeightMask, read_mask, select, write_mask
from ...unlearn.mask.mask_file import TOLERANCE, content_of, density, read_sidecar, stated_ratio
from ...unlearn.mask.scores import Score, Statistics
from ...unlearn.scoring import answer_nll, logits
from ..load.loading import (
    autocast_context,
    choose_device,
    choose_precision,
    initial_tokenizer,
    load_initial,
    model_fingerprint,
)
from ..run.progress import progress
from ..settings.mask_keys import Masking
from ..settings.run_settings import Settings
from ..training_data import Wanted, choose_forget_rows, training_texts

log = logging.getLogger(__name__)


def make_masks(settings: Settings) -> list[Path]:
    """Score the weights once and write a mask for every ratio of `mask.ratios`. Returns the files. UserError
    at once when they cannot be written, or when another process is making one of them."""
    with contextlib.ExitStack() as stack:
        for ratio in settings.mask.ratios:
            stack.enter_context(lock(settings.mask_file(ratio).with_suffix(".lock"), "mask.out"))
        return _make_masks(settings)


def _make_masks(settings: Settings) -> list[Path]:
    start, plan, overall = time.time(), settings.mask, settings.overall
    tokenizer = initial_tokenizer(overall)
    scored = SCORES[plan.score]
    batches = load_batches(settings, tokenizer, scored)
    device = choose_device(overall.device)
    model = load_initial(overall)
    chosen = candidates(model, plan, scored)
    with autocast_context(device, choose_precision(overall.precision, device)):
        scores = score_weights(model, chosen, scored, batches, settings)
    scope = scored.scope if plan.scope == "auto" else plan.scope
    facts = {
        "forget_rows": sum(len(b["forget"]["labels"]) for b in batches),
        "batch_size": settings.dataset.batch_size,
        "forget": settings.dataset.forget_dataset_name,
        "retain": settings.dataset.retain_dataset_name,
        "model_name": overall.model_name,
        "torch": version("torch"),
    }
    facts |= {
        "scored": sum(score.numel() for score in scores.values()),
        "dataset_seed": settings.dataset.dataset_seed,
    }
    sidecar = Sidecar(
        plan.score,
        0.0,
        scope,
        plan.mu if plan.score in ("wagle", "wagle_po") else None,
        overall.seed,
        0,
        sum(p.numel() for _, p in trainable(model)),
        model_fingerprint(model),
        batches_fingerprint(batches),
        fate_of_others(plan, scored),
    )
    return [
        _write(settings, model, scores, ratio, replace(sidecar, facts=facts), start) for ratio in plan.ratios
    ]


def _write(
    settings: Settings,
    model: nn.Module,
    scores: Mapping[str, Tensor],
    ratio: float,
    sidecar: Sidecar,
    start: float,
) -> Path:
    selected = select(scores, ratio, sidecar.scope)
    masks = {
        name: selected[name] if name in selected else torch.full(p.shape, sidecar.others == "dense")
        for name, p in trainable(model)
    }
    facts = {
        **sidecar.facts,
        "seconds": round(time.time() - start, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    path = settings.mask_file(ratio)
    sidecar = replace(
        sidecar,
        ratio=ratio,
        selected=sum(int(m.sum()) for m in masks.values()),
        facts=facts,
        density={name: round(density({name: m}), 6) for name, m in masks.items()},
    )
    with clear_write_errors(path, "mask.out, or free some space"):
        write_mask(path, masks, sidecar, settings.mask.packed)
    return path


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def candidates(model: nn.Module, plan: Masking, scored: Score) -> list[str]:
    """The parameters that are scored: those whose name `mask.parameters` finds; for scores of activations
    the matrices of the blocks' linear layers. A warning names other matrices that such a score leaves out."""
    names = [name for name, _ in trainable(model)]
    if "inputs" in scored.needs:
        names = _linear_matrices(model, plan)
    found = [name for name in names if re.search(plan.parameters, name)]
    if not found:
        raise UserError(
            f"mask.parameters: no parameter that can be scored has {plan.parameters!r} in its name; there are"
            f" {', '.join(names[:4])}, ..."
        )
    return found


def _linear_matrices(model: nn.Module, plan: Masking) -> list[str]:
    """Names of the weights of linear layers in the blocks."""
    linear, within = linear_layers(model), block_numbers(model)
    matrices = {name: p for name, p in trainable(model) if name in within and p.dim() > 1}
    others = [name for name in matrices if name not in linear]
    if not linear:
        kind = type(model.get_submodule(others[0].rpartition(".")[0])).__name__
        raise UserError(
            f"mask.score {plan.score}: it scores the weights of linear layers (torch.nn.Linear), and the"
            f" blocks of this model have none (its {others[0]} belongs to a {kind}); choose another score,"
            " such as wagle"
        )
    if others:
        log.warning(
            "mask.score %s scores linear layers only: %d other matrices of the blocks, %.0f %% of their"
            " weights, are not scored and stay %s (first %s); mask.others decides",
            plan.score,
            len(others),
            100 * sum(matrices[name].numel() for name in others) / sum(p.numel() for p in matrices.values()),
            fate_of_others(plan, SCORES[plan.score]),
            others[0],
        )
    return list(linear)


def fate_of_others(plan: Masking, scored: Score) -> str:
    """What weights that are not candidates become: frozen or dense."""
    if plan.others != "auto":
        return plan.others
    return "dense" if "inputs" in scored.needs else "frozen"


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Weight name -> linear layer, for those within the decoder blocks."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(module.weight)]: module
        for block in blocks(model)
        for module in block.modules()
        if isinstance(module, nn.Linear)
    }


def load_batches(settings: Settings, tokenizer, scored: Score) -> list[dict]:
    """The batches of the first epoch of training: every forget row with its retain partner."""
    data = settings.dataset
    forget, rest = choose_forget_rows(
        load_rows(data.forget_dataset_name, data.folder, data.column_names),
        data.forget_ratio,
        data.dataset_seed,
    )
    alternates = "refusals" if scored.forget_answers == "refusals" else ""
    texts = training_texts(settings, Wanted({"forget", "retain"}, alternates, forget, rest))
    chosen = {
        "forget": texts["alternate" if scored.forget_answers == "refusals" else "forget"],
        "retain": texts["retain"],
    }
    template = Template(tokenizer, data.template, data.tags)
    rows = {
        part: [
            piece for row in chosen[part] for piece in template.pieces(row, data.max_length, data.long_text)
        ]
        for part in chosen
    }
    pairs = Pairs(rows, data.dataset_seed)
    collate, size = Collator(pad_id(tokenizer)), data.batch_size
    return [
        collate([pairs[0, row] for row in range(at, min(at + size, len(pairs)))])
        for at in range(0, len(pairs), size)
    ]


def batches_fingerprint(batches: list[dict]) -> str:
    return fingerprint(
        [
            [part["input_ids"].tolist(), part["labels"].tolist()]
            for batch in batches
            for part in batch.values()
        ]
    )


def score_weights(
    model: nn.Module, names: list[str], scored: Score, batches: list[dict], settings: Settings
) -> dict[str, Tensor]:
    """The score of every candidate, float32 on the CPU, from one or two passes over the batches in eval
    mode."""
    weights = {name: p for name, p in trainable(model) if name in set(names)}
    found: dict[str, dict[str, Tensor]] = {}
    wanted = {side: {need for need in scored.needs if need.startswith(side)} for side in ("forget", "retain")}
    passes = sum(map(bool, wanted.values())) + ("inputs" in scored.needs)
    rows = passes * sum(len(batch["forget"]["labels"]) for batch in batches)
    with progress("scoring the weights of the mask", settings.overall.quiet, rows) as on_rows:
        for side, needs in wanted.items():
            if needs:
                found |= _gradients(model, weights, [batch[side] for batch in batches], side, needs, on_rows)
        if "inputs" in scored.needs:
            found["inputs"] = _inputs(model, names, [batch["forget"] for batch in batches], on_rows)
    scores = {}
    for name, weight in weights.items():
        facts = {need: table.pop(name) for need, table in found.items()}
        statistics = Statistics(
            name, weight.detach().float(), mu=settings.mask.mu, seed=settings.overall.seed, **facts
        )
        scores[name] = scored.compute(statistics).float().cpu()
    return scores


def _gradients(
    model: nn.Module, weights: Mapping[str, Tensor], parts: list[dict], side: str, wanted: set[str], on_rows
) -> dict[str, dict[str, Tensor]]:
    """Of the NLL on one side: the mean gradient over all tokens, and means over micro-batches of what is
    wanted beside it."""
    device = next(model.parameters()).device
    tokens = sum(int(count_labels(part["labels"]).sum()) for part in parts)
    sums = {
        need: {name: torch.zeros(w.shape, dtype=torch.float32, device=device) for name, w in weights.items()}
        for need in wanted
    }
    for part in parts:
        nll = answer_nll(model, {key: value.to(device) for key, value in part.items()})
        gradients = torch.autograd.grad(nll.sum(), list(weights.values()), allow_unused=True)
        for (name, weight), gradient in zip(weights.items(), gradients):
            if gradient is not None:
                _add(sums, side, name, weight.detach(), gradient.float(), len(nll), tokens, len(parts))
        on_rows(len(part["labels"]))
    return sums


def _add(
    sums: dict, side: str, name: str, weight: Tensor, gradient: Tensor, own: int, tokens: int, batches: int
) -> None:
    """Take in the gradient of a micro-batch's summed NLL over `own` tokens."""
    if side in sums:
        sums[side][name] += gradient / tokens
    if f"{side}_square" in sums:
        sums[f"{side}_square"][name] += (gradient / own) ** 2 / batches
    if f"{side}_saliency" in sums:
        sums[f"{side}_saliency"][name] += (weight * gradient / own).abs() / batches


@torch.no_grad()
def _inputs(model: nn.Module, names: list[str], parts: list[dict], on_rows) -> dict[str, Tensor]:
    """Of each matrix: per input, squares summed over attended tokens and averaged over rows."""
    layers = {name: layer for name, layer in linear_layers(model).items() if name in set(names)}
    sums = {
        name: torch.zeros(layer.in_features, dtype=torch.float32, device=layer.weight.device)
        for name, layer in layers.items()
    }
    attended: list[Tensor] = []

    def catch(name):
        def hook(layer, inputs):
            sums[name] += _attended_inputs(name, inputs[0], attended[-1]).float().pow(2).sum(0)

        return hook

    handles = [layer.register_forward_pre_hook(catch(name)) for name, layer in layers.items()]
    try:
        for part in parts:
            here = {key: value.to(model.device) for key, value in part.items()}
            attended.append(here["attention_mask"].bool())
            logits(model, here)
            on_rows(len(part["labels"]))
    finally:
        for handle in handles:
            handle.remove()
    rows = sum(len(part["labels"]) for part in parts)
    return {name: total / rows for name, total in sums.items()}


def _attended_inputs(name: str, inputs: Tensor, attended: Tensor) -> Tensor:
    """What a layer reads at the attended positions of a batch, [positions, width]. `inputs` is [B, T, width]
    or, in a mixture of experts, [B x T, width]. UserError for an expert that reads some positions of a batch
    with padding: which ones is not known."""
    read = inputs.reshape(-1, inputs.shape[-1])
    if attended.all():
        return read
    if len(read) != attended.numel():
        raise UserError(
            f"mask.score wanda: {name} reads {len(read)} of the {attended.numel()} positions of a batch (it"
            " is an expert of a mixture?), so padding cannot be left out; set dataset.batch_size 1, or leave"
            " the layer out with mask.parameters"
        )
    return read[attended.reshape(-1)]


def load_mask(settings: Settings, model: nn.Module) -> WeightMask | None:
    """The mask of a run, checked against its model; None without `unlearn.mask_path`."""
    if settings.unlearn.mask_path is None:
        return None
    path = Path(settings.unlearn.mask_path).expanduser()
    masks = read_mask(path, model, settings.unlearn.mask_missing)
    for doubt in _doubts(path, masks, model):
        if not settings.unlearn.mask_force:
            raise UserError(
                f"unlearn.mask_path {path}: {doubt}; unlearn.mask_force true takes it all the same"
            )
        log.warning("unlearn.mask_path %s: %s", path, doubt)
    return WeightMask(masks, model)


def _doubts(path: Path, masks: Mapping[str, Tensor], model: nn.Module) -> Iterator[str]:
    """Why a file that fits the model may not be the mask that was meant."""
    sidecar, found, stated = read_sidecar(path), density(masks), stated_ratio(path)
    if stated is not None and sidecar.get("ratio", stated) != stated:
        yield f"its name states the ratio {stated:g}, its sidecar {sidecar['ratio']}"
    if stated is not None and not sidecar and abs(stated - found) > TOLERANCE:
        yield f"its name says that {stated:g} of the weights are updated, it selects {found:.4f}"
    if sidecar.get("content") and sidecar["content"] != content_of(masks):
        yield "its sidecar was written for other bits"
    rounded = any(p.dtype != torch.float32 for p in model.parameters())
    if sidecar.get("model") and not rounded and sidecar["model"] != model_fingerprint(model):
        yield "it was made for other weights than those of overall.model_name"
