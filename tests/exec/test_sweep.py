"""sweep.py: budgets, floors and failures are what they are stated to be; killed sweeps go on."""

import csv
import errno
import json
import math
import os
import signal
from itertools import count
from pathlib import Path

import pytest
from scripts import Forked, die_at_change, run_script, wait_until

from unlearnkit.core.files import read_json, write_json
from unlearnkit.exec import child_runs
from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
from unlearnkit.exec.search_space import read_space
from unlearnkit.exec.search_study import Ended, Studies
from unlearnkit.exec.winning_config import winning_config
from unlearnkit.model.report.grid_table import FACTS
from unlearnkit.model.report.sweep_report import choose_winners, ranked
from unlearnkit.model.run.sweep_rule import SweepRule

pytestmark = pytest.mark.run
LAUNCH = child_runs.ChildProcesses.launch
GOAL = ["--goal", "forget/prob", "--utility", "retain/prob", "--metrics", "forget/prob", "retain/prob"]


def figures(settings) -> dict[str, float]:
    """Made-up figures of a run: a higher lr forgets more and keeps less, seed 1 is a little worse."""
    lr, seed = settings.unlearn.lr, settings.overall.seed
    return {"forget/prob": math.exp(-1000 * lr) + 0.01 * seed, "retain/prob": 1 - 100 * lr - 0.01 * seed}


def finish(children, words, threads):
    """In place of a run: the files of a finished one, in no time. An lr above 3e-3 fails."""
    flags = dict(word.removeprefix("--").split("=", 1) for word in words[2:])
    settings = resolve_settings(StrictConfig(), [words[1]], flags, {})
    if settings.unlearn.lr > 3e-3:
        return child_runs.ExitState(1, "error: the loss is nan\n")
    folder = Path(flags["logger.json.root"]) / flags["logger.name"]
    write_json(folder / "config.json", settings.resolved())
    write_json(folder / "before/metrics.json", {"forget/prob": 1.0, "retain/prob": 1.0})
    write_json(folder / "metrics.json", figures(settings))
    write_json(folder / "environment.json", dict.fromkeys(FACTS.values(), 1))
    (folder / "checkpoints").mkdir(exist_ok=True)
    return child_runs.ExitState(0, "")


@pytest.fixture(autouse=True)
def _runs_in_no_time(monkeypatch):
    monkeypatch.setattr(child_runs.ChildProcesses, "launch", finish)


@pytest.fixture
def config(tiny_model_folder, tmp_path):
    path = tmp_path / "npo.json"
    tree = {
        "overall": {"model_name": str(tiny_model_folder), "cache_dir": str(tmp_path / "cache")},
        "unlearn": {"unlearn_method": "NPO+FT", "max_steps": 2, "lr": 1e-3},
        "dataset": {"forget_ratio": 4, "batch_size": 2},
        "evaluate": {"metrics": ["forget/prob", "retain/prob"], "rows": 2, "bootstrap": 0},
    }
    path.write_text(json.dumps(tree))
    return path


def sweep(config, tmp_path, *words, name="s", more=()):
    place = ["--name", name, "--root", tmp_path, "--configs", config, *more]
    return run_script("sweep", *place, *GOAL, *map(str, words))


def trials(tmp_path, name="s") -> list[dict]:
    with (tmp_path / name / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_winner_forgets_most_among_those_that_hold_the_floor_on_every_seed(config, tmp_path):
    rates = [2e-4, 4e-4, 6e-4, 2e-3, 4e-3]
    words = ["--search", "grid", "--vary", f"unlearn.lr={','.join(map(str, rates))}"]
    done = sweep(config, tmp_path, *words, "--report-seeds", 7, 8)
    assert done.returncode == 0, done.stderr
    states = {float(row["unlearn.lr"]): row["state"] for row in trials(tmp_path)}
    # 1 - 100 lr - .01 seed against .95 on seeds 0 and 1; .80 is more than .05 below on the first.
    assert states == {2e-4: "complete", 4e-4: "complete", 6e-4: "complete", 2e-3: "pruned", 4e-3: "failed"}
    held = [rate for rate in rates if 1 - 100 * rate - 0.01 >= 0.95]
    winner = read_json(tmp_path / "s/winners/npo.json")
    assert winner["unlearn"]["lr"] == max(held) == 4e-4
    expected = [math.exp(-0.4), math.exp(-0.4) + 0.01]
    row = next(row for row in trials(tmp_path) if float(row["unlearn.lr"]) == 4e-4)
    assert float(row["forget/prob"]) == pytest.approx(sum(expected) / 2)
    assert float(row["score"]) == pytest.approx(-sum(expected) / 2)
    assert row["holds floor"] == "True"
    text = (tmp_path / "s/sweep.md").read_text()
    assert "5 of 5 trials (3 complete, 1 pruned, 1 failed), 7 runs" in text
    assert "npo, 1 failed: error: the loss is nan" in text
    # The report has figures of its own seeds: .01 for each step of the seed.
    assert f"forget/prob by seed: {math.exp(-0.4) + 0.07:.3f}, {math.exp(-0.4) + 0.08:.3f}" in text
    assert (tmp_path / "s/sweep.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("s/npo-0000,seed=*/checkpoints"))
    assert len(list(tmp_path.glob("s/*report*/checkpoints"))) == 2


def test_the_winning_config_runs_as_the_trial_did(config, tmp_path):
    values = {
        "unlearn.lr": "0.0005",
        "unlearn.NPO.beta": ".3",
        "unlearn.stop": "kl=0.1",
        "evaluate.every": "1 epoch",
    }
    tree = winning_config(str(config), values)
    path = tmp_path / "won.json"
    path.write_text(json.dumps({"note": "n"} | tree))
    again = resolve_settings(StrictConfig(), [str(path)], {}, {})
    assert again == resolve_settings(StrictConfig(), [str(config)], values, {})
    assert tree["unlearn"]["stop"] == ["kl=0.1"]


def test_a_weight_without_a_place_is_no_part_of_the_winning_config(config):
    assert winning_config(str(config), {"unlearn.gamma": "3"})["unlearn"]["gamma"] == 3
    tree = winning_config(str(config), {"unlearn.gamma": "3", "unlearn.combiner": "ngdiff"})
    assert "gamma" not in tree["unlearn"]


def test_without_a_trial_that_holds_the_floor_there_is_no_winner(config, tmp_path):
    done = sweep(config, tmp_path, "--search", "grid", "--vary", "unlearn.lr=1e-3,2e-3", "--floor", ".99")
    assert done.returncode == 1
    assert "npo: none (no trial holds the floor)" in done.stdout
    assert not list(tmp_path.glob("s/winners/*"))


SEARCH = ["--vary", "unlearn.lr=1e-4..5e-3:log", "unlearn.num_epochs=1..4", "--trials", 10]


@pytest.mark.parametrize(
    "number",
    [
        3,
        60,
        *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 2, 8, 20, 40, 80)),
    ],
)
def test_a_killed_sweep_goes_on_and_ends_as_if_it_had_not_been(number, config, tmp_path):
    whole = sweep(config, tmp_path, *SEARCH, name="whole")
    assert whole.returncode == 0, whole.stderr
    words = ["--name", "s", "--root", tmp_path, "--configs", config, *GOAL, *SEARCH]
    killed = Forked("sweep", *words, log=tmp_path / "log", before=die_at_change(number, tmp_path / "s"))
    assert killed.ended.returncode == -signal.SIGKILL, killed.ended
    again = sweep(config, tmp_path, *SEARCH)
    assert again.returncode == 0, again.stderr
    assert trials(tmp_path) == trials(tmp_path, "whole")
    assert len(trials(tmp_path)) == 10
    assert not list((tmp_path / "s").glob("trials.log?*"))


@pytest.mark.parametrize("search", ["grid", "random"])
def test_a_trial_killed_while_it_is_drawn_keeps_its_number_and_values(search, config, tmp_path, monkeypatch):
    words = ["--vary", "unlearn.lr=1e-4,1e-3,5e-3", "--search", search, "--trials", 3]
    assert sweep(config, tmp_path, *words, name="whole").returncode == 0
    draws = count(1)
    hold = Studies._hold

    def die_before_its_values_count(studies, one, number):
        if next(draws) == 2:
            (trial,) = studies._running(one)
            attributes = studies.studies[one.title]._storage
            attributes.set_trial_user_attr(trial._trial_id, "begun", False)
            raise KeyboardInterrupt
        return hold(studies, one, number)

    monkeypatch.setattr(Studies, "_hold", die_before_its_values_count)
    assert sweep(config, tmp_path, *words).returncode == 130
    monkeypatch.setattr(Studies, "_hold", hold)
    again = sweep(config, tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert trials(tmp_path) == trials(tmp_path, "whole")


def test_the_importance_is_that_of_the_key_that_counts(config, tmp_path):
    done = sweep(config, tmp_path, "--search", "random", *SEARCH[:3], "--trials", 24, "--prune", 1)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("- npo: unlearn.lr 0."))
    assert float(line.partition("unlearn.lr ")[2][:4]) > 0.8


def test_two_processes_share_the_trials(config, tmp_path, monkeypatch):
    """Each waits in its first run until the other has begun one."""
    words = ["--name", "s", "--root", tmp_path, "--configs", config, *GOAL, *SEARCH]

    def begin(name):
        def launch(children, words, threads):
            (tmp_path / f"{name}.begun").touch()
            wait_until(lambda: len(list(tmp_path.glob("*.begun"))) == 2)
            with (tmp_path / f"{name}.runs").open("a") as file:
                file.write(next(word for word in words if "logger.name" in word) + "\n")
            return finish(children, words, threads)

        child_runs.ChildProcesses.launch = launch

    both = [
        Forked("sweep", *words, log=tmp_path / name, before=lambda name=name: begin(name)) for name in "ab"
    ]
    for one in both:
        assert one.ended.returncode == 0, one.ended
    rows = trials(tmp_path)
    assert sorted(int(row["trial"]) for row in rows) == list(range(10))
    made = [(tmp_path / f"{name}.runs").read_text().splitlines() for name in "ab"]
    assert all(made)
    assert len(set(made[0] + made[1])) == len(made[0]) + len(made[1]), "no run is made twice"


def test_an_interrupted_trial_is_no_failed_one(config, tmp_path, monkeypatch):
    def interrupted(children, words, threads):
        children.open = False
        return child_runs.ENDED

    monkeypatch.setattr(child_runs.ChildProcesses, "launch", interrupted)
    sweep(config, tmp_path, *SEARCH)
    monkeypatch.setattr(child_runs.ChildProcesses, "launch", finish)
    again = sweep(config, tmp_path, *SEARCH)
    assert again.returncode == 0, again.stderr
    assert "killed" not in (tmp_path / "s/sweep.md").read_text()
    assert len(trials(tmp_path)) == 10


@pytest.mark.parametrize("kills, state", [(1, "complete"), (2, "failed")])
def test_a_killed_run_is_begun_once_more(kills, state, config, tmp_path, monkeypatch):
    """As where memory was short for a moment, and where it is short each time."""
    runs = count()

    def killed(children, words, threads):
        return child_runs.ExitState(-9, "") if next(runs) < kills else finish(children, words, threads)

    monkeypatch.setattr(child_runs.ChildProcesses, "launch", killed)
    sweep(config, tmp_path, "--vary", "unlearn.lr=1e-4,2e-4", "--search", "grid")
    first, second = sorted(trials(tmp_path), key=lambda row: row["trial"])
    assert (first["state"], second["state"]) == (state, "complete")
    assert first["reason"] == ("killed by SIGKILL" if state == "failed" else "")


@pytest.mark.parametrize(
    "line",
    [
        "error: [Errno 28] No space left on device. Files written before are complete; fix the disk",
        "error: /d/npo: cannot be written (Disk quota exceeded); choose another logger.json.root",
    ],
)
def test_a_trial_whose_disk_is_full_is_no_failed_one(line, config, tmp_path, monkeypatch):
    assert sweep(config, tmp_path, *SEARCH, name="whole").returncode == 0
    runs = count(1)

    def finish_or_fail(children, words, threads):
        return child_runs.ExitState(1, line) if next(runs) == 5 else finish(children, words, threads)

    monkeypatch.setattr(child_runs.ChildProcesses, "launch", finish_or_fail)
    full = sweep(config, tmp_path, *SEARCH)
    assert full.returncode == 2 and "the same command resumes" in full.stderr, full.stderr
    monkeypatch.setattr(child_runs.ChildProcesses, "launch", finish)
    again = sweep(config, tmp_path, *SEARCH)
    assert again.returncode == 0, again.stderr
    assert trials(tmp_path) == trials(tmp_path, "whole")


def test_a_journal_that_ends_within_a_line_goes_on(config, tmp_path):
    """As a disk that fills up leaves it."""
    assert sweep(config, tmp_path, *SEARCH, "--trials", 3).returncode == 0
    with (tmp_path / "s/trials.log").open("a") as journal:
        journal.write('{"op_code":4,"work')
    again = sweep(config, tmp_path, *SEARCH)
    assert again.returncode == 0, again.stderr
    assert len(trials(tmp_path)) == 10


def test_a_journal_that_cannot_be_written_is_one_clear_line(config, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Studies, "tell", full)
    done = sweep(config, tmp_path, *SEARCH)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "cannot be written (No space left on device)" in done.stderr


def test_keys_of_other_methods_are_left_out_and_budgets_are_equal(config, tmp_path):
    other = tmp_path / "simnpo.json"
    tree = json.loads(config.read_text())
    tree["unlearn"]["unlearn_method"] = "SimNPO+FT"
    other.write_text(json.dumps(tree))
    space = tmp_path / "space.json"
    space.write_text(
        '{"unlearn.lr": "1e-4..1e-3", "unlearn.NPO.beta": [0.1, 0.2], "unlearn.SimNPO.beta": "1..5"}'
    )
    done = sweep(config, tmp_path, "--space", space, "--trials", 5, more=[other])
    assert done.returncode == 0, done.stderr
    rows = trials(tmp_path)
    assert {row["config"]: row["unlearn.SimNPO.beta"] != "" for row in rows} == {"npo": False, "simnpo": True}
    assert [sum(row["config"] == name for row in rows) for name in ("npo", "simnpo")] == [5, 5]
    assert "The configs have had the same number of trials." in done.stdout
    done = sweep(config, tmp_path, "--space", space, "--trials", 5)  # the other config has gone
    assert done.returncode == 0, done.stderr
    scores = lambda rows: [(row["trial"], row["score"]) for row in rows if row["config"] == "npo"]
    assert scores(trials(tmp_path)) == scores(rows)


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--vary", "unlearn.NPO.bata=.1..1"], "did you mean unlearn.NPO.beta"),
        (["--vary", "unlearn.lr=1e-3..1e-4"], "must go from a number to a greater one"),
        (["--vary", "unlearn.lr=0..1:log"], "must lie above 0"),
        (["--vary", "unlearn.num_epochs=1..2.5"], "takes whole numbers"),
        (["--vary", "unlearn.NPO.beta=-1..1"], "unlearn.NPO.beta: expected a number above 0"),
        (["--vary", "unlearn.SimNPO.beta=1..2"], "has no effect on any of the configs: unlearn.SimNPO"),
        (["--vary", "unlearn.lr=1..2", "unlearn.lr=1,2"], "unlearn.lr is varied twice"),
        (["--vary", "overall.seed=0,1"], "overall.seed: is set by --seeds"),
        (["--set", "evaluate.before=false"], "stays true"),
        (["--vary", "unlearn.lr=1e-4..1e-3", "--search", "grid"], "unlearn.lr is a range"),
        (["--report-seeds", "1"], "use each seed once"),
        (["--goal", "forget_quality"], "forget quality is measured on all rows"),
        (["--goal", "forget/porb"], "unknown forget/porb"),
        (["--floor", "95"], "expected a share from 0 to 1"),
        (["--trials", "0"], "--trials"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(words, expected, config, tmp_path):
    varied = [] if "--vary" in words else ["--vary", "unlearn.lr=1e-4..1e-3"]
    done = sweep(config, tmp_path, *varied, *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "s").exists()


def test_a_folder_of_another_sweep_is_refused(config, tmp_path):
    assert sweep(config, tmp_path, "--vary", "unlearn.lr=1e-4,2e-4", "--search", "grid").returncode == 0
    done = sweep(config, tmp_path, "--vary", "unlearn.lr=1e-4,3e-4", "--search", "grid")
    assert done.returncode == 2
    assert "holds a sweep with another space" in done.stderr


def test_configs_come_to_a_sweep_and_go(config, tmp_path):
    other = tmp_path / "simnpo.json"
    other.write_text(config.read_text().replace("NPO+FT", "SimNPO+FT"))
    words = ["--vary", "unlearn.lr=1e-4,2e-4", "--search", "grid"]
    assert sweep(config, tmp_path, *words).returncode == 0
    for more, expected in (([other], ["npo", "npo", "simnpo", "simnpo"]), ([], ["npo", "npo"])):
        assert sweep(config, tmp_path, *words, more=more).returncode == 0
        assert sorted(row["config"] for row in trials(tmp_path)) == expected
    other.write_text(config.read_text().replace("NPO+FT", "GA+FT"))
    done = sweep(config, tmp_path, *words, more=[other])
    assert done.returncode == 2 and "holds a sweep with another configs" in done.stderr


def test_a_goal_without_a_value_is_a_failure_with_its_reason(config, tmp_path):
    words = ["--vary", "unlearn.lr=1e-4,2e-4", "--search", "grid", "--goal", "forget/rougeL"]
    done = sweep(config, tmp_path, *words)
    assert done.returncode == 1
    assert "2 failed: forget/rougeL has no value: it was not measured (evaluate.metrics)" in done.stdout


def test_of_equal_forgetting_the_trial_that_keeps_more_wins():
    runs = lambda kept: ({"forget/prob": 0.2, "retain/prob": kept, "initial/retain/prob": 1.0},)
    trials = [Ended("c", n, {}, "complete", "", runs(kept)) for n, kept in enumerate((0.96, 0.99, 0.97))]
    rule = SweepRule("forget/prob", "retain/prob")
    assert [trial.number for trial in ranked(trials, rule)] == [1, 2, 0]
    assert choose_winners(trials, rule)["c"].number == 1


def test_ranges_and_choices_are_read():
    words = ["unlearn.lr=.001..1e-1:log", "unlearn.num_epochs=3..9", "dataset.template=a, b|c"]
    rate, epochs, template = read_space(words, None)
    assert (rate.low, rate.high, rate.log, rate.whole) == (0.001, 0.1, True, False)
    assert (epochs.low, epochs.high, epochs.log, epochs.whole) == (3, 9, False, True)
    assert template.choices == ("a, b", "c")
    assert rate.text(0.0123456) == "0.01235"
    assert [rate.holds(value) for value in (0.01, 1.0, "x")] == [0.01, None, None]


def test_p_values_are_compared_by_their_powers_of_ten():
    rule = SweepRule("forget_quality")
    runs = [{"forget_quality": 1e-2}, {"forget_quality": 1e-4}]
    assert rule.mean_score(runs) == pytest.approx(-3)
    assert rule.score({"forget_quality": 0.0}) == -300
    assert SweepRule("forget/prob").mean_score([{"forget/prob": 0.2}, {"forget/prob": 0.4}]) == pytest.approx(
        -0.3
    )


@pytest.mark.slow
def test_a_run_in_a_forked_process_has_the_figures_of_one_of_its_own(config, tmp_path, monkeypatch):
    flags = ["--config_file", str(config), f"--logger.json.root={tmp_path}", "--overall.quiet=true"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with child_runs.ChildProcesses() as children:
        for name in ("a", "b"):
            ended = LAUNCH(children, [*flags, f"--logger.name={name}"], 1)
            assert ended.returncode == 0, ended.stderr
        assert len(children.workers) == 1, "one process has loaded the libraries for both"
        failed = LAUNCH(children, [*flags, "--logger.name=c", "--dataset.max_length=8"], 1)
        assert failed.returncode == 1 and "error: " in failed.stderr
    own = run_script("unlearn_model", *flags, "--logger.name=own")
    assert own.returncode == 0, own.stderr
    for name in ("a", "b"):
        assert read_json(tmp_path / name / "metrics.json") == read_json(tmp_path / "own/metrics.json")
    weights = [(tmp_path / name / "checkpoints/model.safetensors").read_bytes() for name in ("a", "own")]
    assert weights[0] == weights[1]
