"""A folder whose weights are not those of its model is refused."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from scripts import run_script
from tiny import random_llama, save

from core.files import UserError
from model.loading import load_model

NAME = "model.layers.1.mlp.up_proj.weight"


def change_weights(folder, change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def drop(tensors):
    del tensors[NAME]


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
        load_model(str(tiny_model_folder))
    assert all(words in str(refused.value) for words in told)
    assert "overall.partial_weights true" in str(refused.value)
    assert load_model(str(tiny_model_folder), partial=True)
    assert all(words in caplog.text for words in told)


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
