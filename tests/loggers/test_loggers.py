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


NAMES = {
    *("train/loss", "train/npo", "evaluation/forget/prob", "before/forget/prob", "forget/prob"),
    *("before/samples/forget", "samples/forget"),
}
"""What a tracking service gets of the records below."""


def record_a_run(logger):
    with logger.open({"a": 1}):
        logger.evaluation("before", RESULTS)
        logger.history({"step": 0, "metrics": {"forget/prob": 0.5, "forget_quality": None}})
        for step in (1, 2):
            logger.step({"step": step, "loss": 1.0 / step, "npo": 0.5})
        logger.history({"step": 2, "metrics": {"forget/prob": 0.25}})
        logger.evaluation("", RESULTS)
        logger.environment({"seed": 0})
        report = logger.folder / "report.html"
        report.write_text("<!doctype html>")
        logger.report(report)


def test_tensorboard_gets_the_names_of_the_terms_and_the_samples(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    record_a_run(LOGGERS["json"](RunLocation(str(tmp_path), "run", tensorboard=True)))
    events = accumulator.EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    tags = {
        tag.removesuffix("/text_summary") for kind in ("scalars", "tensors") for tag in events.Tags()[kind]
    }
    assert tags == NAMES | {"report"}
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1.0), (2, 0.5)]
    (table,) = events.Tensors("samples/forget/text_summary")
    assert b"| a | 0.5 |" in table.tensor_proto.string_val[0]


def test_wandb_gets_the_same_names_the_samples_as_tables_and_the_report_as_an_artifact(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    logged, summary, artifacts = {}, {}, []

    class Run:
        def __init__(self):
            self.summary, self.last = summary, 0

        def log(self, values, step):
            assert step >= self.last, "wandb drops what is behind its last step"
            self.last = step
            logged.update(values)

        def log_artifact(self, artifact):
            artifacts.append(artifact)

        def finish(self, exit_code=0):
            pass

    monkeypatch.setattr(wandb, "init", lambda **settings: Run())
    record_a_run(LOGGERS["wandb"](RunLocation(str(tmp_path), "a run, seed=1")))
    assert {*logged, *summary} == NAMES | {"train/step"}
    assert logged["samples/forget"].columns == ["id", "prob"] and logged["samples/forget"].data == [
        ["a", 0.5]
    ]
    assert [artifact.name for artifact in artifacts] == ["report-a-run--seed-1"]
    assert "report.html" in artifacts[0].manifest.entries


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
def test_wandb_offline_tensorboard_and_report_in_a_real_run(tiny_model_folder, tmp_path, reports):
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
    tables = [path.name for path in folder.glob("wandb/offline-run-*/files/media/table/**/*.json")]
    assert any(name.startswith("forget") for name in tables), tables
    assert run.stdout.rstrip().endswith(f"report: {folder / 'report.html'}")
    changes = json.loads((folder / "weight_change.json").read_text())["tensors"]
    assert any(change["change"] > 0 for change in changes.values())
    assert "Change of the weights per layer</h2>" in (folder / "report.html").read_text()


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
