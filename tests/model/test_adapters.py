"""A folder with a LoRA adapter stands for its base with the adapter merged."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import random_llama, save

from core.files import UserError
from exec.settings import Complaints, StrictConfig, settle_settings
from model.loading import load_model, load_tokenizer


@pytest.fixture
def adapter(tokenizer, tmp_path):
    """A folder with an adapter that changes what its base says, and the weights of both together."""
    base = save(random_llama(tokenizer), tokenizer, tmp_path / "base")
    plan = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(load_model(str(base)), plan)
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.normal_(generator=torch.Generator().manual_seed(1))
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", adapted.merge_and_unload().state_dict()


def test_an_adapter_folder_is_its_base_with_the_adapter_merged(adapter, tokenizer):
    folder, merged = adapter
    loaded = load_model(str(folder)).state_dict()
    assert loaded.keys() == merged.keys()
    for name, value in merged.items():
        torch.testing.assert_close(loaded[name], value)
    assert load_tokenizer(str(folder)).get_vocab() == tokenizer.get_vocab(), "the base's, where it has none"


def test_an_adapter_that_lacks_weights_is_refused(adapter):
    folder, _ = adapter
    weights = load_file(folder / "adapter_model.safetensors")
    dropped = sorted(weights)[0]
    save_file({k: v for k, v in weights.items() if k != dropped}, folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match="its adapter lacks .*lora_A"):
        load_model(str(folder))


def test_an_adapter_of_another_model_is_refused(adapter, tokenizer, tmp_path):
    folder, _ = adapter
    other = save(random_llama(tokenizer, hidden_size=16), tokenizer, tmp_path / "other")
    point_at(folder, other)
    with pytest.raises(UserError, match="cannot be loaded onto .*other"):
        load_model(str(folder))


def test_a_base_that_is_not_there_is_named_before_anything_is_loaded(adapter, tmp_path):
    folder, _ = adapter
    point_at(folder, tmp_path / "gone")
    with pytest.raises(
        Complaints, match="the base model of the adapter .*adapter: there is no folder .*gone"
    ):
        settle_settings(StrictConfig(), [], {"overall.model_name": str(folder)}, {})


def point_at(folder, base) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(base)}))
