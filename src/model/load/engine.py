"""The engine that spreads a model over processes: the one of `overall.engine`, or the one that the launcher
asks for. A request that cannot be met is an error, never another engine."""

import os
from collections.abc import Mapping
from typing import Literal

from ...core.files import UserError

Engine = Literal["ddp", "fsdp2"]

FSDP, FSDP_VERSION = "ACCELERATE_USE_FSDP", "FSDP_VERSION"
OFFLOAD, CHECKPOINTING = "FSDP_OFFLOAD_PARAMS", "FSDP_ACTIVATION_CHECKPOINTING"
REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed, which keeps gradients where masks, combiners and whole-step means"
    " cannot reach them; FSDP2 shards the same three (distributed_type: FSDP with fsdp_version: 2, see"
    " configs/accelerate/fsdp2.yaml)",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM, which this project does not support; use FSDP2"
    " (configs/accelerate/fsdp2.yaml)",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor or context parallelism, which this project does not support;"
    " use FSDP2 (configs/accelerate/fsdp2.yaml)",
}
"""Variable of `accelerate launch` -> what it asks for and why it is refused."""


def processes(environ: Mapping[str, str] = os.environ) -> int:
    """Processes that the launcher started."""
    return int(environ.get("WORLD_SIZE", "1"))


def engine_errors(wanted: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Why the engine cannot be had.

    Args:
        wanted: overall.engine.
        environ: variables in which launchers leave their requests.
    """
    asks_fsdp = _is_true(environ, FSDP)
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
    return [f"overall.engine: {reason}" for reason in found]


def resolve_engine(wanted: str, environ: Mapping[str, str] = os.environ) -> Engine:
    """The engine of this run; UserError where it cannot be had."""
    if reasons := engine_errors(wanted, environ):
        raise UserError(reasons[0])
    return "fsdp2" if wants_fsdp2(wanted, environ) else "ddp"


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


def _is_true(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "false").lower() in ("true", "1")
