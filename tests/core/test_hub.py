"""Where there is no network the hub's client is not left to retry for a minute."""

import os
import re
import sys
import threading
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, snapshot_download
from scripts import free_port

from unlearnkit.core.embedding import Embedder
from unlearnkit.core.files import UserError
from unlearnkit.core.hub_access import connection_problem, offline_reason, user_is_offline
from unlearnkit.dataset.hub_tables import HubTable, check_reachable, load_table
from unlearnkit.dataset.neutral_texts import load_neutral_texts
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
    for kept in (offline_reason, connection_problem):
        kept.cache_clear()
    yield tmp_path
    for kept in (offline_reason, connection_problem):
        kept.cache_clear()


class NoDatasets:
    """An importer that has no package datasets, and lets others find the rest."""

    def find_spec(self, name, path=None, target=None):
        if name == "datasets":
            raise AssertionError("datasets is imported")


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


def test_a_name_that_nobody_looks_up_is_given_up_in_time(unreachable, monkeypatch):
    answered, closed = threading.Event(), SimpleNamespace(close=lambda: None)
    monkeypatch.setattr("socket.create_connection", lambda *_: answered.wait() and closed)
    monkeypatch.setattr("unlearnkit.core.hub_access.CONNECT_TIMEOUT_S", 0.05)
    assert offline_reason() == "127.0.0.1 cannot be reached (no answer in 0.05 s)"
    answered.set()


def test_a_hub_without_network_is_reported_before_its_packages_are_imported(unreachable, monkeypatch):
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoDatasets(), *sys.meta_path])
    for name in (
        "MuseNews_forget",
        "KnowUnDo_privacy_unlearn",
        "Rwku_passage",
        "Tofu_forget10",
        "owner/x:train",
    ):
        with pytest.raises(UserError, match="its page is https://huggingface.co/datasets/"):
            check_reachable(name, None)


@pytest.mark.parametrize(
    "name, layout",
    [
        ("KnowUnDo_privacy_unlearn", "privacy/unlearn.json and privacy/retention.json (lists train and val"),
        ("Rwku_passage", "passage.json (text), forget_level1.json"),
        ("MuseNews_forget", "raw_forget.jsonl, raw_retain1.jsonl (text)"),
        ("Wmdp_bio_forget", "bio_forget.jsonl (text) and questions_bio.jsonl (question, choices, answer)"),
    ],
)
def test_the_message_has_the_whole_layout_of_a_folder(name, layout, unreachable):
    with pytest.raises(UserError, match=re.escape(f"set dataset.data_dir to a folder with {layout}")):
        check_reachable(name, None)


def test_a_neutral_text_of_the_hub_names_page_and_folder(unreachable, tmp_path):
    expected = (
        "evaluate.neutral_text: .* its page is .*Salesforce/wikitext .*data_dir to a folder with wikitext"
    )
    with pytest.raises(UserError, match=expected):
        load_neutral_texts("Wmdp_wikitext")
    (tmp_path / "wikitext.jsonl").write_text('{"text": "' + "A goose. " * 9 + '"}\n')
    assert load_neutral_texts("Wmdp_wikitext", tmp_path)[0]["id"] == "wikitext-0"


def test_what_github_has_does_not_wait_for_the_hub(unreachable, monkeypatch):
    assert offline_reason() and user_is_offline() == ""
    offline_reason.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert user_is_offline() == "HF_HUB_OFFLINE is set"
