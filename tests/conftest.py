"""Shared by all tests: the repository's paths, the golden model, a tiny random model, a way to run a
script."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parents[1]
GOLDEN = REPO / "tests" / "golden"
FICTIONAL = REPO / "files" / "models" / "fictional"
SHARED_DATA = REPO.parent / "shared" / "data"

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden_batches() -> dict[str, dict[str, torch.Tensor]]:
    """The golden batches as parts: forget, retain, alternative, ..."""
    batches = json.loads((GOLDEN / "objectives/inputs/batches.json").read_text())["batches"]
    parts = {
        name: {key: torch.tensor(value) for key, value in part.items()} for name, part in batches.items()
    }
    return {name: {**part, "index": torch.arange(len(part["labels"]))} for name, part in parts.items()}


@pytest.fixture
def golden_models():
    """The golden model and its reference, freshly loaded in float32."""
    from transformers import AutoModelForCausalLM

    return tuple(
        AutoModelForCausalLM.from_pretrained(GOLDEN / "objectives" / name, dtype=torch.float32).eval()
        for name in ("model", "reference_model")
    )


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FICTIONAL / "blank")


@pytest.fixture
def tiny_model(tokenizer):
    """A random two-layer Llama over the fictional vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=0,
            bos_token_id=None,
        )
    ).eval()


@pytest.fixture
def tiny_model_folder(tiny_model, tokenizer, tmp_path) -> Path:
    folder = tmp_path / "tiny"
    tiny_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run_script(script: str, *words: str, cwd: Path = REPO, **environment: str) -> subprocess.CompletedProcess:
    """Run src/exec/<script>.py as a user would."""
    command = [sys.executable, str(REPO / "src" / "exec" / f"{script}.py"), *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env=os.environ | environment, timeout=600
    )
