"""Mask files that are nearly right: bool tensors of the model's shapes, or one clear line."""

import io

import pytest
import torch
from fuzz import JUNK, fuzz, json_files, value_or_refusal
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unlearnkit.unlearn.mask.mask_file import (
    PACKED,
    Sidecar,
    density,
    load_tensors,
    read_mask,
    read_sidecar,
    sidecar_path,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

MODEL = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2, bias=False))
MASKS = {name: torch.arange(p.numel()).reshape(p.shape) % 2 == 0 for name, p in MODEL.named_parameters()}
SIDECAR = Sidecar("magnitude", 0.5, "global", None, 0, 1, 2, "m", "d", "frozen")


def variants(mask):
    """Tensors that stand for the same mask, and others that are none."""
    outside = torch.full((mask.dim(), 1), 99)
    return [
        lambda: mask.int(),
        lambda: mask.to(torch.uint16),
        lambda: mask.float(),
        lambda: mask.to(torch.bfloat16),
        lambda: mask.to(torch.complex64),
        lambda: mask.int() * 2,
        lambda: -mask.long(),
        lambda: mask.to_sparse(),
        lambda: mask.int().to_sparse(),
        lambda: mask[:, None].to_sparse_csr() if mask.dim() == 1 else mask.to_sparse_csr(),
        lambda: torch.sparse_coo_tensor(outside, torch.tensor([True]), mask.shape, check_invariants=False),
        lambda: torch.ones(1, dtype=torch.bool).expand(mask.shape),
        lambda: torch.ones(1, dtype=torch.uint8).expand(10**6, 10**6),
        lambda: torch.quantize_per_tensor(mask.float(), 0.1, 0, torch.quint8),
        lambda: mask.to("meta"),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda: mask.T,
        lambda: mask[:0],
        lambda: mask[0],
        lambda: nn.Parameter(mask.float()),
        lambda: torch.tensor(True),
    ]


@st.composite
def contents(draw):
    """What a mask file holds, plain or packed, with one to three parts changed."""
    if draw(st.booleans()):
        content: dict = dict(MASKS)
        for _ in range(draw(st.integers(1, 3))):
            name = draw(st.sampled_from(list(MASKS)))
            change = draw(st.sampled_from(["variant", "variant", "variant", "junk", "drop", "rename", "add"]))
            if change == "variant":
                content[name] = draw(st.sampled_from(variants(MASKS[name])))()
            elif change == "junk":
                content[name] = draw(JUNK)
            elif change == "drop":
                content.pop(name, None)
            else:
                key = draw(st.sampled_from([0, 1, -1, True, None, "format", "\ud83d", ("a", 1), 1.5]))
                content[key] = content.pop(name, draw(JUNK)) if change == "rename" else MASKS[name]
        return content
    content = {"format": PACKED, "shapes": {}, "bits": {}}
    for name, mask in MASKS.items():
        content["shapes"][name] = list(mask.shape)
        content["bits"][name] = torch.zeros(-(-mask.numel() // 8), dtype=torch.uint8)
    place = draw(st.sampled_from(["format", "shapes", "bits", "shape", "bit", "size"]))
    name = draw(st.sampled_from(list(MASKS)))
    if place in content:
        content[place] = draw(JUNK)
    elif place == "shape":
        content["shapes"][name] = draw(JUNK)
    elif place == "size":
        content["shapes"][name][0] = draw(JUNK)
    else:
        content["bits"][name] = draw(JUNK | st.sampled_from(variants(MASKS[name])).map(lambda make: make()))
    return content


@fuzz
@given(contents(), st.sampled_from(["error", "dense", "frozen"]), st.data())
def test_masks(tmp_path, content, missing, data):
    file = io.BytesIO()
    torch.save(content, file)
    saved = file.getvalue()
    if data.draw(st.integers(0, 3)) == 0:
        at = data.draw(st.integers(0, len(saved) - 1))
        saved = data.draw(st.sampled_from([saved[:at], saved[:at] + b"\xff" + saved[at + 1 :], saved[at:]]))
    path = tmp_path / "fictional_0.5.pt"
    path.write_bytes(saved)
    masks = value_or_refusal(lambda: read_mask(path, MODEL, missing), path)
    for name, p in MODEL.named_parameters() if masks is not None else ():
        assert masks[name].shape == p.shape
        assert masks[name].dtype == torch.bool
        assert masks[name].is_contiguous()
    if masks is not None:
        assert 0 <= density(masks) <= 1


@fuzz
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path, content):
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    assert value_or_refusal(lambda: load_tensors(path), path) is None


@fuzz
@given(json_files({**SIDECAR.__dict__, "content": "x"}))
def test_sidecars(tmp_path, content):
    path = tmp_path / "fictional_0.5.pt"
    sidecar_path(path).write_bytes(content)
    found = value_or_refusal(lambda: read_sidecar(path), sidecar_path(path))
    assert found is None or found.get("ratio", 0.5) <= 1 + 1e-3
