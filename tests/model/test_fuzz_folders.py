"""Model folders and caches that are nearly right: a model that can be used, or one clear line."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import peft
import pytest
import torch
from fuzz import fuzz, json_files, jsonl_files, value_or_refusal
from hypothesis import given
from tiny import random_llama, save

from unlearnkit.core.encoding import Template
from unlearnkit.core.files import fingerprint
from unlearnkit.dataset.traces import TRACES
from unlearnkit.model.evaluation import _kept
from unlearnkit.model.load.loading import load_model, load_tokenizer
from unlearnkit.model.reference import LogprobCache

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def whole(tokenizer, tmp_path_factory):
    """A model with an adapter beside it."""
    folder = save(random_llama(tokenizer), tokenizer, tmp_path_factory.mktemp("models") / "whole")
    plan = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(load_model(str(folder)), plan)
    adapted.peft_config["default"].base_model_name_or_path = str(folder)
    adapted.save_pretrained(folder / "adapter")
    return folder


def tree_of(file: str) -> dict:
    """A small stand-in for a file of the folder, which hypothesis can change before the test knows it."""
    return {
        "config.json": {
            **{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32"},
            **{"vocab_size": 1494, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
            **{"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512},
            **{"eos_token_id": 1, "pad_token_id": 0, "hidden_act": "silu", "rms_norm_eps": 1e-6},
            "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        },
        "generation_config.json": {
            **{"eos_token_id": [1, 2], "pad_token_id": 0, "temperature": 0.6, "top_p": 0.9},
            **{"do_sample": True, "transformers_version": "5.0.0", "use_cache": True},
        },
        "tokenizer_config.json": {
            **{"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1024},
            **{"eos_token": "<|end|>", "pad_token": {"content": "<|pad|>", "special": True}},
            **{"extra_special_tokens": ["<think>"], "clean_up_tokenization_spaces": False},
        },
        "adapter_config.json": {
            **{"base_model_name_or_path": "BASE", "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2},
            **{"lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["q_proj"], "bias": "none"},
            **{"fan_in_fan_out": False, "inference_mode": True, "rank_pattern": {}, "use_rslora": False},
        },
        "tokenizer.json": {
            **{"version": "1.0", "truncation": None, "padding": None, "normalizer": None},
            "added_tokens": [{"id": 0, "content": "<|end|>", "special": True} | PLAIN],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
            "model": {
                **{"type": "BPE", "vocab": {"<|end|>": 0, "a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]]},
                **{"dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False},
            },
        },
    }[file]


PLAIN = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


def changed(whole, tmp_path, file, content) -> Path:
    """The folder with the content in place of a file."""
    folder = tmp_path / "model"
    if not folder.exists():
        shutil.copytree(whole, folder)
    (folder / file).write_bytes(content.replace(b"BASE", str(whole).encode()))
    return folder


def use(model) -> None:
    """The weights are those of the folder, and a forward pass works."""
    ids = torch.tensor([[1, 5, 7]])
    assert torch.isfinite(model(input_ids=ids).logits).all() or not torch.isfinite(model.lm_head.weight).all()


@fuzz
@given(json_files(tree_of("config.json")))
def test_config(whole, tmp_path, content):
    folder = changed(whole, tmp_path, "config.json", content)
    model = value_or_refusal(lambda: load_model(str(folder)), folder)
    if model is not None:
        assert model.get_input_embeddings().weight.shape == (1494, 32)


@fuzz
@given(json_files(tree_of("generation_config.json")))
def test_generation_config(whole, tmp_path, content):
    folder = changed(whole, tmp_path, "generation_config.json", content)
    model = value_or_refusal(lambda: load_model(str(folder)), folder)
    if model is not None:
        use(model)


@fuzz
@given(json_files(tree_of("adapter_config.json")))
def test_adapter_config(whole, tmp_path, content):
    folder = changed(whole, tmp_path, "adapter/adapter_config.json", content) / "adapter"
    model = value_or_refusal(lambda: load_model(str(folder)), "adapter", "from the hub")
    if model is not None:
        use(model)


@fuzz
@given(json_files(tree_of("tokenizer_config.json")))
def test_tokenizer_config(whole, tmp_path, content):
    folder = changed(whole, tmp_path, "tokenizer_config.json", content)
    tokenizer = value_or_refusal(lambda: load_tokenizer(str(folder)), folder)
    if tokenizer is not None:
        assert encoded(tokenizer)


@fuzz
@given(json_files(tree_of("tokenizer.json")))
def test_tokenizer(whole, tmp_path, content):
    folder = changed(whole, tmp_path, "tokenizer.json", content)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    tokenizer = value_or_refusal(lambda: load_tokenizer(str(folder)), folder)
    if tokenizer is not None:
        value_or_refusal(lambda: encoded(tokenizer))


def encoded(tokenizer):
    return Template(tokenizer, "qa").encode({"id": "a", "question": "ab", "answer": "abba"})


RESULTS = {"metrics": {"forget/prob": 0.5}, "detail": {}, "samples": {"forget": [{"id": "a"}]}, "judge": {}}
KNOWN = {"0123456789abcdef": -1.5, "fedcba9876543210": -20.0}


@fuzz
@given(json_files({"checksum": fingerprint(RESULTS), "results": RESULTS}))
def test_caches_of_evaluations_never_stop_a_run(tmp_path, content):
    path = tmp_path / "evaluation.json"
    path.write_bytes(content)
    found = _kept(path)
    assert found is None or found.metrics == RESULTS["metrics"]


@fuzz
@given(json_files({"checksum": fingerprint(KNOWN), "logprobs": KNOWN}))
def test_caches_of_log_probabilities_never_stop_a_run(tmp_path, content):
    path = tmp_path / "reference.json"
    path.write_bytes(content)
    assert LogprobCache._read(SimpleNamespace(path=path)) in ({}, KNOWN)


HEADER = {"traces": TRACES.version, "model": "m", "data": "d", "template": "t", "settings": {"seed": 0}}
ROW = {"id": "a", "question": "Q", "answer": "A"}
LINE = {"id": "a#0", "row": "a", "segment": 0, "source": TRACES.source(ROW), "prompt": "Q", "trace": "Hm."}
LINE |= {"closed": True}


@fuzz
@given(jsonl_files([HEADER, LINE]))
def test_traces_that_are_continued(tmp_path, content):
    path = tmp_path / "traces.jsonl"
    path.write_bytes(content)
    lines = value_or_refusal(lambda: TRACES.begun(path, HEADER, [ROW]), path)
    assert all(line["row"] == "a" for line in lines or [])
