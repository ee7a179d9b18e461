"""A folder with a broken file gives one line that names the file and what was expected."""

import json
import shutil

import peft
import pytest
from scripts import run_script
from tiny import random_llama, save

from unlearnkit.core.files import UserError
from unlearnkit.model.load.folder_faults import broken_file
from unlearnkit.model.load.loading import load_model, load_tokenizer


@pytest.fixture(scope="module")
def whole(tokenizer, tmp_path_factory):
    return save(random_llama(tokenizer), tokenizer, tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def load(folder):
    load_tokenizer(str(folder))
    load_model(str(folder))


FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", "line 1, column 1: Expecting value"),
        (b'{\n  "a": ', "line 2, column 8: Expecting value"),
        (b'{"a": "\\ud83d"}', r"line 1, column 8: \\ud83d is half of a character"),
        (b"[1]", r"must be an object, got \[1\]"),
        (b"null", "must be an object, got null"),
        (b"NaN", "must be an object, got nan"),
        (b"\xff{}", "not UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_object_is_named_with_its_place(file, content, expected, folder):
    (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=f"{file}.*{expected}") as refused:
        load(folder)
    assert str(refused.value).startswith(str(folder))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "file, change, expected",
    [
        ("config.json", {"model_type": [1]}, "unhashable type"),
        ("config.json", {"model_type": "nobody's"}, "nobody's"),
        ("config.json", {"dtype": "x"}, "module 'torch' has no attribute 'x'"),
        ("config.json", {"hidden_size": "32"}, "'hidden_size' expected int, got str"),
        ("config.json", {"hidden_act": "x"}, "KeyError 'x'"),
        ("config.json", {"vocab_size": -1}, "negative dimension"),
        ("config.json", {"vocab_size": 10**400}, "Overflow"),
        ("config.json", {"num_hidden_layers": 10**9}, "'num_hidden_layers' must be a whole number from 1"),
        ("config.json", {"eos_token_id": 10**400}, "'eos_token_id' must be a token id or a list of them"),
        ("generation_config.json", {"eos_token_id": "x"}, "'eos_token_id' must be a token id"),
        ("generation_config.json", {"pad_token_id": True}, "'pad_token_id' must be a token id, got true"),
        ("tokenizer_config.json", {"tokenizer_class": [1]}, "'tokenizer_class' must be a text"),
        ("tokenizer_config.json", {"eos_token": 5}, "'eos_token' must be a token, got 5"),
        ("tokenizer_config.json", {"model_max_length": "x"}, "'model_max_length' must be a finite number"),
        ("tokenizer_config.json", {"extra_special_tokens": 1}, "extra_special_tokens must be a list"),
        ("tokenizer.json", {"model": None}, "'model' must be an object, got null"),
        (
            "tokenizer.json",
            {"model": {"type": "BPE", "vocab": {}, "merges": 3}},
            "tokenizer.json: data did not match",
        ),
        ("tokenizer.json", {"added_tokens": {}}, "added_tokens"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(file, change, expected, folder):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=expected) as refused:
        load(folder)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_vocabulary_of_another_size_than_the_weights_is_told_with_both(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 7}))
    with pytest.raises(UserError, match=r"embed_tokens.weight \(\[\d+, 32\] in place of \[7, 32\]\)"):
        load(folder)


def test_weight_files_that_are_cut_or_missing(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for part in (b"", content[: len(content) // 2], b"x" * 100):
        path.write_bytes(part)
        with pytest.raises(UserError, match="model.safetensors: Error while deserializing header"):
            load(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": 5}}')
    with pytest.raises(UserError, match="index.json: 'weight_map' must be an object, weight -> file"):
        load(folder)


def test_a_folder_that_lacks_files_is_told_which(folder, tmp_path):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="the folder has no tokenizer.json"):
        load_tokenizer(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the folder has no config.json and no tokenizer.json"):
        load_model(str(tmp_path / "empty"))


def test_a_key_that_stands_twice_and_unknown_ones_are_no_fault(folder):
    """transformers takes them."""
    path = folder / "config.json"
    path.write_text(path.read_text().replace("{", '{"vocab_size": 3, "their_own": [null],', 1))
    load(folder)
    assert broken_file(folder) is None


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"base_model_name_or_path": 5}, "adapter_config.json: base_model_name_or_path names no model"),
        ({"peft_type": "x"}, "cannot be loaded onto"),
        ({"peft_type": []}, "cannot be loaded onto"),
        ({"r": "x"}, "cannot be loaded onto"),
        ({"r": 10**400}, "cannot be loaded onto"),
        ({"r": -1}, "cannot be loaded onto"),
        ({"lora_alpha": []}, "cannot be loaded onto"),
        ({"target_modules": 5}, "cannot be loaded onto"),
        ({"target_modules": ["nothing"]}, "cannot be loaded onto"),
    ],
)
def test_an_adapter_with_a_wrong_value_is_named(change, expected, whole, tmp_path):
    plan = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(load_model(str(whole)), plan).save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    right = json.loads(path.read_text()) | {"base_model_name_or_path": str(whole)}
    path.write_text(json.dumps(right | change))
    with pytest.raises(UserError, match=expected) as refused:
        load_model(str(tmp_path / "adapter"))
    assert str(tmp_path / "adapter") in str(refused.value)


@pytest.mark.run
def test_a_run_ends_with_one_line_and_leaves_nothing(folder, tmp_path):
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    words = ["--overall.model_name", folder, "--logger.json.root", tmp_path / "out", "--logger.name", "run"]
    ended = run_script("evaluate_model", *words)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"error: {folder / 'tokenizer.json'}, line 1, column 18")
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()
