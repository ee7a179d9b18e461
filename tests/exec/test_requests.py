"""run_requests.py: each request starts where the one before it ended, and what is done is not repeated."""

import csv
import json

import pytest
from scripts import run_script

from unlearnkit.core.files import read_json
from unlearnkit.exec import child_runs

pytestmark = pytest.mark.run
REQUESTS = ["Fictional_forget01", "Fictional_forget05"]


@pytest.fixture(autouse=True)
def _runs_in_this_process(monkeypatch):
    launch = lambda children, words, threads: run_script("unlearn_model", *words)
    monkeypatch.setattr(child_runs.ChildProcesses, "launch", launch)


@pytest.fixture
def config(tiny_model_folder, tmp_path):
    path = tmp_path / "npo.json"
    tree = {
        "overall": {"model_name": str(tiny_model_folder), "cache_dir": str(tmp_path / "cache")},
        "unlearn": {"unlearn_method": "NPO+FT", "max_steps": 2, "lr": 1e-2},
        "dataset": {"forget_ratio": 4, "batch_size": 2, "retain_dataset_name": "Fictional_retain90"},
        "evaluate": {"metrics": ["forget/prob", "retain/prob"], "rows": 2, "bootstrap": 20},
    }
    path.write_text(json.dumps(tree))
    return path


def ask(config, tmp_path, *words):
    place = ["--name", "r", "--root", tmp_path, "--config", config]
    return run_script("run_requests", *place, "--metrics", "forget/prob", "retain/prob", *words)


def figures(tmp_path):
    with (tmp_path / "r/table.csv").open() as file:
        return {row["run"]: float(row["forget/prob"]) for row in csv.DictReader(file)}


def test_requests_follow_each_other_or_start_alike(config, tmp_path):
    chain = ask(config, tmp_path, "--requests", *REQUESTS)
    assert chain.returncode == 0, chain.stderr
    first, second = (tmp_path / "r" / f"{number}-{name}" for number, name in enumerate(REQUESTS, 1))
    assert read_json(second / "config.json")["overall"]["model_name"] == str(first / "checkpoints")
    after = figures(tmp_path)
    titles = ["before", *(f"{number}: {name}" for number, name in enumerate(REQUESTS, 1))]
    assert list(after) == titles
    assert after[titles[1]] == read_json(first / "metrics.json")["forget/prob"]
    assert (tmp_path / "r/requests.png").read_bytes().startswith(b"\x89PNG")
    chained = read_json(second / "metrics.json")
    again = ask(config, tmp_path, "--requests", *REQUESTS)
    assert again.stderr.count("already complete") == 2
    separate = ask(config, tmp_path, "--separate", "--requests", *REQUESTS)
    assert "1: Fictional_forget01: already complete" in separate.stderr
    assert "2: Fictional_forget05: running" in separate.stderr
    assert read_json(second / "metrics.json") != chained


@pytest.mark.slow
def test_what_follows_a_repeated_request_is_repeated_too(config, tmp_path):
    assert ask(config, tmp_path, "--requests", *REQUESTS).returncode == 0
    # As after a kill between the two: the first has been done again, the second not yet.
    (tmp_path / "r" / f"1-{REQUESTS[0]}" / "environment.json").touch()
    again = ask(config, tmp_path, "--requests", *REQUESTS)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("already complete") == 1
    assert "2: Fictional_forget05: running" in again.stderr


@pytest.mark.parametrize(
    "words, message",
    [
        (["--requests", "Fictional_forget99"], "has no split 'forget99'"),
        (["--requests", "Fictional_retain90"], "cannot be forgotten"),
        (["--requests", *REQUESTS, "fictional_FORGET01"], "--requests: Fictional_forget01 is named 2 times"),
        (["--requests", *REQUESTS, "--set", "overall.model_name=x"], "is the model of the config"),
        (["--requests", *REQUESTS, "--set", "unlearn.unlearn_method=FT"], "FT forgets nothing"),
        (["--requests", *REQUESTS, "--metrics", "forget/porb"], "--metrics: unknown forget/porb"),
    ],
)
def test_wrong_requests_are_refused_before_anything_starts(words, message, config, tmp_path):
    run = ask(config, tmp_path, *words)
    assert run.returncode == 2
    assert message in run.stderr
    assert not list((tmp_path / "r").glob("1-*"))


def test_a_request_that_fails_is_named_and_those_behind_it_wait(config, tmp_path, monkeypatch):
    failed = lambda children, words, threads: child_runs.ExitState(1, "error: the disk is full\n")
    monkeypatch.setattr(child_runs.ChildProcesses, "launch", failed)
    run = ask(config, tmp_path, "--requests", *REQUESTS)
    assert run.returncode == 1
    assert "1: Fictional_forget01: error: the disk is full" in run.stderr
    assert "2:" not in run.stderr
