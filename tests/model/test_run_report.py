"""The report at the end of a run: never a reason for the run to fail, and none where none is wanted."""

import logging
from types import SimpleNamespace as Is

import pytest
from scripts import run_script
from trainings import words

from unlearnkit.core.files import write_json
from unlearnkit.loggers import LOGGERS, RunLocation
from unlearnkit.model.run.run_report import write_run_report


def settings(report=True):
    return Is(logger=Is(report=report), method=Is(trains=False), overall=Is(quiet=True))


@pytest.fixture
def logger(tmp_path):
    found = LOGGERS["json"](RunLocation(str(tmp_path), "run"))
    write_json(found.folder / "metrics.json", {"forget/prob": 0.5})
    write_json(found.folder / "lm_eval" / "empty.json", {})
    return found


def test_the_report_lies_in_the_run_folder(logger):
    path = write_run_report(settings(), logger, {})
    assert path == logger.folder / "report.html" and "forget/prob" in path.read_text()
    assert not (logger.folder / "weight_change.json").exists(), "nothing was trained"


def test_without_a_wish_or_a_folder_there_is_none(logger):
    assert write_run_report(settings(report=False), logger, {}) is None
    assert not (logger.folder / "report.html").exists()
    assert write_run_report(settings(), LOGGERS["none"](RunLocation("", "")), {}) is None


@pytest.mark.parametrize("place", ["html_report.write_report", "finished_run.read_run"])
def test_a_failure_is_a_warning_with_its_reason(logger, monkeypatch, caplog, place):
    def fail(*words):
        raise RuntimeError("no\nfont")

    monkeypatch.setattr(f"unlearnkit.model.report.{place}", fail)
    with caplog.at_level(logging.WARNING):
        assert write_run_report(settings(), logger, {}) is None
    assert "the run is complete, but its report could not be made: no font" in caplog.text


def test_a_failure_of_the_logger_is_one_too(logger, monkeypatch, caplog):
    def fail(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logger, "report", fail)
    assert write_run_report(settings(), logger, {}) is None
    assert "No space left on device" in caplog.text


@pytest.mark.run
def test_a_run_that_is_killed_while_it_draws_resumes_and_draws(
    tiny_model_folder, in_small_world, reports, tmp_path, monkeypatch
):
    run = words(tiny_model_folder, tmp_path, "run", 8, 1, "--unlearn.save_steps", "3")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("unlearnkit.model.report.html_report.write_report", killed)
        assert run_script("unlearn_model", *run).returncode == 130
    assert not (tmp_path / "run/environment.json").exists()
    done = run_script("unlearn_model", *run, "--unlearn.resume_path", "auto")
    assert done.returncode == 0, done.stderr
    assert "forget/prob" in (tmp_path / "run/report.html").read_text()
