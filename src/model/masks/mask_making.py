"""Computation of weight masks: gradients over the rows of a run, a score per weight, the top share."""

import contextlib
import logging
import re
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
    initial_tokenizer,
    load_initial,
    model_fingerprint,
    resolve_device,
    resolve_precision,
)
from ..run.progress import progress
from ..settings.mask_keys import Masking
from ..settings.run_settings import Settings
from ..training_data import RequestedParts, choose_forget_rows, training_texts

log = logging.getLogger(__name__)


def make_masks(settings: Settings) -> list[Path]:
    """Score the weights once and write a mask for every ratio of `mask.ratios`.

    Args:
        settings: the settings of a run; its model, rows and section `mask` are used.

    Returns:
        The mask files, each with a sidecar `<file>.json`, in the order of `mask.ratios`.

    Raises:
        UserError: before the scoring, when a file cannot be written or another process makes one of them;
            or no parameter can be scored.
    """
    with contextlib.ExitStack() as stack:
        # All locks are taken first: scoring takes minutes to hours, and a second process would waste them.
        for ratio in settings.mask.ratios:
            stack.enter_context(lock(settings.mask_file(ratio).with_suffix(".lock"), "mask.out"))
        return _make_masks(settings)


def _make_masks(settings: Settings) -> list[Path]:
    start, plan, overall = time.time(), settings.mask, settings.overall
    tokenizer = initial_tokenizer(overall)
    score = SCORES[plan.score]
    batches = load_batches(settings, tokenizer, score)
    device = resolve_device(overall.device)
    model = load_initial(overall)
    chosen = candidates(model, plan, score)
    with autocast_context(device, resolve_precision(overall.precision, device)):
        scores = score_weights(model, chosen, score, batches, settings)
    facts = {
        "forget_rows": sum(len(b["forget"]["labels"]) for b in batches),
        "batch_size": settings.dataset.batch_size,
        "forget": settings.dataset.forget_dataset_name,
        "retain": settings.dataset.retain_dataset_name,
        "model_name": overall.model_name,
        "torch": version("torch"),
        "scored": sum(values.numel() for values in scores.values()),
        "dataset_seed": settings.dataset.dataset_seed,
    }
    sidecar = Sidecar(
        score=plan.score,
        ratio=0.0,
        scope=score.scope if plan.scope == "auto" else plan.scope,
        mu=plan.mu if plan.score in ("wagle", "wagle_po") else None,
        seed=overall.seed,
        selected=0,
        weights=sum(p.numel() for _, p in trainable(model)),
        model=model_fingerprint(model),
        data=batches_fingerprint(batches),
        others=unscored_state(plan, score),
        facts=facts,
    )
    scored = _ScoredModel(model, scores, sidecar, start)
    return [_write_mask(settings, scored, ratio) for ratio in plan.ratios]


@dataclass(frozen=True)
class _ScoredModel:
    """A model with the scores of its weights, the sidecar without the fields of one ratio, and the time at
    which the scoring started."""

    model: nn.Module
    scores: Mapping[str, Tensor]
    sidecar: Sidecar
    start: float


def _write_mask(settings: Settings, scored: _ScoredModel, ratio: float) -> Path:
    sidecar = scored.sidecar
    selected = select(scored.scores, ratio, sidecar.scope)
    masks = {
        name: selected[name] if name in selected else torch.full(p.shape, sidecar.others == "dense")
        for name, p in trainable(scored.model)
    }
    facts = {
        **sidecar.facts,
        "seconds": round(time.time() - scored.start, 1),
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
    """Name and tensor of every trainable parameter; tied weights once, under the name of the embedding."""
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def candidates(model: nn.Module, plan: Masking, score: Score) -> list[str]:
    """Names of the parameters to score.

    Args:
        model: the initial model.
        plan: the settings section `mask`; `parameters` is searched in the names.
        score: a score of activations covers the matrices of the blocks' linear layers alone; a warning lists
            the other matrices.

    Raises:
        UserError: no parameter is left.
    """
    names = [name for name, _ in trainable(model)]
    if "inputs" in score.needs:
        names = _linear_weight_names(model, plan)
    found = [name for name in names if re.search(plan.parameters, name)]
    if not found:
        raise UserError(
            f"mask.parameters: no parameter that can be scored has {plan.parameters!r} in its name; there are"
            f" {', '.join(names[:4])}, ..."
        )
    return found


def _linear_weight_names(model: nn.Module, plan: Masking) -> list[str]:
    linear, within = linear_layers(model), block_numbers(model)
    matrices = {name: p for name, p in trainable(model) if name in within and p.dim() > 1}
    others = [name for name in matrices if name not in linear]
    if not linear:
        kind = type(model.get_submodule(others[0].rpartition(".")[0])).__name__
        raise UserError(
            f"mask.score {plan.score}: covers linear layers (torch.nn.Linear), and the blocks of this model"
            f" have none ({others[0]} belongs to a {kind}); choose another score, such as wagle"
        )
    if others:
        log.warning(
            "mask.score %s scores linear layers only: %d other matrices of the blocks, %.0f %% of their"
            " weights, are not scored and stay %s (first %s); mask.others decides",
            plan.score,
            len(others),
            100 * sum(matrices[name].numel() for name in others) / sum(p.numel() for p in matrices.values()),
            unscored_state(plan, SCORES[plan.score]),
            others[0],
        )
    return list(linear)


def unscored_state(plan: Masking, score: Score) -> str:
    """The state of weights that are not scored: `frozen` or `dense` (trained)."""
    if plan.others != "auto":
        return plan.others
    # Wanda prunes linear layers and leaves embeddings and norms as they are, that is, in the trained model.
    return "dense" if "inputs" in score.needs else "frozen"


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Weight name -> linear layer, within the decoder blocks: without lm_head, which may be tied."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(module.weight)]: module
        for block in blocks(model)
        for module in block.modules()
        if isinstance(module, nn.Linear)
    }


def load_batches(settings: Settings, tokenizer, score: Score) -> list[dict]:
    """The batches of the first epoch of training: every forget row with its retain partner, in order.

    Returns:
        Batches {"forget": part, "retain": part}, see `core.encoding.pad_rows`.
    """
    data = settings.dataset
    forget, rest = choose_forget_rows(
        load_rows(data.forget_dataset_name, data.folder, data.column_names),
        data.forget_ratio,
        data.dataset_seed,
    )
    refusals = score.forget_answers == "refusals"
    wanted = RequestedParts({"forget", "retain"}, "refusals" if refusals else "", forget, rest)
    texts = training_texts(settings, wanted)
    chosen = {"forget": texts["alternate" if refusals else "forget"], "retain": texts["retain"]}
    template = Template(tokenizer, data.template, data.tags)
    rows = {
        part: [piece for row in texts for piece in template.pieces(row, data.max_length, data.long_text)]
        for part, texts in chosen.items()
    }
    pairs = Pairs(rows, data.dataset_seed)
    collate, size = Collator(pad_id(tokenizer)), data.batch_size
    return [
        collate([pairs[0, row] for row in range(at, min(at + size, len(pairs)))])
        for at in range(0, len(pairs), size)
    ]


def batches_fingerprint(batches: list[dict]) -> str:
    """Hash of the token ids and labels in their order, by which a mask's sidecar identifies its rows."""
    return fingerprint(
        [
            [part["input_ids"].tolist(), part["labels"].tolist()]
            for batch in batches
            for part in batch.values()
        ]
    )


def score_weights(
    model: nn.Module, names: list[str], score: Score, batches: list[dict], settings: Settings
) -> dict[str, Tensor]:
    """Score every candidate, from one or two passes over the batches in eval mode.

    Args:
        model: the initial model, on its device.
        names: the candidates.
        score: the registered score; the statistics that it `needs` are computed.
        batches: see `load_batches`.
        settings: of these `mask.mu` and `overall.seed`.

    Returns:
        Candidate -> score, float32 on the CPU, in the shape of the weight.
    """
    weights = {name: p for name, p in trainable(model) if name in set(names)}
    found: dict[str, dict[str, Tensor]] = {}
    needs = {side: {need for need in score.needs if need.startswith(side)} for side in ("forget", "retain")}
    passes = sum(map(bool, needs.values())) + ("inputs" in score.needs)
    rows = passes * sum(len(batch["forget"]["labels"]) for batch in batches)
    with progress("scoring the weights of the mask", settings.overall.quiet, rows) as on_rows:
        for side in ("forget", "retain"):
            if needs[side]:
                parts = [batch[side] for batch in batches]
                found |= _gradient_statistics(
                    model, weights, parts, GradientNeeds(side, needs[side]), on_rows
                )
        if "inputs" in score.needs:
            found["inputs"] = _input_norms(model, names, [batch["forget"] for batch in batches], on_rows)
    scores = {}
    for name, weight in weights.items():
        # Popped, so that each tensor's statistics are freed once its score is on the CPU.
        tensors = {need: table.pop(name) for need, table in found.items()}
        statistics = Statistics(
            name, weight.detach().float(), mu=settings.mask.mu, seed=settings.overall.seed, **tensors
        )
        scores[name] = score.compute(statistics).float().cpu()
    return scores


@dataclass(frozen=True)
class GradientNeeds:
    """The statistics of one side's gradient that a score needs: `<side>` (mean gradient), `<side>_square` and
    `<side>_saliency`."""

    side: str
    needs: set[str]


def _gradient_statistics(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    parts: Sequence[dict],
    wanted: GradientNeeds,
    on_rows: Callable[[int], None],
) -> dict[str, dict[str, Tensor]]:
    """Statistic -> weight name -> tensor of the NLL on one side: the mean gradient over all tokens, and means
    over micro-batches of its square and of |weight x gradient|."""
    side, needs = wanted.side, wanted.needs
    device = next(model.parameters()).device
    tokens = sum(int(count_labels(part["labels"]).sum()) for part in parts)
    # float32 sums even for bf16 weights, in which thousands of small gradients would be rounded away.
    sums = {
        need: {name: torch.zeros(w.shape, dtype=torch.float32, device=device) for name, w in weights.items()}
        for need in needs
    }
    for part in parts:
        nll = answer_nll(model, {key: value.to(device) for key, value in part.items()})
        gradients = torch.autograd.grad(nll.sum(), list(weights.values()), allow_unused=True)
        for (name, weight), gradient in zip(weights.items(), gradients):
            if gradient is None:  # an expert that no token of the batch was routed to
                continue
            gradient, own_tokens = gradient.float(), len(nll)
            if side in sums:
                # Divided by the tokens of all batches: the mean does not depend on the batch size.
                sums[side][name] += gradient / tokens
            if f"{side}_square" in sums:
                sums[f"{side}_square"][name] += (gradient / own_tokens) ** 2 / len(parts)
            if f"{side}_saliency" in sums:
                saliency = (weight.detach() * gradient / own_tokens).abs()
                sums[f"{side}_saliency"][name] += saliency / len(parts)
        on_rows(len(part["labels"]))
    return sums


@torch.no_grad()
def _input_norms(
    model: nn.Module, names: list[str], parts: list[dict], on_rows: Callable[[int], None]
) -> dict[str, Tensor]:
    """Weight name -> squared inputs [in_features], summed over attended tokens and averaged over rows."""
    layers = {name: layer for name, layer in linear_layers(model).items() if name in set(names)}
    sums = {
        name: torch.zeros(layer.in_features, dtype=torch.float32, device=layer.weight.device)
        for name, layer in layers.items()
    }
    attended: list[Tensor] = []  # the attention mask of every batch so far; hooks read the last

    def input_hook(name):
        def hook(layer, inputs):
            sums[name] += _attended_inputs(name, inputs[0], attended[-1]).float().pow(2).sum(0)

        return hook

    handles = [layer.register_forward_pre_hook(input_hook(name)) for name, layer in layers.items()]
    try:
        for part in parts:
            batch = {key: value.to(model.device) for key, value in part.items()}
            attended.append(batch["attention_mask"].bool())
            logits(model, batch)
            on_rows(len(part["labels"]))
    finally:
        for handle in handles:
            handle.remove()
    rows = sum(len(part["labels"]) for part in parts)
    return {name: total / rows for name, total in sums.items()}


def _attended_inputs(name: str, inputs: Tensor, attended: Tensor) -> Tensor:
    """A layer's inputs at the attended positions of a batch.

    Args:
        name: name of the layer's weight, for the message.
        inputs: [B, T, width], or in a mixture of experts [B x T, width].
        attended: [B, T], False at padding.

    Returns:
        [positions, width].

    Raises:
        UserError: an expert reads a part of the positions of a batch with padding.
    """
    flat = inputs.reshape(-1, inputs.shape[-1])
    if attended.all():
        return flat
    # A routed expert gets some of the positions without their numbers: padding cannot be told from tokens.
    if len(flat) != attended.numel():
        raise UserError(
            f"mask.score wanda: {name} reads {len(flat)} of the {attended.numel()} positions of a batch (an"
            " expert of a mixture?), so padding cannot be excluded; set dataset.batch_size 1, or exclude the"
            " layer with mask.parameters"
        )
    return flat[attended.reshape(-1)]


def load_mask(settings: Settings, model: nn.Module) -> WeightMask | None:
    """Read the mask of a run.

    Returns:
        The mask, checked against the model; None without `unlearn.mask_path`.

    Raises:
        UserError: the file is not a mask of this model; or, without `unlearn.mask_force`, its name or sidecar
            contradicts it.
    """
    if settings.unlearn.mask_path is None:
        return None
    path = Path(settings.unlearn.mask_path).expanduser()
    masks = read_mask(path, model, settings.unlearn.mask_missing)
    for contradiction in _contradictions(path, masks, model):
        if not settings.unlearn.mask_force:
            raise UserError(
                f"unlearn.mask_path {path}: {contradiction}; unlearn.mask_force true uses it anyway"
            )
        log.warning("unlearn.mask_path %s: %s", path, contradiction)
    return WeightMask(masks, model)


def _contradictions(path: Path, masks: Mapping[str, Tensor], model: nn.Module) -> Iterator[str]:
    """Signs in name and sidecar that a file which fits the model is not the intended mask."""
    sidecar, found, stated = read_sidecar(path), density(masks), stated_ratio(path)
    if stated is not None and sidecar.get("ratio", stated) != stated:
        yield f"its name states the ratio {stated:g}, its sidecar {sidecar['ratio']}"
    if stated is not None and not sidecar and abs(stated - found) > TOLERANCE:
        yield f"its name states {stated:g} of the weights as updated, it selects {found:.4f}"
    if sidecar.get("content") and sidecar["content"] != content_of(masks):
        yield "its sidecar was written for other bits"
    # A fingerprint covers the dtype: that of the same model with bf16 weights differs from the sidecar's.
    rounded = any(p.dtype != torch.float32 for p in model.parameters())
    if sidecar.get("model") and not rounded and sidecar["model"] != model_fingerprint(model):
        yield "it was made for other weights than those of overall.model_name"
