"""Every shipped config is strictly valid and says what its file name says."""

import json

import pytest
from conftest import REPO

from unlearnkit.exec.config.reader import StrictConfig, resolve_settings

CONFIGS = sorted((REPO / "configs").rglob("*.json"))
NAMED_FOR_A_METHOD = [
    path
    for path in CONFIGS
    if path.stem not in ("target", "retain", "figures", "figures_thinking", "sampling")
    and path.parent.name not in ("judge", "fictional_tuned")
]


@pytest.fixture
def own_files(tmp_path):
    """A folder with the files of a book, by name."""
    for name in ("book.txt", "hp_qa.jsonl", "hp.jsonl", "wikitext.jsonl"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(REPO)))
def test_a_config_parses(path, monkeypatch, own_files):
    """Those of models that a make target fetches or another config makes are read with another in their
    place, where that is not there; those of texts that users have themselves with a folder of such files."""
    monkeypatch.chdir(REPO)
    config = json.loads(path.read_text())
    model = config.get("overall", {}).get("model_name", "")
    absent = model.startswith("files/") and not (REPO / model).is_dir()
    flags = {"overall.model_name": "files/models/fictional/target"} if absent else {}
    if config.get("dataset", {}).get("forget_dataset_name", "").startswith(("Book_", "HP")):
        flags["dataset.data_dir"] = str(own_files)
    assert resolve_settings(StrictConfig(), [str(path)], flags, {}).unlearn.task_name


@pytest.mark.parametrize("path", NAMED_FOR_A_METHOD, ids=lambda p: str(p.relative_to(REPO)))
def test_the_file_name_is_the_method(path):
    """With `_strict` behind it for GAO with a high tau and `_window` for that scope, `_sophia` for another
    optimizer, `_pcgrad` for a combiner, `+wagle` for a mask, `_traces` where the forget rows' reasoning is
    trained on, `_zerothink` for that decoding, `_stop` for a stop rule.
    """
    config = json.loads(path.read_text())
    section = config["unlearn"]
    optimizer = f"_{section['optimizer'].lower()}" if "optimizer" in section else ""
    combiner = f"_{section['combiner']}" if "combiner" in section else ""
    gao = section.get("GAO", {})
    agreement = ("_strict" if gao.get("tau", 0) > 0.5 else "") + (
        "_window" if gao.get("scope") == "window" else ""
    )
    mask = "+wagle" if "mask_path" in section else ""
    traces = "_traces" if config.get("dataset", {}).get("forget_reasoning") == "both" else ""
    stop = "_stop" if "stop" in section else ""
    decoding = "_zerothink" if config.get("evaluate", {}).get("decoding") == "zero" else ""
    assert (
        section["unlearn_method"].lower() + agreement + optimizer + combiner + mask + traces + decoding + stop
        == path.stem
    )


@pytest.mark.parametrize("path", [REPO / "configs/wmdp_fictional/rmu.json"], ids=lambda path: path.stem)
def test_a_config_that_leaves_out_a_suite_is_not_warned(path, monkeypatch, caplog):
    monkeypatch.chdir(REPO)
    settings = resolve_settings(StrictConfig(), [str(path)], {}, {})
    assert not settings.benchmark_tasks
    assert "without effect" not in caplog.text
