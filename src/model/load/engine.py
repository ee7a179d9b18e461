"""The engine that spreads a model over processes: the one of `overall.engine`, or the one that the launcher
asks for. A request that cannot be met is an error, never another engine."""

import os
from collections.abc import Mapping
from typing import Literal

from ...core.files import UserError
from ...core.zero import ZeroPlan, is_installed

Engine = Literal["ddp", "fsdp2", "zero2", "zero3"]

FSDP, FSDP_VERSION = "ACCELERATE_USE_FSDP", "FSDP_VERSION"
DEEPSPEED, STAGE = "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_ZERO_STAGE"
DEEPSPEED_FILE = "ACCELERATE_DEEPSPEED_CONFIG_FILE"
ZERO_OFFLOADS = "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE"
OFFLOAD, CHECKPOINTING = "FSDP_OFFLOAD_PARAMS", "FSDP_ACTIVATION_CHECKPOINTING"
REFUSED = {
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM, which this project does not support; use FSDP2"
    " (configs/accelerate/fsdp2.yaml)",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor or context parallelism, which this project does not support;"
    " use FSDP2 (configs/accelerate/fsdp2.yaml)",
}
"""Variable of `accelerate launch` -> what it asks for and why it is refused."""
OFFLOADED = ("none", "cpu")
"""Devices to which DeepSpeed may offload."""


def processes(environ: Mapping[str, str] = os.environ) -> int:
    """Processes that the launcher started."""
    return int(environ.get("WORLD_SIZE", "1"))


def engine_errors(wanted: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Why the engine cannot be had.

    Args:
        wanted: overall.engine.
        environ: variables in which launchers leave their requests.
    """
    asks_fsdp, asks_zero = _is_true(environ, FSDP), wants_zero(wanted, environ)
    found = [f"the launcher asks for {what}" for name, what in REFUSED.items() if _is_true(environ, name)]
    if asks_fsdp and wanted == "ddp":
        found.append("overall.engine is ddp and the launcher asks for FSDP; leave one of them out")
    if asks_fsdp and environ.get(FSDP_VERSION, "1") != "2":
        found.append(
            "the launcher asks for FSDP1, which torch has replaced; set fsdp_version: 2 in its config"
        )
    if asks_fsdp and _is_true(environ, OFFLOAD):
        found.append(
            "the launcher asks for FSDP's CPU offload (fsdp_offload_params), which is untested here and so"
            " refused; set it to false, and use more processes or unlearn.use_lora"
        )
    if asks_fsdp and _is_true(environ, CHECKPOINTING):
        found.append(
            "the launcher asks for fsdp_activation_checkpointing; set unlearn.gradient_checkpointing true"
            " instead"
        )
    if (asks_fsdp or wanted == "fsdp2") and processes(environ) == 1:
        found.append(
            "FSDP2 needs several processes: start with torchrun --nproc_per_node N or accelerate launch"
            " --num_processes N"
        )
    if asks_zero or _asks_deepspeed(environ):
        found += _zero_errors(wanted, environ)
    return [f"overall.engine: {reason}" for reason in found]


def _zero_errors(wanted: str, environ: Mapping[str, str]) -> list[str]:
    """Why DeepSpeed cannot be had as it is asked for."""
    found, stage = [], environ.get(STAGE, "")
    if environ.get(DEEPSPEED_FILE, "none").lower() != "none":
        found.append(
            "the launcher names a deepspeed_config_file; write zero_stage and the offload devices into its"
            " own config instead, as configs/accelerate/zero3.yaml does"
        )
    elif _asks_deepspeed(environ) and stage not in ("2", "3"):
        found.append(f"the launcher asks for ZeRO stage {stage or 'nothing'}; set zero_stage to 2 or 3")
    elif _asks_deepspeed(environ) and wanted not in ("auto", f"zero{stage}"):
        found.append(
            f"overall.engine is {wanted} and the launcher asks for DeepSpeed's stage {stage}; leave one of"
            " them out"
        )
    if wrong := [device for name in ZERO_OFFLOADS if (device := environ.get(name, "none")) not in OFFLOADED]:
        found.append(f"the launcher asks for DeepSpeed's offload to {wrong[0]}; set it to cpu or none")
    if processes(environ) == 1:
        found.append(
            "DeepSpeed needs several processes: start with torchrun --nproc_per_node N or accelerate launch"
            " --num_processes N"
        )
    if not is_installed():
        found.append("DeepSpeed is not installed; pip install 'unlearnkit[deepspeed]'")
    return found


def resolve_engine(wanted: str, environ: Mapping[str, str] = os.environ) -> Engine:
    """The engine of this run; UserError where it cannot be had."""
    if reasons := engine_errors(wanted, environ):
        raise UserError(reasons[0])
    if plan := zero_plan(wanted, environ):
        return "zero2" if plan.stage == 2 else "zero3"
    return "fsdp2" if wants_fsdp2(wanted, environ) else "ddp"


def wants_zero(wanted: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Is DeepSpeed asked for, by the key or by the launcher?"""
    return zero_plan(wanted, environ) is not None


def zero_plan(wanted: str, environ: Mapping[str, str] = os.environ) -> ZeroPlan | None:
    """What DeepSpeed is asked for; None where it is not."""
    stage = wanted.removeprefix("zero") if wanted.startswith("zero") else environ.get(STAGE, "")
    if stage not in ("2", "3"):
        return None
    optimizer, weights = (environ.get(name, "none") == "cpu" for name in ZERO_OFFLOADS)
    return ZeroPlan(int(stage), optimizer, weights and stage == "3")


def wants_fsdp2(wanted: str, environ: Mapping[str, str]) -> bool:
    """Is FSDP2 asked for, by the key or by the launcher?"""
    return wanted == "fsdp2" or _is_true(environ, FSDP)


def precision_error(precision: str, environ: Mapping[str, str] = os.environ) -> str:
    """Why the launcher's mixed precision is not that of the run; "" where it is or none is asked for."""
    asked = environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked == "no" or (asked == "bf16" and precision in ("auto", "bf16")):
        return ""
    return (
        f"overall.precision {precision}: the launcher asks for mixed_precision {asked}; set it to no in its"
        " config, and choose overall.precision (bf16 is bf16 autocast over fp32 weights)"
    )


def take_over() -> None:
    """Keep Accelerate from sharding a model again that is sharded when it is loaded."""
    # Accelerate would do it on GPUs alone, and on a CPU fall back to DDP without a word.
    os.environ.pop(FSDP, None)


def take_over_deepspeed() -> None:
    """Keep Accelerate from calling DeepSpeed: the trainer does. Called before the process group is made; the
    other variables of the launcher stay, and say what it asked for."""
    os.environ.pop(DEEPSPEED, None)


def _asks_deepspeed(environ: Mapping[str, str]) -> bool:
    return _is_true(environ, DEEPSPEED) or bool(environ.get(STAGE))


def _is_true(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "false").lower() in ("true", "1")
