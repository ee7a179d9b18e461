"""The change of every weight tensor, beside numpy's own decomposition."""

from types import SimpleNamespace

import numpy
import pytest
import torch
from safetensors.torch import save_file

from unlearnkit.core.files import write_json
from unlearnkit.model.run.weight_change import spectral_norm, weight_change


def settings(model, **more):
    overall = {"model_name": str(model), "random_init": False} | more
    return SimpleNamespace(overall=SimpleNamespace(**overall))


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    return {"layers.0.up.weight": draw(12, 7), "layers.0.norm.weight": draw(7), "head.weight": draw(9, 7)}


def save(folder, tensors, name="model.safetensors"):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name)
    return folder


def test_norms_and_stable_ranks_are_those_of_numpy(weights, tmp_path):
    moved = {name: tensor + 0.1 * tensor.flip(0) for name, tensor in weights.items()}
    moved["head.weight"] = weights["head.weight"]
    save(tmp_path / "run/checkpoints", moved)
    found = weight_change(settings(save(tmp_path / "base", weights)), tmp_path / "run")["tensors"]
    for name, tensor in weights.items():
        change = (moved[name] - tensor).numpy()
        assert found[name]["norm"] == pytest.approx(numpy.linalg.norm(tensor.numpy()), rel=1e-5)
        assert found[name]["change"] == pytest.approx(numpy.linalg.norm(change), rel=1e-4, abs=1e-7)
    change = (moved["layers.0.up.weight"] - weights["layers.0.up.weight"]).numpy()
    values = numpy.linalg.svd(change, compute_uv=False)
    rank = (values**2).sum() / values[0] ** 2
    assert found["layers.0.up.weight"]["stable_rank"] == pytest.approx(rank, rel=1e-3)
    assert found["layers.0.norm.weight"]["stable_rank"] is None
    assert found["head.weight"] == {"norm": found["head.weight"]["norm"], "change": 0.0, "stable_rank": None}


def test_an_adapter_counts_as_the_change_it_stands_for(weights, tmp_path):
    a, b = torch.ones(2, 7), torch.arange(24.0).reshape(12, 2)
    stem = "base_model.model.layers.0.up"
    folder = save(
        tmp_path / "run/checkpoints",
        {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b},
        "adapter_model.safetensors",
    )
    write_json(folder / "adapter_config.json", {"r": 2, "lora_alpha": 6})
    found = weight_change(settings(save(tmp_path / "base", weights)), tmp_path / "run")["tensors"]
    assert found.keys() == {"layers.0.up.weight"}
    assert found["layers.0.up.weight"]["change"] == pytest.approx((3 * b @ a).norm().item())
    assert found["layers.0.up.weight"]["stable_rank"] == pytest.approx(1, rel=1e-4), "a product of rank 1"


def test_the_spectral_norm_of_a_wide_and_a_tall_matrix():
    for shape in ((3, 200), (200, 3), (40, 40)):
        matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
        assert spectral_norm(matrix) == pytest.approx(torch.linalg.svdvals(matrix)[0].item(), rel=1e-2)


def test_where_nothing_can_be_compared_there_is_a_reason(weights, tmp_path, monkeypatch):
    base, run = save(tmp_path / "base", weights), tmp_path / "run"
    reason = lambda given: weight_change(given, run)["reason"]
    assert "kept no model" in reason(settings(base))
    save(run / "checkpoints", weights)
    assert "drawn at random" in reason(settings(base, random_init=True))
    assert "not safetensors" in reason(settings(run))
    assert "hub's cache" in reason(settings("owner/model-that-is-not-there"))
    monkeypatch.setattr("unlearnkit.model.run.weight_change.MOST_BYTES", 100)
    assert "only models up to" in reason(settings(base))
