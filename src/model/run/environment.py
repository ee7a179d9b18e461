"""What a reader needs to trust and to repeat a run."""

import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from ...core.versions import versions
from ..load.loading import resolve_device, resolve_precision
from ..settings.run_settings import Settings

PACKAGES = ("torch", "transformers", "accelerate", "peft", "numpy", "scipy", "rouge_score")


def environment(
    settings: Settings, processes: int, start: float, train_seconds: float, training: dict | None = None
) -> dict:
    """Command, versions, hardware, times (seconds), peak memory (MB) and the record of the training as plain
    values. `start` is a time.time()."""
    data, unlearn = settings.dataset, settings.unlearn
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    device = resolve_device(settings.overall.device).partition(":")[0]
    return {
        "command": sys.argv,
        "started": datetime.fromtimestamp(start, UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - start, 1),
        "train_seconds": round(train_seconds, 1),
        "python": platform.python_version(),
        "packages": versions(PACKAGES),
        "git_commit": git_commit(),
        "platform": platform.platform(),
        "gpus": gpus,
        "device": device,
        "precision": resolve_precision(settings.overall.precision, device),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "seed": settings.overall.seed,
        "effective_batch_size": data.batch_size * unlearn.gradient_accumulation_steps * processes,
        "training": training or None,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "peak_gpu_memory_mb": torch.cuda.max_memory_allocated() // 2**20 if gpus else None,
    }


def weight_count(model) -> int:
    """Number of weights of a model, tied ones once, of all processes that share them."""
    if getattr(model, "is_loaded_in_4bit", False):
        return model.num_parameters()  # two weights are stored in a byte
    # ZeRO-3 leaves empty tensors, which remember their size.
    return sum(getattr(weight, "ds_numel", weight.numel()) for weight in model.parameters())


def git_commit() -> str | None:
    """The commit this code is at, with `+` when files differ from it; None outside a repository."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout

    try:
        return git("rev-parse", "--short", "HEAD").strip() + (
            "+" if git("status", "--porcelain", "-uno").strip() else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None
