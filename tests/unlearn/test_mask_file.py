"""Mask files: written whole, read without running anything, refused with one clear line."""

import json
import pickle

import pytest
import torch

from unlearnkit.core.files import UserError, read_json
from unlearnkit.unlearn.mask import Sidecar, WeightMask, read_mask, write_mask
from unlearnkit.unlearn.mask.mask_file import density, load_tensors, read_sidecar, stated_ratio

SIDECAR = Sidecar("magnitude", 0.5, "global", None, 0, 1, 2, "m", "d", "frozen")


@pytest.fixture
def masks(tiny_model):
    return {name: torch.rand(p.shape) < 0.5 for name, p in tiny_model.named_parameters()}


@pytest.mark.parametrize("packed", [False, True])
def test_round_trip(packed, masks, tiny_model, tmp_path):
    path = tmp_path / "fictional_0.5.pt"
    write_mask(path, masks, SIDECAR, packed)
    again = read_mask(path, tiny_model)
    assert again.keys() == masks.keys()
    assert all(torch.equal(again[name], masks[name]) for name in masks)
    assert read_json(tmp_path / "fictional_0.5.pt.json")["score"] == "magnitude"
    if not packed:
        assert all(mask.dtype == torch.bool for mask in torch.load(path, weights_only=True).values())


def test_a_packed_mask_is_an_eighth_of_the_size(tmp_path):
    masks = {"w": torch.rand(1000, 1000) < 0.3}
    for name, packed in (("plain", False), ("packed", True)):
        write_mask(tmp_path / name, masks, SIDECAR, packed)
    assert (tmp_path / "packed").stat().st_size < (tmp_path / "plain").stat().st_size / 7.5


def test_integers_0_and_1_are_a_mask(masks, tiny_model, tmp_path):
    torch.save({name: mask.to(torch.uint8) for name, mask in masks.items()}, tmp_path / "m.pt")
    assert torch.equal(read_mask(tmp_path / "m.pt", tiny_model)["lm_head.weight"], masks["lm_head.weight"])


def test_wandas_numbered_layers_are_the_linear_ones_in_order(masks, tiny_model, tmp_path):
    order = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{kind}_proj" for kind in ("gate", "up", "down")]
    names = [f"model.layers.{layer}.{kind}.weight" for layer in range(2) for kind in order]
    torch.save({number: masks[name] for number, name in enumerate(names)}, tmp_path / "m.pt")
    read = read_mask(tmp_path / "m.pt", tiny_model)
    assert all(torch.equal(read[name], masks[name]) for name in names)
    assert read["lm_head.weight"].all()
    torch.save({number: masks[name] for number, name in enumerate(names[:-1])}, tmp_path / "short.pt")
    with pytest.raises(UserError, match="has 13 numbered layers, the model has 14"):
        read_mask(tmp_path / "short.pt", tiny_model)


def test_expanded_and_sparse_tensors_are_the_masks_they_stand_for(masks, tiny_model, tmp_path):
    name = "model.layers.0.mlp.up_proj.weight"
    rows = masks[name][:, :1]
    torch.save({n: m.to_sparse() for n, m in masks.items()} | {name: rows.expand(48, 32)}, tmp_path / "m.pt")
    read = read_mask(tmp_path / "m.pt", tiny_model)
    assert all(torch.equal(read[n], masks[n]) for n in masks if n != name)
    assert torch.equal(read[name], rows.repeat(1, 32))
    WeightMask(read, tiny_model)


def no_mask(kind, shape=(48, 32)):
    weights = torch.ones(shape)
    far = torch.tensor([[99], [99]])
    return {
        "quantised": lambda: torch.quantize_per_tensor(weights, 0.1, 0, torch.quint8),
        "by channel": lambda: torch.quantize_per_channel(
            weights, weights[:, 0], 0 * weights[:, 0], 0, torch.qint8
        ),
        "meta": lambda: weights.bool().to("meta"),
        "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "huge": lambda: torch.ones(1, dtype=torch.uint8).expand(10**6, 10**6),
        "outside": lambda: torch.sparse_coo_tensor(far, torch.tensor([True]), shape, check_invariants=False),
        "float8": lambda: weights.to(torch.float8_e4m3fn),
        "complex": lambda: weights.to(torch.complex64),
    }[kind]()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind, told",
    [
        ("quantised", "is torch.quint8; a mask is bool"),
        ("by channel", "is torch.qint8; a mask is bool"),
        ("meta", "is nested or has no values"),
        ("nested", "is nested or has no values"),
        ("huge", r"has shape \(1000000, 1000000\)"),
        ("outside", "size is inconsistent with indices"),
        ("float8", "is torch.float8_e4m3fn; a mask is bool"),
        ("complex", "is torch.complex64; a mask is bool"),
    ],
)
def test_tensors_that_cannot_be_masks_are_refused_by_name(kind, told, masks, tiny_model, tmp_path):
    name = "model.layers.0.mlp.up_proj.weight"
    torch.save(masks | {name: no_mask(kind)}, tmp_path / "m.pt")
    with pytest.raises(UserError, match=told) as refused:
        read_mask(tmp_path / "m.pt", tiny_model)
    assert "m.pt" in str(refused.value)


@pytest.mark.parametrize(
    "packed, told",
    [
        (
            {"shapes": {"w": [-1, -8]}, "bits": {"w": torch.zeros(1, dtype=torch.uint8)}},
            "not a list of sizes",
        ),
        ({"shapes": {"w": [8.0]}, "bits": {"w": torch.zeros(1, dtype=torch.uint8)}}, "not a list of sizes"),
        ({"shapes": {"w": [8]}, "bits": {"w": torch.zeros(1)}}, "not a tensor of bytes"),
        ({"shapes": {"w": [8]}, "bits": {}}, "not a tensor of bytes"),
        ({"shapes": [8], "bits": {}}, "is not a mask file"),
        ({}, "is not a mask file"),
    ],
)
def test_a_packed_mask_of_wrong_parts_is_refused(packed, told, tmp_path):
    torch.save({"format": "packed mask", **packed}, tmp_path / "m.pt")
    with pytest.raises(UserError, match=f"m.pt: .*{told}"):
        load_tensors(tmp_path / "m.pt")


@pytest.mark.parametrize(
    "sidecar, told",
    [
        ("[1]", "must be an object, got"),
        ('{"ratio": "0.5"}', "'ratio' must be a finite number from 0 to 1, got '0.5'"),
        ('{"ratio": NaN}', "'ratio' must be a finite number from 0 to 1, got nan"),
        ('{"content": 5}', "'content' must be a text, got 5"),
        ('{"model": "\\udfff"}', r"line 1, column 12: \\udfff is half of a character"),
    ],
)
def test_a_sidecar_that_is_none_is_named(sidecar, told, tmp_path):
    (tmp_path / "m.pt.json").write_text(sidecar)
    with pytest.raises(UserError, match=f"m.pt.json.*{told}"):
        read_sidecar(tmp_path / "m.pt")


def test_a_packed_mask_with_too_few_bits_is_refused(tmp_path):
    torch.save(
        {"format": "packed mask", "shapes": {"w": [100]}, "bits": {"w": torch.zeros(1, dtype=torch.uint8)}},
        tmp_path / "m.pt",
    )
    with pytest.raises(UserError, match="1 bytes for 100 weights"):
        load_tensors(tmp_path / "m.pt")


class Trap:
    def __reduce__(self):
        return (open, ("trapped", "w"))


def test_a_pickled_object_is_refused_and_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Trap()}, "m.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("m.pt", "plain.pt"):
        with pytest.raises(UserError, match="m.pt|plain.pt"):
            load_tensors(tmp_path / name)
    assert not (tmp_path / "trapped").exists()


def broken(masks, kind):
    name = next(iter(masks))
    return {
        "missing": {k: v for k, v in masks.items() if k != name},
        "another model": {f"other.{k}": v for k, v in masks.items()},
        "vocabulary": masks | {"model.embed_tokens.weight": torch.ones(3, 32, dtype=torch.bool)},
        "shape": masks | {"model.norm.weight": torch.ones(1, 32, dtype=torch.bool)},
        "floats": masks | {name: masks[name].float()},
        "counts": masks | {name: masks[name].int() * 2},
        "a list": [1, 2],
        "empty": {},
        "words": {"a": "b"},
    }[kind]


@pytest.mark.parametrize(
    "kind, said",
    [
        ("missing", "has no mask for 1 of"),
        ("another model", "not in this model"),
        ("vocabulary", "token was added"),
        ("shape", "has shape \\(1, 32\\), the model's has \\(32,\\)"),
        ("floats", "is torch.float32; a mask is bool"),
        ("counts", "a mask is bool, or integers 0 and 1"),
        ("a list", "is not a mask file"),
        ("empty", "is not a mask file"),
        ("words", "is not a mask file"),
    ],
)
def test_what_is_no_mask_of_this_model_is_refused(kind, said, masks, tiny_model, tmp_path):
    torch.save(broken(masks, kind), tmp_path / "m.pt")
    with pytest.raises(UserError, match=said):
        read_mask(tmp_path / "m.pt", tiny_model)


def test_a_file_that_is_cut_off_or_absent(masks, tiny_model, tmp_path):
    torch.save(masks, tmp_path / "m.pt")
    content = (tmp_path / "m.pt").read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 30):
        (tmp_path / "cut.pt").write_bytes(content[:length])
        with pytest.raises(UserError, match="cut off or no mask file|holds more than tensors"):
            read_mask(tmp_path / "cut.pt", tiny_model)
    with pytest.raises(UserError, match="no such file"):
        read_mask(tmp_path / "none.pt", tiny_model)


def test_what_a_file_leaves_out_is_what_was_asked_for(masks, tiny_model, tmp_path):
    torch.save({k: v for k, v in masks.items() if k != "lm_head.weight"}, tmp_path / "m.pt")
    assert read_mask(tmp_path / "m.pt", tiny_model, "dense")["lm_head.weight"].all()
    assert not read_mask(tmp_path / "m.pt", tiny_model, "frozen")["lm_head.weight"].any()


def test_a_write_that_fails_leaves_nothing(masks, tmp_path):
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        write_mask(tmp_path / "m.pt", {"w": lambda: 0}, SIDECAR)
    assert list(tmp_path.iterdir()) == []


def test_names_and_densities():
    from pathlib import Path

    found = [stated_ratio(Path(name)) for name in ("mask/tofu_0.8.pt", "with_none.pt", "a_7.pt")]
    assert found == [0.8, None, None]
    assert density({"a": torch.tensor([True, False]), "b": torch.tensor([True, True])}) == 0.75
    assert json.loads(json.dumps(SIDECAR.__dict__))["version"] == 1
