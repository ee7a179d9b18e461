"""Benchmarks that run elsewhere (a GPU) or for an hour (the campaign of faults), here with a tiny shape."""

import argparse
import importlib
import os
import signal
import sys

import pytest
from conftest import REPO

TINY = (
    "--device cpu --dtype float32 --hidden 32 --intermediate 48 --heads 2 --vocabulary 256 --batch 2"
    " --minutes 0.001 --peak-tflops 1 --layers"
).split()


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    return importlib.import_module


@pytest.mark.parametrize(
    "part, layers, figure",
    [
        ("mask", 2, "to select 80 % of"),
        ("scoring", 2, "answers/s"),
        ("generation", 2, "new tokens/s"),
        pytest.param("NPO+FT", 2, "s a step of 4 rows", marks=pytest.mark.slow),
        pytest.param("GAO", 2, "s a step of 4 rows", marks=pytest.mark.slow),
        pytest.param("R2MU", 9, "physical limit", marks=pytest.mark.slow),
    ],
)
def test_each_part_of_the_gpu_script_gives_its_figure(part, layers, figure, script, capsys, tmp_path):
    assert script("gpu").main([*TINY, str(layers), "--only", part, "--out", str(tmp_path / "f.json")]) == 0
    assert figure in capsys.readouterr().out
    assert '"card": "CPU"' in (tmp_path / "f.json").read_text()


def test_without_a_gpu_the_script_says_how_to_go_on(script, capsys):
    with pytest.raises(SystemExit):
        script("gpu").main([])
    assert "no GPU is visible; --device cpu takes a tiny shape" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["NPO+FT", "GA+KL", "RMU"])
def test_a_step_and_the_plain_one_have_the_same_losses(method, script, capsys):
    words = f"--sizes 1m --methods {method} --steps 2 --rounds 1 --batch 2"
    script("step").main(words.split())
    line = capsys.readouterr().out.splitlines()[-1].split("|")
    assert line[2].strip() == method and float(line[6]) < 1e-4


def test_times_and_addresses_do_not_count_as_differences(script, tmp_path):
    faults = script("faults")
    for name, seconds, loss in (("a", 1, 2), ("b", 5, 2), ("c", 1, 3)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "log.jsonl").write_text(f'{{"loss": {loss}, "seconds": {seconds}}}\n')
        (folder / "x.json").write_text(f'{{"f": "<function f at 0x7f{seconds}>, {seconds} s of training"}}')
        (folder / ".hidden").write_text(name)
    a, b, c = (faults.contents(tmp_path / name) for name in "abc")
    assert a == b != c and set(a) == {"log.jsonl", "x.json"}


def test_a_process_dies_just_before_its_change_of_that_number(tmp_path):
    """In a child of its own, whose hook cannot be taken back."""
    sys.path.insert(0, str(REPO / "benchmarks"))
    try:
        faults = importlib.import_module("faults")
    finally:
        sys.path.remove(str(REPO / "benchmarks"))
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        faults.die_at_change(3, tmp_path)()
        for name in "abcd":
            (tmp_path / name).write_text("x")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    "found, code, said, lost, different",
    [
        ({"a": "1", "b": "2"}, 0, "", False, ""),
        ({"a": "1", "b": "2"}, 1, "error: r holds a whole run: there is nothing to resume", False, ""),
        ({"a": "1", "b": "2"}, 1, "error: something else", True, ""),
        ({"a": "1", "b": "2", "c": "3"}, 1, "error: r holds a whole run: there is nothing", True, "c"),
        ({"a": "1", "b": "other"}, 0, "", False, "b"),
        ({"a": "1"}, 0, "", True, ""),
    ],
)
def test_a_second_run_must_end_with_the_files_of_an_undisturbed_one(
    found, code, said, lost, different, script
):
    faults = script("faults")
    outcome = faults.Outcome(1, "training", "kill", 0.1, struck=True, again=code)
    faults.compare(outcome, faults.Undisturbed(0, 1.0, 5, 100, {"a": "1", "b": "2"}), found, said)
    assert bool(outcome.lost) == lost and outcome.different == different


def test_the_stand_in_server_answers_a_prompt_always_alike(script):
    victims = script("fault_victims")
    assert victims.reply("Question: Q?\nReference: A", 1) in ("yes", "no")
    replies = [victims.reply(f"Reword {number}.", 1) for number in range(50)]
    assert replies == [victims.reply(f"Reword {number}.", 2) for number in range(50)]
    assert 1 < len(set(replies)) < 50


def test_the_summary_counts_what_was_struck_lost_and_different(script):
    faults = script("faults")
    outcomes = [
        faults.Outcome(1, "training", "kill", 0.1, struck=True),
        faults.Outcome(2, "training", "full", 0.1, struck=True, lost="code 1"),
        faults.Outcome(3, "masks", "term", 0.1, struck=False, different="mask.pt"),
    ]
    text = faults.summary(outcomes, 7)
    assert text.startswith(
        "seed 7: 2 faults ended a run (1 more came too late); 1 lost, 1 silently different, 0"
    )
    assert "training 2" in text and "kill 1, full 1" in text


@pytest.mark.slow
@pytest.mark.run
def test_a_short_campaign_loses_nothing(script, tmp_path):
    options = argparse.Namespace(only="masks", kills=2, minutes=5, seed=1)
    outcomes = script("faults").campaign(options, tmp_path)
    assert sum(outcome.struck for outcome in outcomes) == 2
    assert not any(outcome.lost or outcome.different or outcome.unclear for outcome in outcomes)
