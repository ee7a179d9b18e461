"""One contract for every logger, and the promises of the run folder."""

import json
import os

import pytest
from scripts import run_script

from unlearnkit.core.files import UserError
from unlearnkit.loggers import LOGGERS, RunLocation
from unlearnkit.loggers.logger import Results

RESULTS = Results(
    {"forget/prob": 0.5, "forget_quality": None},
    {"forget_quality": {"reason": "no retain model"}},
    {"forget": [{"id": "a", "prob": 0.5}]},
)


class FakeSaver:
    def save_pretrained(self, folder):
        (os.path.isdir(folder) and open(os.path.join(folder, type(self).__name__), "w").close())


@pytest.mark.parametrize("name", LOGGERS)
def test_contract(name, tmp_path):
    if name == "wandb":
        pytest.importorskip("wandb")
    logger = LOGGERS[name](RunLocation(str(tmp_path), "run"))
    with logger.open({"a": 1}):
        logger.step({"step": 1, "loss": float("nan")})
        logger.evaluation("before", RESULTS)
        logger.model(FakeSaver(), FakeSaver())
        logger.evaluation("", RESULTS)
        logger.environment({"seed": 0})
    if logger.folder:
        assert {p.name for p in logger.folder.iterdir()} - {"wandb"} == {
            "config.json",
            "log.jsonl",
            "metrics.json",
            "metrics_detail.json",
            "samples",
            "before",
            "checkpoints",
            "environment.json",
        }
        assert json.loads((logger.folder / "log.jsonl").read_text()) == {"step": 1, "loss": None}
        assert json.loads((logger.folder / "metrics.json").read_text()) == RESULTS.metrics
    else:
        assert not list(tmp_path.iterdir())


def make(tmp_path, overwrite=False):
    return LOGGERS["json"](RunLocation(str(tmp_path), "run", overwrite))


def test_a_taken_name_is_refused_and_overwrite_leaves_nothing_of_the_old_run(tmp_path):
    with make(tmp_path).open({"a": 1}):
        make(tmp_path).evaluation("", RESULTS)
    with pytest.raises(UserError, match="already holds a run"), make(tmp_path).open({"a": 2}):
        pass
    assert json.loads((tmp_path / "run/config.json").read_text()) == {"a": 1}
    with make(tmp_path, True).open({"a": 2}):
        assert not (tmp_path / "run/metrics.json").exists()
    assert json.loads((tmp_path / "run/config.json").read_text()) == {"a": 2}


def test_overwrite_never_touches_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="thesis.tex"), make(tmp_path, True).open({}):
        pass
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


def test_the_lock_goes_with_the_run_however_it_ends(tmp_path):
    with pytest.raises(RuntimeError), make(tmp_path).open({}):
        raise RuntimeError
    assert not (tmp_path / "run/lock").exists()


def test_two_runs_cannot_share_a_folder(tmp_path):
    with (
        make(tmp_path).open({"a": 1}),
        pytest.raises(UserError, match="another run"),
        make(tmp_path, True).open({"a": 2}),
    ):
        pass
    assert json.loads((tmp_path / "run/config.json").read_text()) == {"a": 1}


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "run").write_text("a file in the way")
    with pytest.raises(UserError, match="is a file"), make(tmp_path).open({}):
        pass


def test_an_interrupted_save_leaves_no_half_model(tmp_path):
    class Broken(FakeSaver):
        def save_pretrained(self, folder):
            super().save_pretrained(folder)
            raise OSError(28, "No space left on device")

    logger = make(tmp_path)
    with pytest.raises(OSError), logger.open({}):
        logger.model(FakeSaver(), Broken())
    assert not list((tmp_path / "run/checkpoints").iterdir())
    assert not list((tmp_path / "run").glob(".checkpoints*"))


@pytest.mark.run
def test_wandb_offline_and_tensorboard_in_a_real_run(tiny_model_folder, tmp_path):
    run = run_script(
        "unlearn_model",
        "--overall.model_name",
        tiny_model_folder,
        *(
            "--unlearn.unlearn_method GA+FT --unlearn.max_steps 3 --evaluate.before false "
            "--evaluate.metrics forget/prob --overall.logger wandb --logger.tensorboard true"
        ).split(),
        "--evaluate.every=2 steps",
        "--logger.json.root",
        tmp_path,
        "--logger.name",
        "run",
        "--overall.cache_dir",
        tmp_path / "cache",
        WANDB_MODE="offline",
        HOME=str(tmp_path),
    )
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "run"
    assert len((folder / "log.jsonl").read_text().splitlines()) == 3
    assert len((folder / "evaluations.jsonl").read_text().splitlines()) == 3
    assert (folder / "metrics.json").exists()
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert list(folder.glob("tensorboard/**/events.out.*"))


def test_a_folder_that_may_not_be_written_names_the_key_before_anything_is_done(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for root, cause in (("file/runs", f"{tmp_path / 'file'} is a file"), ("a/b", "may not be written")):
        if cause == "may not be written":  # root may write everywhere
            monkeypatch.setattr("unlearnkit.loggers.json_.os.access", lambda place, mode: False)
        with pytest.raises(UserError, match=f"{cause}; choose another logger.json.root"):
            LOGGERS["json"](RunLocation(str(tmp_path / root), "run")).check()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_an_interrupted_evaluation_is_done_again_by_the_same_command_and_no_other(tmp_path):
    redone = lambda: LOGGERS["json"](RunLocation(str(tmp_path), "run", redo=True))
    with redone().open({"a": 1}):
        redone().evaluation("before", RESULTS)
    with pytest.raises(UserError, match="logger.name: the interrupted run in .* had another a"):
        redone().open({"a": 2}).__enter__()
    assert (tmp_path / "run/before/metrics.json").is_file()
    with redone().open({"a": 1}):
        assert not (tmp_path / "run/before").exists()
    with redone().open({"a": 1}):
        redone().environment({})
    with pytest.raises(UserError, match="already holds a run; choose another logger.name"):
        redone().check()
