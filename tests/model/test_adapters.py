"""A folder with a LoRA adapter stands for its base with the adapter merged."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from scripts import run_script
from tiny import random_llama, save

from unlearnkit.core.files import UserError, read_json
from unlearnkit.exec.config.reader import ConfigError, StrictConfig, resolve_settings
from unlearnkit.model.load.loading import initial_tokenizer, load_initial, load_model, load_tokenizer


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
        ConfigError, match="the base model of the adapter .*adapter: there is no folder .*gone"
    ):
        resolve_settings(StrictConfig(), [], {"overall.model_name": str(folder)}, {})


def point_at(folder, base) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(base)}))


def test_a_base_that_moved_is_named_by_a_key(adapter, tmp_path):
    folder, merged = adapter
    point_at(folder, "owner/on-the-hub")
    flags = {"overall.model_name": str(folder), "overall.base_model": str(tmp_path / "base")}
    flags["dataset.forget_dataset_name"] = "Fictional_forget10"
    overall = resolve_settings(StrictConfig(), [], flags, {}).overall
    for name, value in load_initial(overall).state_dict().items():
        torch.testing.assert_close(value, merged[name])
    assert initial_tokenizer(overall)
    with pytest.raises(ConfigError, match="overall.base_model: no model is named that is an adapter"):
        resolve_settings(StrictConfig(), [], {"overall.base_model": str(tmp_path / "base")}, {})


@pytest.mark.run
@pytest.mark.parametrize("kept, place", [("beside", "adapter"), ("only", "checkpoints")])
def test_what_lora_trained_is_kept_as_an_adapter(kept, place, tiny_model_folder, in_small_world, tmp_path):
    common = ["--logger.json.root", tmp_path, "--overall.cache_dir", tmp_path / "cache"]
    common += "--evaluate.metrics forget/prob --evaluate.rows 4 --overall.quiet true".split()
    words = ["--overall.model_name", tiny_model_folder, "--unlearn.save_adapter", kept]
    words += "--unlearn.unlearn_method GA --unlearn.lr 1e-2 --unlearn.use_lora true".split()
    words += ["--unlearn.max_steps", 2]
    run = run_script("unlearn_model", *words, *common, "--logger.name", "run")
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "run" / place
    assert (folder / "adapter_config.json").is_file() and (folder / "tokenizer.json").is_file()
    assert (tmp_path / "run/checkpoints/config.json").is_file() == (kept == "beside")
    again = run_script("evaluate_model", "--overall.model_name", folder, *common, "--logger.name", "again")
    assert again.returncode == 0, again.stderr
    value = lambda name: read_json(tmp_path / name / "metrics.json")["forget/prob"]
    assert value("again") == pytest.approx(value("run"), rel=1e-5)


def test_an_adapter_is_kept_only_where_there_is_one(adapter):
    keep = {"unlearn.unlearn_method": "GA", "unlearn.save_adapter": "only"}
    with pytest.raises(ConfigError, match="set unlearn.use_lora true"):
        resolve_settings(StrictConfig(), [], keep, {})
    keep |= {"unlearn.use_lora": "true", "overall.model_name": str(adapter[0])}
    with pytest.raises(ConfigError, match="is an adapter itself"):
        resolve_settings(StrictConfig(), [], keep, {})
