"""Mask files: {parameter name: bool tensor} with a JSON sidecar, read without ever running anything.

Read too: 0/1 integer tensors, expanded and sparse ones, our packed form (one bit per weight), and the
integer-keyed form of wanda masks, whose keys count the linear layers of the decoder blocks.
"""

import hashlib
import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ...core.files import UserError, atomic, json_text, read_json
from ...core.json_fields import COUNT, OBJECT, PROBABILITY, STRING, check_fields, check_value
from ..blocks import blocks

VERSION = 1
PACKED = "packed mask"
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
TOLERANCE = 0.005
"""How far a mask's density may lie from the ratio that its file name states."""


@dataclass(frozen=True)
class Sidecar:
    """How a mask was made; `<file>.json` beside it."""

    score: str
    ratio: float
    scope: str
    mu: float | None
    seed: int
    selected: int
    weights: int
    model: str
    """Fingerprint of the model that was scored."""
    data: str
    """Fingerprint of the rows that were scored."""
    others: str
    """What weights that were no candidates are: frozen or dense."""
    density: Mapping[str, float] = field(default_factory=dict)
    """Share of True of each tensor."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """Row counts, time, memory, library versions."""
    version: int = VERSION


def write_mask(path: Path, masks: Mapping[str, Tensor], sidecar: Sidecar, packed: bool = False) -> None:
    """Write a mask and its sidecar; neither is ever there half. The sidecar takes its place before the mask
    and after an earlier mask has gone: whenever the process is killed, no mask is there with another's
    sidecar or, which would hide the model it was made for, with none."""
    content = _pack(masks) if packed else dict(masks)
    with atomic(path) as temporary:
        _save(content, temporary)
        with atomic(sidecar_path(path)) as beside:
            beside.write_text(json_text({**asdict(sidecar), "content": content_of(masks)}), encoding="utf-8")
            path.unlink(missing_ok=True)


def _save(content: dict, path: Path) -> None:
    """torch.save, with the error of a full disk as it was: torch hides it behind one of its own."""
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def content_of(masks: Mapping[str, Tensor]) -> str:
    """A hash of every name, shape and bit."""
    digest = hashlib.blake2b(digest_size=8)
    for name, mask in sorted(masks.items()):
        digest.update(f"{name}{tuple(mask.shape)}".encode())
        digest.update(mask.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sidecar_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def read_sidecar(path: Path) -> dict:
    """The sidecar of a mask; empty when there is none (a mask of other code)."""
    beside = sidecar_path(path)
    if not beside.is_file():
        return {}
    found = read_json(beside)
    check_value(str(beside), found, OBJECT)
    check_fields(str(beside), found, {}, {"ratio": PROBABILITY, "content": STRING, "model": STRING})
    return found


def read_mask(path: Path, model: nn.Module, missing: str = "error") -> dict[str, Tensor]:
    """The mask of every trainable parameter of `model`, on the CPU. `missing` says what a parameter is that
    the file leaves out: an `error`, `dense` or `frozen`. UserError for a file that is not a mask file or is
    of another model."""
    content = _load(path)
    if all(isinstance(key, int) for key in content):
        content, missing = _named(path, content, model), "dense" if missing == "error" else missing
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    tied = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in wanted}
    strangers = [
        name for name, mask in content.items() if name not in wanted and tied.get(name) != mask.shape
    ]
    absent = [name for name in wanted if name not in content]
    if strangers:
        raise UserError(
            f"{path}: {len(strangers)} of its {len(content)} tensors are not in this model (first"
            f" {strangers[0]!r}); it is a mask of another architecture"
        )
    if absent and missing == "error":
        raise UserError(
            f"{path}: has no mask for {len(absent)} of {len(wanted)} parameters (first {absent[0]!r}); it is"
            " of another model, or set unlearn.mask_missing to dense or frozen"
        )
    return {
        name: (
            _checked(path, name, content[name], p)
            if name in content
            else torch.full(p.shape, missing == "dense")
        )
        for name, p in wanted.items()
    }


def density(masks: Mapping[str, Tensor]) -> float:
    """Share of weights that are updated."""
    return sum(int(mask.sum()) for mask in masks.values()) / max(
        1, sum(mask.numel() for mask in masks.values())
    )


def stated_ratio(path: Path) -> float | None:
    """The ratio in a file name `<task>_<ratio>.pt`, if there is one."""
    try:
        ratio = float(path.stem.rpartition("_")[2])
    except ValueError:
        return None
    return ratio if 0 <= ratio <= 1 else None


def load_tensors(path: Path) -> dict:
    """The bool tensors of a mask file by their keys, unpacked; UserError, and nothing is run, when it is no
    mask."""
    return {name: _as_bool(path, name, mask) for name, mask in _load(path).items()}


def _load(path: Path) -> dict:
    """The tensors of a mask file by their keys, unpacked, as they were saved."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        # A sparse tensor is not looked at otherwise, and indices outside its shape would be followed.
        with torch.sparse.check_sparse_tensor_invariants():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can break the reader in any way
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            raise UserError(
                f"{path}: holds more than tensors, so it is not opened; a mask is a dict from names to bool"
                " tensors"
            ) from None
        raise UserError(
            f"{path}: cannot be read as a mask ({' '.join(str(error).split())[:100]}); it is cut off or no"
            " mask file"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("format"), str):
        return _unpack(path, content)
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(mask, Tensor) for mask in content.values())
    ):
        raise UserError(f"{path}: is not a mask file; expected a dict from parameter names to bool tensors")
    odd = [name for name, mask in content.items() if mask.is_nested or mask.device.type != "cpu"]
    if odd:
        raise UserError(f"{path}: {odd[0]} is nested or has no values; a mask is a plain bool tensor")
    return content


def _as_bool(path: Path, name: str | int, mask: Tensor) -> Tensor:
    """The mask with a value of its own for every weight."""
    dense = mask.to_dense().contiguous() if mask.dtype in INTEGERS else None
    if dense is None or not ((dense == 0) | (dense == 1)).all():
        raise UserError(f"{path}: {name} is {mask.dtype}; a mask is bool, or integers 0 and 1")
    return dense.bool()


def _checked(path: Path, name: str, mask: Tensor, parameter: Tensor) -> Tensor:
    """The mask of one parameter, of exactly its shape, which comes first: an expanded tensor of any shape is
    a small file."""
    if mask.shape != parameter.shape:
        hint = (
            " (a mask made after a token was added to the vocabulary?)"
            if mask.shape[1:] == parameter.shape[1:]
            else ""
        )
        raise UserError(
            f"{path}: {name} has shape {tuple(mask.shape)}, the model's has {tuple(parameter.shape)}{hint}"
        )
    return _as_bool(path, name, mask)


def _named(path: Path, content: Mapping[int, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Integer keys to names: they count the linear layers of the decoder blocks in order."""
    linear = [
        id(module.weight)
        for block in blocks(model)
        for module in block.modules()
        if isinstance(module, nn.Linear)
    ]
    names = {id(p): name for name, p in model.named_parameters()}
    if sorted(content) != list(range(len(linear))):
        raise UserError(
            f"{path}: has {len(content)} numbered layers, the model has {len(linear)} linear ones in its"
            " blocks"
        )
    return {names[linear[number]]: mask for number, mask in content.items()}


def _pack(masks: Mapping[str, Tensor]) -> dict:
    """Eight weights to a byte."""
    import numpy as np

    return {
        "format": PACKED,
        "shapes": {name: list(mask.shape) for name, mask in masks.items()},
        "bits": {
            name: torch.from_numpy(np.packbits(mask.reshape(-1).numpy())) for name, mask in masks.items()
        },
    }


def _unpack(path: Path, content: dict) -> dict[str, Tensor]:
    import numpy as np

    shapes, bits = content.get("shapes"), content.get("bits")
    if (
        content["format"] != PACKED
        or not isinstance(shapes, dict)
        or not isinstance(bits, dict)
        or not shapes
    ):
        raise UserError(
            f"{path}: is not a mask file; a packed one has the format {PACKED!r}, and in shapes and bits"
            " what each parameter has"
        )
    found = {}
    for name, shape in shapes.items():
        if not isinstance(shape, list | tuple) or not all(map(COUNT.holds, shape)):
            raise UserError(f"{path}: a packed mask whose shape of {name} is not a list of sizes")
        packed, count = bits.get(name), math.prod(shape)
        if not isinstance(packed, Tensor) or not _is_plain(packed) or packed.dtype != torch.uint8:
            raise UserError(f"{path}: a packed mask whose bits of {name} are not a tensor of bytes")
        if packed.shape != (-(-count // 8),):
            raise UserError(
                f"{path}: a packed mask whose parts do not fit: {name} has {packed.numel()} bytes for"
                f" {count} weights"
            )
        found[name] = torch.from_numpy(np.unpackbits(packed.numpy(), count=count).astype(bool)).reshape(shape)
    return found


def _is_plain(tensor: Tensor) -> bool:
    """Has it values in memory, one beside the other?"""
    return tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_nested
