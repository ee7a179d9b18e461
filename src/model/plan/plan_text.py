"""The plan of a run as text."""

from collections.abc import Iterator, Sequence

from .device_rate import DeviceRate
from .memory_axes import Trick
from .run_plan import RunPlan

GB = 1e9


def gigabytes(size: float) -> str:
    return f"{size / GB:.2f} GB" if size >= GB else f"{size / 1e6:.3g} MB"


def plan_text(plan: RunPlan, rate: DeviceRate | None) -> str:
    """What the run needs."""
    return "\n".join(_lines(plan, rate))


def _lines(plan: RunPlan, rate: DeviceRate | None) -> Iterator[str]:
    settings = plan.settings
    yield f"plan of {settings.method.name} on {settings.overall.model_name} (no weights were loaded)"
    share = f"{100 * plan.trained_share:.3g} %"
    yield f"  parameters         {plan.parameters:,}, trained {plan.trained:,} ({share})"
    if plan.steps:
        yield f"  rows               {', '.join(f'{name} {count:,}' for name, count in plan.rows.items())}"
        yield (
            f"  steps              {plan.steps.steps:,} of {plan.steps.rows_per_step} rows"
            f" ({plan.steps.micro_steps(plan.steps.steps):,} micro-batches)"
        )
    if plan.largest:
        parts = ", ".join(f"{name} {part.rows} x {part.width}" for name, part in plan.largest.parts.items())
        yield f"  largest batch      {parts} tokens"
    yield f"  peak memory        {gigabytes(plan.peak)} on the {'GPU' if plan.on_gpu else 'CPU'}, of which"
    for name, size in plan.memory.parts().items():
        if size:
            yield f"    {name:<33} {gigabytes(size):>10}"
    if plan.memory.mapped:
        yield (
            f"  mapped files       {gigabytes(plan.memory.mapped)} of weights beside the peak: pages that the"
            " system takes back where room is needed, and the run reads again"
        )
    if plan.flops:
        yield f"  computation        {plan.flops:.3g} floating-point operations"
    if plan.flops and plan.steps and rate:
        seconds = rate.seconds(plan.flops, plan.trained, plan.steps.steps)
        yield (
            f"  training time      about {duration(seconds)} on {rate.device} ({rate.flops / 1e9:.3g} GFLOP/s"
            " in one block of this model, measured now; rough, evaluation not counted)"
        )
    elif plan.flops:
        yield "  training time      unknown: one block of this model could not be tried on this device"
    for name, size in plan.disk.items():
        yield f"  disk               {name} {gigabytes(size)}"


def fit_text(plan: RunPlan, budget: int, variants: Sequence[tuple[Trick, RunPlan]]) -> str:
    """Which changes make the run fit into a budget of bytes."""
    lines = [f"in {gigabytes(budget)}:", _fit_line("as configured", plan, budget)]
    lines += [_fit_line(trick.name, changed, budget) for trick, changed in variants]
    keys = {
        "gradient checkpointing": "unlearn.gradient_checkpointing true",
        "8-bit AdamW": "unlearn.optimizer AdamW8bit",
        "LoRA": "unlearn.use_lora true",
        "NF4": "unlearn.use_lora true, unlearn.lora.quantize nf4, unlearn.save_adapter only",
    }
    lines += ["keys: " + "; ".join(f"{name} = {key}" for name, key in keys.items())]
    if any(one.memory.mapped for one in (plan, *(changed for _, changed in variants))):
        lines.append(
            "weights in mapped files are counted here: read from the disk in each pass they are slow"
        )
    if any(trick.processes > 1 for trick, _ in variants):
        lines.append("FSDP2: memory of each process; accelerate launch starts them")
    return "\n".join(lines)


def _fit_line(name: str, plan: RunPlan, budget: int) -> str:
    return f"  {'fits' if plan.needed <= budget else 'no':<5} {gigabytes(plan.needed):>10}  {name}"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
