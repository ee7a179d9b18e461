"""Where there is no network the hub's client is not left to retry for a minute."""

import os
import sys
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, snapshot_download
from scripts import free_port

from unlearnkit.core.embedding import Embedder
from unlearnkit.core.files import UserError
from unlearnkit.core.hub_access import offline_reason
from unlearnkit.dataset.hub_tables import HubTable, load_table
from unlearnkit.exec.prefetch import fetch_model
from unlearnkit.model.load.fetch import fetch_mask
from unlearnkit.model.load.loading import load_tokenizer


@pytest.fixture
def unreachable(monkeypatch, tmp_path):
    """A hub at an address where nobody listens, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("time.sleep", _no_retry)
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=_cached))
    offline_reason.cache_clear()
    yield tmp_path
    offline_reason.cache_clear()


def _no_retry(seconds: float) -> None:
    raise AssertionError(f"the client waits {seconds} s before it tries again")


def _cached(name: str, device: str):
    """As sentence-transformers, which takes long to import, reads a model."""
    snapshot_download(name)


@pytest.mark.parametrize(
    "load",
    [
        lambda folder: load_tokenizer("owner/model"),
        lambda folder: load_table(None, HubTable("forget10.json", "owner/data", "forget10")),
        lambda folder: Embedder("owner/model").model,
        lambda folder: fetch_model("owner/model"),
        lambda folder: fetch_mask("hf:owner/name", "tofu_0.8.pt", folder / "a.pt", notify=lambda line: None),
    ],
    ids=["model", "data", "embedder", "prefetch", "mask"],
)
def test_what_is_not_there_is_one_line_at_once(load, unreachable):
    with pytest.raises(UserError, match=r"127\.0\.0\.1 cannot be reached \(Connection refused\)") as error:
        load(unreachable)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert os.environ["HF_HUB_OFFLINE"] == "1" and constants.is_offline_mode()


def test_a_hub_that_answers_or_lies_behind_a_proxy_is_asked(unreachable, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    assert offline_reason() == "" and not constants.is_offline_mode()
    offline_reason.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert offline_reason() == "HF_HUB_OFFLINE is set"


def test_a_folder_is_loaded_without_a_look_at_the_network(monkeypatch, tiny_model_folder, unreachable):
    load_tokenizer(str(tiny_model_folder))
    assert offline_reason.cache_info().currsize == 0
