"""Files that are not what a key takes: the message names the key, the cause and what was meant."""

import json
import shutil

import pytest
from conftest import FICTIONAL, REPO

from unlearnkit.exec.config.reader import ConfigError, StrictConfig, resolve_settings

MODEL, TOKENIZER, RESULTS = "overall.model_name", "overall.tokenizer_name", "evaluate.retain_results"


def complaint(*files, **flags) -> str:
    """The one complaint about these settings."""
    with pytest.raises(ConfigError) as error:
        resolve_settings(StrictConfig(), [str(file) for file in files], flags, {})
    lines = str(error.value).splitlines()
    assert len(lines) == 1, lines
    return lines[0].strip()


@pytest.fixture
def run_folder(tmp_path):
    """What a run leaves that trained a model."""
    folder = tmp_path / "run"
    (folder / "samples").mkdir(parents=True)
    for name in ("log.jsonl", "samples/forget.jsonl"):
        (folder / name).touch()
    for name in ("config.json", "metrics.json"):
        (folder / name).write_text("{}")
    shutil.copytree(FICTIONAL / "retain", folder / "checkpoints", ignore=shutil.ignore_patterns("results"))
    return folder


def test_a_run_folder_as_model_is_answered_with_its_checkpoints(run_folder):
    model = run_folder / "checkpoints"
    assert (
        complaint(**{MODEL: str(run_folder)})
        == f"{MODEL}: {run_folder} is a run folder; its model is {model}"
    )
    assert complaint(**{TOKENIZER: str(run_folder)}).endswith(f"is a run folder; its tokenizer is in {model}")
    assert resolve_settings(StrictConfig(), [], {MODEL: str(model), TOKENIZER: str(model)}, {})
    shutil.rmtree(model)
    assert complaint(**{MODEL: str(run_folder)}).endswith("is a run folder; its run has kept no model (yet)")


def test_a_folder_of_models_is_answered_with_them():
    told = complaint(**{MODEL: str(FICTIONAL)})
    assert f"did you mean {FICTIONAL / 'blank'} or {FICTIONAL / 'retain'} or" in told


def test_a_model_without_tokenizer_is_told_apart(run_folder):
    model = run_folder / "checkpoints"
    for path in model.glob("tokenizer*"):
        path.unlink()
    assert complaint(**{MODEL: str(model)}).startswith(f"{MODEL}: {model} has no tokenizer")
    assert TOKENIZER in complaint(**{MODEL: str(model)})
    assert resolve_settings(StrictConfig(), [], {MODEL: str(model), TOKENIZER: str(FICTIONAL / "blank")}, {})


def test_another_case_of_a_path_is_answered_with_the_right_one(monkeypatch):
    monkeypatch.chdir(REPO)
    for wrong in ("configs/fictional/NPO+FT.json", "Configs/fictional/npo+ft"):
        assert complaint(wrong) == f"{wrong}: no such file; did you mean configs/fictional/npo+ft.json?"
    assert "did you mean files/models/fictional/target?" in complaint(
        **{MODEL: "files/models/Fictional/Target"}
    )
    assert "did you mean files/data," in complaint(**{"dataset.data_dir": "Files/data"})
    assert "did you mean Tofu_forget10" in complaint(**{"dataset.forget_dataset_name": "tofu-forget10"})


@pytest.mark.parametrize(
    "name, text, told",
    [
        ("a.yaml", "unlearn: {lr: 1}", "--config_file takes JSON"),
        ("a.YML", "", "--config_file takes JSON"),
        ("config.json", json.dumps({"model_type": "llama"}), "is the config of a model"),
    ],
)
def test_a_config_of_another_kind_is_one_line(name, text, told, tmp_path):
    (tmp_path / name).write_text(text)
    assert told in complaint(tmp_path / name)


def test_wrong_results_are_answered_with_where_the_rows_are(run_folder):
    meant = f"did you mean {run_folder}?"
    for wrong in ("metrics.json", "checkpoints"):
        told = complaint(**{RESULTS: str(run_folder / wrong)})
        assert told.startswith(f"{RESULTS}: {run_folder / wrong}: ") and told.endswith(meant)
    shutil.rmtree(run_folder / "samples")
    told = complaint(**{RESULTS: str(run_folder / "checkpoints")})
    assert told.endswith("is a model, which evaluate_model.py --overall.model_name measures")


SECOND, ORIGINAL = "evaluate.second_retain_results", "evaluate.original_results"
TARGET_RESULTS, RETAIN_RESULTS = (f"files/models/fictional/{name}/results" for name in ("target", "retain"))


@pytest.fixture
def without_truth_ratios(tmp_path):
    """The run folder of an evaluation that measured no truth ratio."""
    (tmp_path / "plain/samples").mkdir(parents=True)
    (tmp_path / "plain/samples/forget.jsonl").write_text('{"id": "a", "prob": 0.5}\n')
    return tmp_path / "plain"


@pytest.mark.parametrize("key, model", [(SECOND, "retain model"), (ORIGINAL, "model before unlearning")])
def test_results_of_other_models_need_truth_ratios(key, model, without_truth_ratios):
    named = {RESULTS: RETAIN_RESULTS, key: str(without_truth_ratios)}
    told = complaint(**named)
    assert told.startswith(f"{key}: no forget row of {without_truth_ratios} has a truth ratio")
    assert told.endswith(f"measure the {model} with --evaluate.metrics tofu")
    (without_truth_ratios / "samples/forget.jsonl").rename(without_truth_ratios / "samples/retain.jsonl")
    assert (
        f"has no forget rows; expected the run folder of an evaluate_model.py run on the {model}"
        in complaint(**named)
    )
    assert complaint(**named | {key: "gone"}).startswith(f"{key}: ")


def test_a_retain_model_is_no_second_one_beside_itself():
    told = complaint(**{RESULTS: RETAIN_RESULTS, SECOND: str(REPO / RETAIN_RESULTS)})
    assert told.startswith(f"{SECOND}: it is {RESULTS} itself")


def test_results_that_nothing_reads_are_remarked_upon(caplog):
    def warned(**flags) -> str:
        caplog.clear()
        resolve_settings(StrictConfig(), [], flags, {})
        return caplog.text

    named = {RESULTS: RETAIN_RESULTS, SECOND: TARGET_RESULTS, ORIGINAL: TARGET_RESULTS}
    assert "evaluate.metrics does not choose" not in warned(**named)
    text = warned(**named, **{"evaluate.metrics": "forget_quality"})
    assert f"{SECOND} is read by forget_quality_yardstick alone" in text
    assert f"{ORIGINAL} is read by forget/nearer_to_retain and forget/relative_test_p alone" in text
    assert f"{RESULTS} is null" in warned(**{SECOND: TARGET_RESULTS})
