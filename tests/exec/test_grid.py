"""run_grid.py: planned as a whole, resumable, honest about what failed."""

import csv
import fcntl
import json
import os
import signal
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from scripts import Forked, die_at_change, mounted, run_script, wait_until

from unlearnkit.core.files import read_json, write_json
from unlearnkit.exec import child_runs, many_runs
from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
from unlearnkit.model.report.grid_table import FACTS

pytestmark = pytest.mark.run
LAUNCH = child_runs.ChildProcesses.launch


class InTurn(Executor):
    """Runs what is submitted at once: two threads would capture each other's output."""

    def submit(self, fn, /, *args, **kwargs):
        done = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@pytest.fixture(autouse=True)
def _runs_in_this_process(monkeypatch):
    """Children of its own, two at a time, are what tests/exec/test_scripts.py starts."""
    launch = lambda children, words, threads: run_script("unlearn_model", *words)
    monkeypatch.setattr(child_runs.ChildProcesses, "launch", launch)
    monkeypatch.setattr(many_runs, "ThreadPoolExecutor", lambda jobs: InTurn())


def finish(children, words, threads):
    """In place of a run: the files of a finished one, in no time."""
    flags = dict(word.removeprefix("--").split("=", 1) for word in words[2:])
    settings = resolve_settings(StrictConfig(), [words[1]], flags, {})
    folder = Path(flags["logger.json.root"]) / flags["logger.name"]
    write_json(folder / "config.json", settings.resolved())
    write_json(folder / "metrics.json", {"forget/prob": 0.5})
    write_json(folder / "environment.json", dict.fromkeys(FACTS.values(), 1))
    return child_runs.ExitState(0, "")


@pytest.fixture
def config(tiny_model_folder, tmp_path):
    path = tmp_path / "npo.json"
    path.write_text(
        json.dumps(
            {
                "overall": {"model_name": str(tiny_model_folder), "cache_dir": str(tmp_path / "cache")},
                "unlearn": {"unlearn_method": "NPO+FT", "max_steps": 2, "lr": 1e-3},
                "dataset": {"forget_ratio": 4, "batch_size": 2},
                "evaluate": {
                    "metrics": ["forget/prob", "retain/prob"],
                    "before": False,
                    "rows": 2,
                    "bootstrap": 0,
                },
            }
        )
    )
    return path


def grid(config, tmp_path, *words):
    return run_script(
        "run_grid",
        "--name",
        "g",
        "--root",
        tmp_path,
        "--configs",
        config,
        *"--metrics forget/prob seconds".split(),
        *words,
    )


def table(tmp_path) -> list[dict]:
    with (tmp_path / "g/table.csv").open() as file:
        return list(csv.DictReader(file))


def test_runs_are_made_once_tabulated_and_made_again_when_a_setting_changes(config, tmp_path):
    words = "--vary unlearn.NPO.beta=.1,1 --seeds 0 1".split()
    first = grid(config, tmp_path, *words)
    assert first.returncode == 0, first.stderr
    assert "4 runs, 0 already complete" in first.stderr
    assert "npo,beta=1 " in first.stdout
    assert "±" in first.stdout
    runs = sorted(path.parent.name for path in tmp_path.glob("g/*/metrics.json"))
    assert runs == sorted(f"npo,beta={beta},seed={seed}" for beta in (".1", "1") for seed in (0, 1))
    values = [
        read_json(tmp_path / f"g/npo,beta=1,seed={seed}/metrics.json")["forget/prob"] for seed in (0, 1)
    ]
    row = next(row for row in table(tmp_path) if row["run"] == "npo,beta=1")
    assert float(row["forget/prob"]) == pytest.approx(sum(values) / 2)
    assert row["forget/prob n"] == "2"
    assert values[0] != values[1]
    assert read_json(tmp_path / "g/npo,beta=1,seed=1/config.json")["dataset"]["dataset_seed"] == 1

    (tmp_path / "g/npo,beta=.1,seed=0/environment.json").unlink()
    started = (tmp_path / "g/npo,beta=1,seed=0/environment.json").stat().st_mtime_ns
    again = grid(config, tmp_path, *words)
    assert "4 runs, 3 already complete" in again.stderr
    assert again.stdout.splitlines()[0] == first.stdout.splitlines()[0]
    assert (tmp_path / "g/npo,beta=1,seed=0/environment.json").stat().st_mtime_ns == started
    changed = grid(config, tmp_path, *words[:3], "0", "--set", "unlearn.lr=2e-3")
    assert "2 runs, 0 already complete" in changed.stderr


def test_odd_values_reach_the_runs(config, tmp_path):
    done = grid(
        config,
        tmp_path,
        "--vary",
        "dataset.template=Q: {question}\\nA, :|qa",
        *"--set unlearn.unlearn_method=SimNPO+FT unlearn.SimNPO.margin=-1e-1".split(),
    )
    assert done.returncode == 0, done.stderr
    made = sorted(read_json(path)["dataset"]["template"] for path in tmp_path.glob("g/*/config.json"))
    assert made == ["Q: {question}\\nA, :", "qa"]


def test_a_run_that_fails_is_named_and_the_others_stand(config, tmp_path):
    done = grid(config, tmp_path, "--vary", "dataset.max_length=8,512")
    assert done.returncode == 1
    assert "more than dataset.max_length 8" in done.stderr
    assert "1 failed" in done.stdout
    rows = {row["run"]: row for row in table(tmp_path)}
    assert rows["npo,max_length=8"]["failed"] == "1"
    assert rows["npo,max_length=8"]["forget/prob"] == ""
    assert rows["npo,max_length=512"]["failed"] == "0"
    assert float(rows["npo,max_length=512"]["forget/prob"]) > 0


@pytest.mark.parametrize("there", ["no runs there", "all runs there"])
@pytest.mark.parametrize("number", range(1, 11))
def test_a_grid_killed_at_any_change_goes_on(number, there, config, tmp_path, monkeypatch):
    monkeypatch.setattr(child_runs.ChildProcesses, "launch", finish)
    words = ["--name", "g", "--root", tmp_path, "--configs", config, *"--seeds 0 1 --metrics seconds".split()]
    if there == "all runs there":
        assert run_script("run_grid", *words).returncode == 0
    killed = Forked("run_grid", *words, log=tmp_path / "log", before=die_at_change(number, tmp_path / "g"))
    assert killed.ended.returncode == -signal.SIGKILL, killed.ended
    again = run_script("run_grid", *words)
    assert again.returncode == 0, again.stderr
    assert table(tmp_path)[0]["seconds n"] == "2"
    assert len(list(tmp_path.glob("g/*/environment.json"))) == 2
    assert not list(tmp_path.glob("g/**/.*")) + list(tmp_path.glob("g/lock"))


def test_a_run_that_was_killed_while_it_was_overwritten_is_made_again(config, tmp_path, monkeypatch):
    """Of an earlier run its config.json goes first."""
    monkeypatch.setattr(child_runs.ChildProcesses, "launch", finish)
    assert grid(config, tmp_path).returncode == 0
    (tmp_path / "g/npo,seed=0/config.json").unlink()
    again = grid(config, tmp_path)
    assert again.returncode == 0, again.stderr
    assert "1 runs, 0 already complete" in again.stderr


def test_step_checkpoints_that_a_kill_left_in_a_whole_run_are_removed(config, tmp_path, monkeypatch):
    monkeypatch.setattr(child_runs.ChildProcesses, "launch", finish)
    assert grid(config, tmp_path).returncode == 0
    left = tmp_path / "g/npo,seed=0/checkpoints/step-2"
    left.mkdir(parents=True)
    (left / "complete").touch()
    assert grid(config, tmp_path).returncode == 0
    assert not left.exists()


SLOW_RUN = """
import fcntl, sys, time
name = next(word.split("=", 1)[1] for word in sys.argv if word.startswith("--logger.name="))
held = open(name + ".held", "w")
fcntl.flock(held, fcntl.LOCK_EX)
open(name + ".begun", "w").close()
time.sleep(600)
"""
"""A run that holds a lock for longer than any test."""


def begin_slow_runs(folder: Path) -> None:
    """Patch this process: it starts processes again, two at a time, whose runs take long."""
    (folder / "slow.py").write_text(SLOW_RUN)
    child_runs.SCRIPT = folder / "slow.py"
    child_runs.ChildProcesses.launch, many_runs.ThreadPoolExecutor = LAUNCH, ThreadPoolExecutor
    os.chdir(folder)


def is_free(path: Path) -> bool:
    """Has every process ended that held this file locked?"""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_the_runs_of_a_grid_end_with_it_and_the_same_command_resumes(
    number, code, config, tmp_path, monkeypatch
):
    words = ["--name", "g", "--root", tmp_path, "--configs", config, *"--seeds 0 1 2 --jobs 2".split()]
    slow = lambda: begin_slow_runs(tmp_path)
    started = Forked("run_grid", *words, log=tmp_path / "log", before=slow)
    begun = lambda: list(tmp_path.glob("*.begun"))
    wait_until(lambda: len(begun()) == 2 or not started.is_running)
    os.kill(started.pid, number)
    assert started.ended.returncode == code, started.ended
    held = list(tmp_path.glob("*.held"))
    assert len(held) == 2
    wait_until(lambda: all(map(is_free, held)), 20)
    assert len(begun()) == 2
    if number != signal.SIGKILL:
        assert "interrupted; the same command resumes" in started.ended.stderr
    monkeypatch.setattr(child_runs.ChildProcesses, "launch", finish)
    again = run_script("run_grid", *words)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    "root, name, expected",
    [
        ("file", "g", "cannot be written (Not a directory); choose another --root or --name"),
        (".", "x" * 300, "cannot be written (File name too long); choose another --root or --name"),
        ("~nosuchuser", "g", "is not the home of any user"),
    ],
)
def test_a_place_that_takes_no_grid_is_one_clear_line(root, name, expected, config, tmp_path):
    (tmp_path / "file").touch()
    place = root if root.startswith("~") else tmp_path / root
    done = run_script("run_grid", "--name", name, "--root", place, "--configs", config)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_read_only_root_is_one_clear_line(config, tmp_path):
    with mounted(tmp_path / "disk", "ro"):
        done = run_script("run_grid", "--name", "g", "--root", tmp_path / "disk", "--configs", config)
    assert done.returncode == 2
    line = f"{tmp_path}/disk/g: cannot be written (Read-only file system); choose another --root or --name"
    assert done.stderr == f"error: {line}\n"


def test_a_full_disk_is_one_clear_line(config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        child_runs.ChildProcesses, "launch", lambda *_: child_runs.ExitState(1, "error: no space")
    )
    with mounted(tmp_path / "disk", "size=4k"):
        (tmp_path / "disk/full").write_bytes(bytes(4096))
        done = run_script("run_grid", "--name", "g", "--root", tmp_path / "disk", "--configs", config)
    assert done.returncode == 2
    assert "cannot be written (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr


def test_values_too_long_for_a_folders_name_give_runs_of_their_own(config, tmp_path, monkeypatch):
    monkeypatch.setattr(child_runs.ChildProcesses, "launch", finish)
    templates = "|".join(f"{'long ' * 60}{{question}} {n}:" for n in range(2))
    for there in (0, 2):
        done = grid(config, tmp_path, "--vary", f"dataset.template={templates}")
        assert done.returncode == 0, done.stderr
        assert f"2 runs, {there} already complete" in done.stderr
    assert max(len(path.name) for path in (tmp_path / "g").iterdir()) <= 200


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--vary", "unlearn.NPO.beta=.1,-1"], "unlearn.NPO.beta: expected a number above 0"),
        (["--vary", "unlearn.NPO.bata=.1"], "did you mean unlearn.NPO.beta"),
        (["--vary", "unlearn.lr"], "expected key=value"),
        (["--vary", "overall.seed=0,1"], "overall.seed: is set by --seeds"),
        (["--set", "overall.logger=none"], "a grid needs the run folders"),
        (["--seeds", "1", "1"], "same run twice"),
        (["--jobs", "0"], "--jobs"),
        (["--metrics", "forget/porb"], "unknown forget/porb"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(words, expected, config, tmp_path):
    done = grid(config, tmp_path, *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "g").exists()
