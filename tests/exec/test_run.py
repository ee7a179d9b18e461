"""What a run shows while it goes and when it has ended, and what becomes of it when that cannot be shown."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from scripts import Forked, run_script

from unlearnkit.core.files import read_json
from unlearnkit.model.run.progress import Lines

pytestmark = pytest.mark.run

TEXT = "[bold]Who[/x] \x1b]0;owned\x07 is \x9b2J :smile: né↑ \r"
SHOWN = r"[bold]Who[/x] \x1b]0;owned\x07 is \x9b2J :smile: né↑ \r"


@pytest.fixture
def data(tmp_path) -> Path:
    """Rows of a user with all that a screen may stumble over."""
    folder = tmp_path / "data [/red]"
    folder.mkdir(parents=True)
    for stem in ("forget", "retain"):
        rows = [{"question": f"{TEXT} {stem} {n}?", "answer": f"{TEXT} {n}"} for n in range(3)]
        (folder / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def words(model, data, tmp_path) -> list[str]:
    return [
        *("--dataset.forget_dataset_name Folder_forget --dataset.retain_dataset_name Folder_retain").split(),
        *("--unlearn.unlearn_method GA+FT --unlearn.max_steps 2 --evaluate.max_new_tokens 4").split(),
        *("--evaluate.metrics forget/prob,forget/rougeL --logger.name run").split(),
        *("--overall.model_name", str(model), "--dataset.data_dir", str(data)),
        *("--logger.json.root", str(tmp_path / "out [/red]")),
        *("--overall.cache_dir", str(tmp_path / "cache")),
    ]


def test_rows_and_paths_are_literal_and_phases_are_lines(tiny_model_folder, data, tmp_path, monkeypatch):
    update = Lines.update
    monkeypatch.setattr(Lines, "update", lambda self, *args, **kw: update(self, *args, **kw) or self.show())
    done = run_script("unlearn_model", *words(tiny_model_folder, data, tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"{SHOWN} forget 0?  (true: {SHOWN} 0)" in done.stdout
    assert f"run folder: {tmp_path}/out [/red]/run" in done.stdout
    lines = done.stderr.splitlines()
    begins = ("measuring the initial model: 6 rows", "training with GA+FT: 2 steps", "measuring: 6 rows")
    assert [line for line in lines if line in begins] == list(begins)
    assert re.search(
        r"training with GA\+FT: 1 of 2 steps, loss \S+, .*ga \S+, .* 0:00:0\d left\n", done.stderr
    )
    assert "measuring: 6 of 6 rows, 0:00:00 left" in lines
    samples = (tmp_path / "out [/red]/run/samples/forget.jsonl").read_text()
    assert json.loads(samples.splitlines()[0])["question"] == f"{TEXT} forget 0?"


def test_a_quiet_run_shows_nothing(tiny_model_folder, data, tmp_path):
    quiet = [
        "--overall.quiet",
        "true",
        "--evaluate.before",
        "false",
    ]  # a model that knows nothing is warned of
    done = run_script("unlearn_model", *words(tiny_model_folder, data, tmp_path), *quiet)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def full_output() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), sys.stdout.fileno())


def closed_pipes() -> None:
    read, write = os.pipe()
    os.close(read)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(write, stream.fileno())


def ascii_output() -> None:
    sys.stdout.reconfigure(encoding="ascii")


@pytest.mark.parametrize("before", [full_output, closed_pipes, ascii_output])
def test_a_run_is_whole_whatever_becomes_of_its_screen(before, tiny_model_folder, data, tmp_path):
    if before is full_output and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    argv = words(tiny_model_folder, data, tmp_path)
    done = Forked("unlearn_model", *argv, log=tmp_path / "log", before=before).ended
    folder = tmp_path / "out [/red]/run"
    assert done.returncode == 0, done.stderr
    assert (folder / "environment.json").is_file()
    assert read_json(folder / "metrics.json")["forget/prob"] > 0
    assert "Traceback" not in done.stderr
    if before is ascii_output:
        assert rf"{SHOWN} forget 0?".replace("é", r"\xe9").replace("↑", "^") in done.stdout


def test_control_codes_of_a_model_name_are_shown(tmp_path):
    (tmp_path / "no\x1b[2Jmodel").mkdir()
    done = run_script("evaluate_model", "--overall.model_name", tmp_path / "no\x1b[2Jmodel")
    assert done.returncode != 0
    assert r"no\x1b[2Jmodel" in done.stderr
    assert "\x1b" not in done.stderr


def test_words_that_are_no_text_in_the_locale_are_refused(tmp_path):
    done = run_script("evaluate_model", "--logger.json.root", f"{tmp_path}/caf\udce9")
    assert done.returncode == 2
    assert "logger.json.root: expected text in the locale's encoding" in done.stderr
    assert "set PYTHONUTF8=1, or rename the file" in done.stderr and r"caf\udce9" in done.stderr


FILES = {
    "make_mask": ("--mask.score wagle --mask.ratios 0.5 --mask.out", "", "scoring the weights of the mask"),
    "make_traces": ("--traces.max_new_tokens 4 --dataset.traces", "t.jsonl", "writing traces"),
    "make_alternates": (
        "--generation.count 2 --generation.attempts 2 --generation.max_new_tokens 4 --dataset.alternates",
        "a.jsonl",
        "writing alternates, round 2 of 2",
    ),
    "make_paraphrases": (
        "--paraphrases.similarity -1 --paraphrases.attempts 1 --paraphrases.max_new_tokens 4"
        " --dataset.paraphrases",
        "p.jsonl",
        "paraphrasing",
    ),
}
"""Script -> what it is to write, and its last phase."""


@pytest.mark.parametrize("script", FILES)
def test_the_rows_of_a_phase_are_those_that_it_was_begun_with(
    script, tiny_model_folder, data, tmp_path, monkeypatch
):
    ended = {}
    leave = Lines.__exit__
    monkeypatch.setattr(
        Lines,
        "__exit__",
        lambda self, *e: leave(self, *e) or ended.update({self.title: (self.done, self.total)}),
    )
    flags, file, phase = FILES[script]
    argv = words(tiny_model_folder, data, tmp_path)
    done = run_script(script, *argv, *flags.split(), tmp_path / file)
    assert "Traceback" not in done.stderr
    assert list(ended)[-1] == phase
    assert all(done == total > 0 for done, total in ended.values()), ended
