"""How far a run moved every weight tensor: the norm of the change and its stable rank, from the weights on
disk, one tensor at a time."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.files import read_json
from ..load.adapters import is_adapter
from ..settings.run_settings import Settings

MOST_BYTES = 4e9
"""Weights of more bytes are not compared: reading them twice would take minutes."""
ITERATIONS, VECTORS = 20, 4
"""Of the power iteration that finds the largest singular value."""
SCALED = (".lora_A.weight", ".lora_B.weight")


def weight_change(settings: Settings, folder: Path) -> dict[str, Any]:
    """The change of every tensor between the initial model and the one of a run folder.

    Returns:
        `tensors`: name -> norm (Frobenius, of the initial tensor), change (of the difference), stable_rank
        (squared Frobenius norm of the difference over its squared spectral norm; None for vectors and where
        nothing changed). Or `reason`: why there is none.
    """
    initial, saved = initial_files(settings.overall), folder / "checkpoints"
    if isinstance(initial, str):
        return {"reason": initial}
    files = sorted(saved.glob("*.safetensors"))
    if not files:
        return {"reason": "the run kept no model"}
    size = sum(file.stat().st_size for file in initial)
    if size > MOST_BYTES:
        return {
            "reason": f"the weights have {size / 1e9:.0f} GB, and only models up to {MOST_BYTES / 1e9:.0f} GB"
            " are compared"
        }
    before, after = _tensors(initial), _tensors(files)
    if (saved / "adapter_config.json").is_file() and not (saved / "config.json").is_file():
        return {"tensors": dict(_adapter_changes(before, after, read_json(saved / "adapter_config.json")))}
    shared = [name for name in before if name in after]
    if not shared:
        return {"reason": "the weights of the initial model have other names than those of the run"}
    return {"tensors": {name: _change(before[name](), after[name]()) for name in shared}}


def initial_files(overall) -> list[Path] | str:
    """The weight files of a run's initial model, or why there are none to compare with."""
    if overall.random_init:
        return "the initial model was drawn at random and lies in no file"
    if is_adapter(overall.model_name):
        return "the initial model is an adapter folder, whose merged weights lie in no file"
    folder = Path(overall.model_name).expanduser()
    if not folder.is_dir():
        place = _cached_config(overall.model_name)
        if place is None:
            return "the initial model's files are not in the hub's cache"
        folder = place.parent
    files = sorted(folder.glob("*.safetensors"))
    return files or "the initial model's weights are not safetensors files"


def _cached_config(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found) if isinstance(found, str) else None


Readers = Mapping[str, Callable[[], Tensor]]
"""Name -> function that reads that tensor alone, in float32."""


def _tensors(files: list[Path]) -> Readers:
    from safetensors import safe_open

    def read(file: Path, name: str) -> Tensor:
        # Opened for each tensor: what has been read of an open file counts to the memory of the process.
        with safe_open(file, framework="pt") as opened:
            return opened.get_tensor(name).float()

    found: dict[str, Callable[[], Tensor]] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            found |= {name: partial(read, file, name) for name in opened.keys()}  # noqa: SIM118
    return found


def _adapter_changes(
    before: Readers, adapter: Readers, config: Any
) -> Iterator[tuple[str, dict[str, float | None]]]:
    """The changes that an unmerged LoRA adapter stands for: scale B A."""
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    for name in adapter:
        if not name.endswith(SCALED[0]):
            continue
        stem = name.removesuffix(SCALED[0])
        plain = f"{stem.removeprefix('base_model.model.')}.weight"
        if plain in before:
            base = before[plain]()
            yield plain, _sizes(base, scale * (adapter[stem + SCALED[1]]() @ adapter[name]()))


def _change(before: Tensor, after: Tensor) -> dict[str, float | None]:
    return _sizes(before, after - before)


def _sizes(before: Tensor, difference: Tensor) -> dict[str, float | None]:
    change = difference.norm().item()
    rank = None
    if difference.ndim >= 2 and min(difference.shape) > 1 and change > 0:
        rank = (change / spectral_norm(difference.reshape(-1, difference.shape[-1]))) ** 2
    return {"norm": before.norm().item(), "change": change, "stable_rank": rank}


def spectral_norm(matrix: Tensor) -> float:
    """The largest singular value, by subspace iteration: a whole decomposition of a large matrix would take
    minutes."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(matrix.shape[1], min(VECTORS, *matrix.shape), generator=generator)
    for _ in range(ITERATIONS):
        vectors = torch.linalg.qr(matrix.T @ (matrix @ vectors)).Q
    return torch.linalg.matrix_norm(matrix @ vectors, 2).item()
