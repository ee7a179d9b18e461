"""Shared by all tests: the repository's paths, the golden model, a tiny random model."""

import json
import os
from pathlib import Path

import pytest
import torch
from scripts import REPO, kept_state, once
from tiny import random_llama, save, write_small_world

GOLDEN = REPO / "tests" / "golden"
FICTIONAL = REPO / "files" / "models" / "fictional"
SHARED_DATA = REPO.parent / "shared" / "data"

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(items):
    """What two processes take half a minute to make comes first: at the end the other worker would only wait
    for it."""
    items.sort(key=lambda item: "in_two_processes" not in item.fixturenames)


@pytest.fixture(autouse=True)
def _own_state():
    """No test sees what another changed in the process."""
    with kept_state():
        torch.manual_seed(0)
        yield


@pytest.fixture
def reports(monkeypatch):
    """Runs in this process draw their report, as they do outside the tests."""
    from scripts import RUN_MODULE, load_libraries

    from unlearnkit.model.run.run_report import write_run_report

    load_libraries()
    monkeypatch.setattr(f"{RUN_MODULE}.write_run_report", write_run_report)


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
    return random_llama(tokenizer)


@pytest.fixture
def tiny_model_folder(tiny_model, tokenizer, tmp_path) -> Path:
    return save(tiny_model, tokenizer, tmp_path / "tiny")


@pytest.fixture(scope="session")
def small_world(tmp_path_factory) -> Path:
    """A `dataset.data_dir` with a fifth of the facts, which is read and tokenised in a fifth of the time."""
    return once(tmp_path_factory, "small-world", write_small_world)


@pytest.fixture
def in_small_world(small_world, monkeypatch):
    """Runs in this process that name no data set are about the small world."""
    monkeypatch.setattr("unlearnkit.dataset.fictional.DATA_DIR", small_world)
