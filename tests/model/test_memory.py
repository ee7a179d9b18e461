"""A model remembers what rows its figures are about, and figures of other settings are told apart."""

import pytest
from conftest import FICTIONAL
from scripts import run_script
from tiny import random_llama, save

from unlearnkit.core.files import read_json, write_jsonl
from unlearnkit.core.provenance import PROVENANCE

pytestmark = pytest.mark.run


@pytest.fixture
def own(tokenizer, tmp_path):
    """A run on rows of one's own: (its folder, the words that every script here is given)."""
    model = save(random_llama(tokenizer), tokenizer, tmp_path / "model")
    (model / PROVENANCE).unlink()
    (tmp_path / "rows").mkdir()
    rows = [{"question": f"Who taught {n}?", "answer": f"Orlo {n} did."} for n in range(6)]
    write_jsonl(tmp_path / "rows/forget.jsonl", rows[:3])
    write_jsonl(tmp_path / "rows/retain.jsonl", rows[3:])
    common = [
        "--logger.json.root",
        tmp_path,
        "--overall.cache_dir",
        tmp_path / "c",
        "--overall.quiet",
        "true",
    ]
    words = ["--overall.model_name", model, "--dataset.data_dir", tmp_path / "rows", "--logger.name", "run"]
    words += "--dataset.forget_dataset_name Folder_forget --dataset.retain_dataset_name Folder_retain".split()
    words += "--unlearn.unlearn_method GA+FT --unlearn.max_steps 1 --evaluate.metrics forget/prob".split()
    words += ["--dataset.template", "qa", "--evaluate.max_new_tokens", "9"]
    done = run_script("unlearn_model", *words, *common)
    assert done.returncode == 0, done.stderr
    return tmp_path / "run", common


@pytest.mark.slow
def test_a_run_s_model_is_measured_on_its_rows_as_the_run_did(own):
    folder, common = own
    done = run_script(
        "evaluate_model", "--overall.model_name", folder / "checkpoints", *common, "--logger.name", "again"
    )
    assert done.returncode == 0, done.stderr
    config = read_json(folder.parent / "again/config.json")
    assert config["dataset"]["forget_dataset_name"] == "Folder_forget"
    assert (config["dataset"]["template"], config["evaluate"]["max_new_tokens"]) == ("qa", 9)
    assert not config["evaluate"]["before"]
    assert read_json(folder.parent / "again/metrics.json") == pytest.approx(
        read_json(folder / "metrics.json")
    )
    other = [*common, "--logger.name", "other", "--dataset.forget_dataset_name", "Fictional_forget01"]
    other += ["--evaluate.rows", "3"]
    done = run_script("evaluate_model", "--overall.model_name", folder / "checkpoints", *other)
    assert done.returncode == 0, done.stderr
    config = read_json(folder.parent / "other/config.json")
    assert config["dataset"]["data_dir"] is None and config["dataset"]["template"] == "qa"


@pytest.mark.parametrize("script", ["evaluate_model", "finetune_model"])
def test_a_model_without_memory_is_asked_for_its_rows(script, tiny_model_folder):
    (tiny_model_folder / PROVENANCE).unlink()
    done = run_script(script, "--overall.model_name", tiny_model_folder)
    assert done.returncode == 2
    assert "which rows go with" in done.stderr


@pytest.mark.parametrize("text", ["[1]", "{", '{"dataset": 3}', '{"dataset": {"max_length": "x"}}'])
def test_a_broken_memory_is_named(text, tiny_model_folder):
    (tiny_model_folder / PROVENANCE).write_text(text)
    done = run_script("evaluate_model", "--overall.model_name", tiny_model_folder)
    assert done.returncode == 2
    assert PROVENANCE in done.stderr and "Traceback" not in done.stderr


def test_figures_of_other_settings_are_told_apart(own):
    folder, common = own
    words = ["--overall.model_name", folder / "checkpoints", *common]
    for name, metric, tokens in (("short", "rougeL", 5), ("long", "rougeL", 9), ("prob", "prob", 5)):
        more = ["--evaluate.metrics", f"forget/{metric}", "--evaluate.max_new_tokens", str(tokens)]
        done = run_script("evaluate_model", *words, "--logger.name", name, *more)
        assert done.returncode == 0, done.stderr
    compare = lambda *names: run_script("compare_runs", *(folder.parent / name for name in names)).stdout
    assert "evaluate.max_new_tokens: 9 in long, 5 in short" in compare("long", "short")
    assert "alike" not in compare("run", "run")
    assert "alike" not in compare("run", "prob"), "no budget has a part in a probability"


def test_a_retain_column_of_other_rows_says_so(tiny_model_folder, in_small_world, tmp_path):
    words = ["--overall.model_name", tiny_model_folder, "--logger.json.root", tmp_path]
    words += [
        "--overall.cache_dir",
        tmp_path / "c",
        "--evaluate.retain_results",
        FICTIONAL / "retain/results",
    ]
    words += "--evaluate.metrics forget/prob --evaluate.rows 4".split()
    done = run_script("evaluate_model", *words)
    assert done.returncode == 0, done.stderr
    assert "retain was not measured alike: evaluate.rows: 4 in this run" in done.stdout


def test_a_model_that_does_not_know_the_forget_rows_is_warned_of(tiny_model_folder, in_small_world, tmp_path):
    words = ["--overall.model_name", tiny_model_folder, "--logger.json.root", tmp_path]
    words += [
        "--overall.cache_dir",
        tmp_path / "c",
        "--overall.quiet",
        "true",
        "--unlearn.unlearn_method",
        "GA",
    ]
    words += "--evaluate.metrics forget/prob --evaluate.rows 4 --unlearn.max_steps 1".split()
    done = run_script("unlearn_model", *words)
    assert done.returncode == 0, done.stderr
    assert "does not know the forget rows" in done.stderr
