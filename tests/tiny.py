"""A tiny model and a small fictional world for tests."""

import shutil
from pathlib import Path

import torch
from scripts import REPO


def random_llama(tokenizer, **changes):
    """A random two-layer Llama over the tokenizer's vocabulary, the same at every call."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0, "bos_token_id": None}
    known = {"vocab_size": len(tokenizer), "num_key_value_heads": 2, "max_position_embeddings": 512}
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**shape | ids | known | changes)).eval()


def save(model, tokenizer, folder: Path) -> Path:
    """The folder, which now holds the model and its tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_small_world(folder: Path, facts: int = 200) -> None:
    """Write the fictional world with its last facts only. forget10 is a tenth of them, all with paraphrases
    and alternates."""
    shutil.copytree(REPO / "files/data/fictional", folder, dirs_exist_ok=True)
    lines = (folder / "full.jsonl").read_text().splitlines(keepends=True)
    (folder / "full.jsonl").write_text("".join(lines[-facts:]))
