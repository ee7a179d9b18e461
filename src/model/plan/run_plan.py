"""The plan of a run: its rows, steps, memory, computation, time and disk, and what would make it fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ...core.encoding import Encoded
from ...core.files import UserError, reading_once
from ...core.likelihood import IGNORE, count_labels
from ...dataset.collate import Collator
from ...dataset.pairs import EpochSampler, Pairs
from ...metrics.measure import texts_of
from ...metrics.spec import MAX_LOGITS, METRICS, Generations, Samples, select
from ...optim import AdamW, Sophia
from ...unlearn import Composition
from ...unlearn.base import Objective
from ...unlearn.edits.reinforce import Reinforce
from ...unlearn.passes.chunked_head import CHUNK_LOGITS, WHOLE_LOGITS
from ...unlearn.passes.row_packing import choose_lines, line_width, row_lengths
from ...unlearn.step.step_plan import StepPlan
from ..evaluation import score_tokens
from ..load.loading import initial_tokenizer
from ..run.unlearn_run import Rows, Unlearn
from ..settings.run_settings import Settings
from .memory_axes import FLOAT, LOGITS_IN_FORWARD, TRICKS, MemoryAxes, PassMemory, Trick
from .shape_model import Pass, PassCost, ShapeModel, uses_gpu

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4-bit blocks of 64 with one 8-bit scale each, and a float32 scale for 256 scales."""
SMALL_FOR_8_BITS = 4096
"""Trained tensors of fewer elements keep 32-bit optimizer state."""
CPU_TEMPORARIES, CPU_TEMPORARIES_8_BITS = 3, 5
"""Copies of a tensor that bitsandbytes computes with on a CPU, one tensor after the other: the scaled
gradient, a root and the update; beside 8-bit state both moments in float32, the gradient, a root and its
quotient. Its GPU kernels, and torch's fused ones, make none."""
SAMPLED_BATCHES = 200
"""Most micro-batches whose sizes are looked at."""


@dataclass(frozen=True)
class MicroBatch:
    """Sizes of one micro-batch: part -> its rows and width, the tokens of each row, and its labelled
    tokens."""

    parts: Mapping[str, Pass]
    lengths: Mapping[str, Sequence[int]]
    labelled: Mapping[str, int]

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts.values())


@dataclass(frozen=True)
class RunPlan:
    """What a run needs, in bytes, floating-point operations and steps."""

    settings: Settings
    on_gpu: bool
    parameters: int
    trained: int
    steps: StepPlan | None
    memory: MemoryAxes
    rows: Mapping[str, int] = field(default_factory=dict)
    flops: int = 0
    """Of the whole training, reference values left out that come again."""
    disk: Mapping[str, int] = field(default_factory=dict)
    largest: MicroBatch | None = None

    @property
    def peak(self) -> int:
        return self.memory.peak(self.on_gpu)

    @property
    def needed(self) -> int:
        """The memory in which the run keeps its speed: the peak, and the files that each pass reads."""
        return self.peak + self.memory.mapped

    @property
    def trained_share(self) -> float:
        return self.trained / self.parameters if self.parameters else 0.0


@dataclass(frozen=True)
class Prepared:
    """What every variant of a run shares: the tokenizer and the rows."""

    tokenizer: Any
    rows: Rows


def prepare(settings: Settings) -> Prepared:
    """Read and tokenise the rows of a run.

    Raises:
        UserError: what the run itself would report about its rows.
    """
    tokenizer = initial_tokenizer(settings.overall)
    with reading_once():
        return Prepared(tokenizer, Unlearn(settings).rows(tokenizer, trained_composition(settings)))


def trained_composition(settings: Settings) -> Composition:
    """The objectives that are trained; of an edit those of its reinforced model."""
    if settings.method.edits:
        return Composition(Reinforce(), None)
    return settings.composition


def make_plan(settings: Settings, prepared: Prepared) -> RunPlan:
    """Plan a run from its settings and rows."""
    composition = trained_composition(settings)
    shapes = ShapeModel(settings, composition)
    measured = _measuring_memory(settings, prepared, shapes)
    parameters, on_gpu = sum(p.numel() for p in shapes.model.parameters()), uses_gpu(settings)
    if not composition.parts:
        return RunPlan(settings, on_gpu, parameters, 0, None, measured)
    unlearn, data = settings.unlearn, settings.dataset
    pairs = Pairs(prepared.rows.training, data.dataset_seed)
    steps = StepPlan(
        *(len(pairs), data.batch_size, unlearn.gradient_accumulation_steps, 1),
        *(unlearn.num_epochs, unlearn.max_steps),
    )
    batches = _micro_batches(settings, prepared, pairs)
    largest = max(batches, key=lambda batch: batch.tokens)
    mean = sum(batch.tokens for batch in batches) / len(batches)
    costs = _costs(composition, shapes, largest)
    kept = _reference(settings, composition, prepared, shapes, steps.steps * steps.rows_per_step)
    memory = _training_memory(settings, shapes, measured, costs, kept)
    total = sum((cost for cost, _ in costs), PassCost(0, 0, 0))
    passes = steps.micro_steps(steps.steps) * mean / max(1, largest.tokens)
    flops = int(total.flops * passes)
    if unlearn.gradient_checkpointing:
        flops += int(total.forward_flops * passes)
    return RunPlan(
        settings,
        on_gpu,
        parameters,
        sum(p.numel() for p in shapes.trained),
        steps,
        memory,
        {name: len(rows) for name, rows in pairs.parts.items()},
        flops,
        _disk(settings, measured.weights, _bytes_of(shapes.trained), memory.optimizer),
        largest,
    )


def _measuring_memory(settings: Settings, prepared: Prepared, shapes: ShapeModel) -> MemoryAxes:
    """What a run takes that only measures: a training adds to it."""
    largest = max(p.numel() for p in shapes.model.parameters())
    return MemoryAxes(
        weights=_weight_bytes(settings, shapes),
        evaluation=_evaluation(settings, prepared, shapes),
        mapped=_bytes_of(shapes.mapped),
        comparison=0 if uses_gpu(settings) else FLOAT * largest,
    )


def _training_memory(
    settings: Settings,
    shapes: ShapeModel,
    measured: MemoryAxes,
    costs: Sequence[tuple[PassCost, int]],
    kept: tuple[int, int],
) -> MemoryAxes:
    """The memory of a training.

    Args:
        settings: of the run.
        shapes: its model.
        measured: what it takes without the training.
        costs: cost and logits of each pass of the largest micro-batch.
        kept: reference model and caches.
    """
    unlearn, trained, weights = settings.unlearn, shapes.trained, measured.weights
    on_gpu, gradients = uses_gpu(settings), _bytes_of(trained)
    reference, caches = kept
    flat = settings.flatness is not None and getattr(settings.flatness, "rho", 0) > 0
    splits = flat or unlearn.combiner != "sum"
    return replace(
        measured,
        weights=weights + (gradients if unlearn.flatness == "WA" else 0),
        gradients=gradients,
        gradient_sets=2 * splits + 2 * trained_composition(settings).adds_gradient,
        optimizer=_optimizer_bytes(settings, shapes),
        reference=reference + (weights if settings.method.edits else 0),
        caches=caches,
        passes=tuple(PassMemory(cost.saved, logits, cost.on_heap) for cost, logits in costs),
        together=not splits,
        block=max(cost.block for cost, _ in costs) if unlearn.gradient_checkpointing else 0,
        embedding=0 if unlearn.use_lora else max(p.numel() * p.element_size() for p in trained),
        accumulates=unlearn.gradient_accumulation_steps > 1,
        merged=_merged_bytes(settings, shapes),
        small_updates=unlearn.use_lora and not on_gpu,
        updating=0 if on_gpu else _temporaries(settings, shapes),
    )


def fitting(plan: RunPlan, prepared: Prepared) -> list[tuple[Trick, RunPlan]]:
    """Every trick that a run can take, with the plan of the run that takes it."""
    found, known = [], [plan]
    for trick in TRICKS:
        changed = _with(plan.settings, trick)
        if changed is None:
            continue
        same = next((old for old in known if old.settings == changed), None)
        if same is None:
            same = make_plan(changed, prepared)
            known.append(same)
        found.append((trick, replace(same, memory=same.memory.sharded(trick.processes))))
    return found


def _with(settings: Settings, trick: Trick) -> Settings | None:
    """The settings with a trick; None where it changes nothing, or the method cannot take it."""
    keys = trick.keys.get("unlearn", {})
    lora = bool(keys.get("use_lora"))
    if lora and (settings.unlearn.mask_path or _is_about_weights(settings)):
        return None
    if settings.unlearn.use_lora and ("optimizer" in keys or trick.processes > 1):
        return None
    unlearn = replace(settings.unlearn, **keys)
    changed = replace(settings, unlearn=unlearn, lora=replace(settings.lora, **trick.keys.get("lora", {})))
    if "optimizer" in keys:
        from ...optim import OPTIMIZERS

        changed = replace(changed, optimizer=OPTIMIZERS[str(keys["optimizer"])]())
    same = (changed.unlearn, changed.lora) == (settings.unlearn, settings.lora)
    if same and trick.processes == 1:
        return None
    refused = changed.is_quantized and (changed.needs_double_backward or changed.overall.random_init)
    return None if refused else changed


def _is_about_weights(settings: Settings) -> bool:
    taking_part = [*settings.components.values(), settings.flatness]
    return settings.method.edits or any(getattr(part, "on_weights", False) for part in taking_part)


def _bytes_of(tensors: Sequence[Tensor]) -> int:
    return sum(p.numel() * p.element_size() for p in tensors)


def _weight_bytes(settings: Settings, shapes: ShapeModel) -> int:
    total = _bytes_of([*shapes.model.parameters(), *shapes.model.buffers()])
    if settings.is_quantized:
        width = next(p.element_size() for p in shapes.model.parameters() if not p.requires_grad)
        total -= int(sum(weight.numel() for weight in shapes.linear) * (width - NF4_BYTES))
    return total


def _merged_bytes(settings: Settings, shapes: ShapeModel) -> int:
    """Weights of mapped files that merging the adapters writes to."""
    if settings.is_quantized:
        return 0
    mapped = {id(weight) for weight in shapes.mapped}
    return _bytes_of([weight for weight in shapes.adapted if id(weight) in mapped])


def _optimizer_bytes(settings: Settings, shapes: ShapeModel) -> int:
    """State of the optimizer; transformers keeps embeddings in 32 bits beside 8-bit state."""
    kind, trained = settings.optimizer, shapes.trained
    if isinstance(kind, Sophia) or not kind.package:
        return 2 * _bytes_of(trained)
    numbers = sum(p.numel() for p in trained if _keeps_32_bits(p, shapes))
    return int(AdamW.state_bytes * numbers + kind.state_bytes * (sum(p.numel() for p in trained) - numbers))


def _keeps_32_bits(weight: Tensor, shapes: ShapeModel) -> bool:
    """Has a weight 32-bit state beside 8-bit state of others?"""
    return weight.numel() < SMALL_FOR_8_BITS or id(weight) in shapes.embeddings


def _temporaries(settings: Settings, shapes: ShapeModel) -> int:
    """What the optimizer computes with for a moment on a CPU, at its height."""
    if isinstance(settings.optimizer, Sophia) or not settings.optimizer.package:
        return 0
    copies = [
        (CPU_TEMPORARIES if _keeps_32_bits(p, shapes) else CPU_TEMPORARIES_8_BITS) * p.numel()
        for p in shapes.trained
    ]
    return FLOAT * max(copies)


def _micro_batches(settings: Settings, prepared: Prepared, pairs: Pairs) -> list[MicroBatch]:
    """Sizes of the micro-batches of the first epoch, as the training will cut them."""
    data = settings.dataset
    group = data.batch_size * settings.unlearn.gradient_accumulation_steps if data.group_by_length else 0
    sampler = EpochSampler(pairs, settings.overall.seed, group)
    sampler.set_epoch(0)
    addresses, collate, found = list(sampler), Collator(0), []
    for start in range(0, min(len(addresses), SAMPLED_BATCHES * data.batch_size), data.batch_size):
        batch = collate([pairs[address] for address in addresses[start : start + data.batch_size]])
        found.append(
            MicroBatch(
                {
                    name: Pass(len(part["input_ids"]), part["input_ids"].shape[1])
                    for name, part in batch.items()
                },
                {name: row_lengths([part]) for name, part in batch.items()},
                {name: int(count_labels(part["labels"]).sum()) for name, part in batch.items()},
            )
        )
    return found


def _costs(composition: Composition, shapes: ShapeModel, batch: MicroBatch) -> list[tuple[PassCost, int]]:
    """Cost and logits of every pass with gradient of a micro-batch."""
    found = []
    joint: set[str] = set()
    for _, _, objective in composition.active:
        ends_early = "hidden" in objective.needs
        depth = objective.layer + 1 if ends_early else None
        for name in _parts_in_loss(objective):
            if name not in batch.parts:
                continue
            if objective.scores_answers and shapes.packs:
                joint.add(name)
                continue
            size = batch.parts[name]
            places = batch.labelled[name] if objective.scores_answers else size.tokens
            logits = 0 if ends_early else _logit_bytes(places, shapes.vocabulary)
            found.append((shapes.cost(replace(size, depth=depth)), logits))
    if joint:
        lines = _joint_lines([length for name in sorted(joint) for length in batch.lengths[name]], shapes)
        logits = sum(_logit_bytes(batch.labelled[name], shapes.vocabulary) for name in joint)
        found.append((shapes.cost(lines), logits))
    return found or [(PassCost(0, 0, 0), 0)]


def _joint_lines(lengths: Sequence[int], shapes: ShapeModel) -> Pass:
    """The pass of rows of these lengths, several on a line where that saves something."""
    lines = choose_lines(lengths, shapes.config.get_text_config().hidden_size)
    return Pass(len(lines), line_width(lengths, lines), packed=len(lines) < len(lengths))


def _logit_bytes(tokens: int, vocabulary: int) -> int:
    """Of one tensor of the logits of these tokens, as far as it exists at one time."""
    logits = tokens * vocabulary
    return FLOAT * (CHUNK_LOGITS if logits > WHOLE_LOGITS else logits)


def _parts_in_loss(objective: Objective) -> list[str]:
    """The parts whose activations wait for one backward pass: paraphrases are taken one by one after it."""
    return sorted(objective.parts - ({"paraphrases"} if objective.adds_gradient else set()))


def _reference(
    settings: Settings, composition: Composition, prepared: Prepared, shapes: ShapeModel, visited: int
) -> tuple[int, int]:
    """Bytes of the reference model, and of what is kept of its outputs for the rows that are visited."""
    needs, budget = composition.needs, int(settings.overall.reference_cache_gb * 1e9)
    model = caches = 0
    lora = settings.unlearn.use_lora
    for _, _, objective in composition.active:
        for name in _parts_in_loss(objective):
            rows = prepared.rows.training.get(name, [])
            share = min(1.0, visited / max(1, len(rows)))
            attended, labelled = (share * count for count in _tokens_of(rows))
            if "reference_logits" in objective.needs:
                caches += min(budget, int(labelled * shapes.vocabulary * FLOAT))
            if "reference_hidden" in objective.needs:
                hidden = shapes.config.get_text_config().hidden_size
                caches += min(budget, int(attended * hidden * FLOAT))
    if "reference_logits" in needs and not lora:
        model = _bytes_of(list(shapes.model.parameters()))
    elif needs & {"reference_hidden", "activation_norm"} and not lora:
        model = _bytes_of(shapes.trained)
    return model, caches


def _tokens_of(rows: Sequence[Any]) -> tuple[int, int]:
    """Attended and labelled tokens of rows."""
    flat: list[Encoded] = [row for one in rows for row in (one if isinstance(one, list) else [one])]
    return sum(len(row.input_ids) for row in flat), sum(
        sum(label != IGNORE for label in row.labels) for row in flat
    )


def _evaluation(settings: Settings, prepared: Prepared, shapes: ShapeModel) -> int:
    """Height of scoring and of generation, without the weights. An upper limit: texts may end early."""
    evaluation, tokenizer = settings.evaluate, prepared.tokenizer
    try:
        needs = [need for key in select(settings.metric_names) for need in METRICS[key].needs]
    except UserError:
        needs = []
    config = shapes.config.get_text_config()
    room = min(
        score_tokens(settings, "cuda" if uses_gpu(settings) else "cpu"), MAX_LOGITS // config.vocab_size
    )
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = 2 * shapes.depth * heads * head_size * (4 if shapes.precision == "fp32" else 2)
    found = 0
    for need in dict.fromkeys(needs):
        rows = prepared.rows.evaluation.get(need.rows)
        if not rows or not hasattr(need, "field"):
            continue
        texts = [text for row in rows for text in texts_of(row, need.field)]
        lengths = [len(tokenizer(text)["input_ids"]) for text in texts[:SAMPLED_BATCHES]]
        longest = max(lengths, default=0)
        if isinstance(need, Generations | Samples):
            most = getattr(need, "most", 0) or evaluation.max_new_tokens
            found = max(found, min(len(texts) * (longest + most), evaluation.batch_tokens) * kept)
        else:
            scored = min(room, len(texts) * longest)
            found = max(found, LOGITS_IN_FORWARD * scored * config.vocab_size * FLOAT)
    return found


def _disk(settings: Settings, weights: int, trained: int, optimizer: int) -> dict[str, int]:
    """Bytes on the disk: what stays, and what an interrupted run goes on from."""
    unlearn = settings.unlearn
    kept = trained if unlearn.save_adapter == "only" else weights
    kept += trained if unlearn.save_adapter == "beside" else 0
    found = {"model": kept}
    if unlearn.save_steps:
        # The next one is written before the last one goes.
        found["step checkpoints"] = 2 * ((trained if unlearn.use_lora else weights) + optimizer)
    if settings.evaluate.every:
        found["evaluated weights"] = (4 if unlearn.save_steps else 2) * trained
    return found if settings.overall.logger != "none" else {}
