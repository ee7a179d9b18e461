"""run_grid.py: planned as a whole, resumable, honest about what failed."""

import csv
import json
from concurrent.futures import Executor, Future

import pytest
from scripts import run_script

from core.files import read_json
from exec import run_grid

pytestmark = pytest.mark.run


class InTurn(Executor):
    """Runs what is submitted at once: two threads would capture each other's output."""

    def submit(self, fn, /, *args, **kwargs):
        done = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@pytest.fixture(autouse=True)
def _runs_in_this_process(monkeypatch):
    """Children of its own, two at a time, are what tests/exec/test_scripts.py starts."""
    monkeypatch.setattr(run_grid, "launch", lambda words, threads: run_script("unlearn_model", *words))
    monkeypatch.setattr(run_grid, "ThreadPoolExecutor", lambda jobs: InTurn())


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
    assert "4 runs, 0 are there already" in first.stderr
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
    assert "4 runs, 3 are there already" in again.stderr
    assert again.stdout.splitlines()[0] == first.stdout.splitlines()[0]
    assert (tmp_path / "g/npo,beta=1,seed=0/environment.json").stat().st_mtime_ns == started
    changed = grid(config, tmp_path, *words, "--set", "unlearn.lr=2e-3")
    assert "4 runs, 0 are there already" in changed.stderr


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


@pytest.mark.parametrize(
    "words, said",
    [
        (["--vary", "unlearn.NPO.beta=.1,-1"], "unlearn.NPO.beta: expected a number above 0"),
        (["--vary", "unlearn.NPO.bata=.1"], "did you mean unlearn.NPO.beta"),
        (["--vary", "unlearn.lr"], "expected key=value"),
        (["--vary", "overall.seed=0,1"], "overall.seed: is what --seeds sets"),
        (["--set", "overall.logger=none"], "a grid needs the run folders"),
        (["--seeds", "1", "1"], "same run twice"),
        (["--jobs", "0"], "--jobs"),
        (["--metrics", "forget/porb"], "unknown forget/porb"),
    ],
)
def test_what_cannot_be_right_is_said_before_anything_starts(words, said, config, tmp_path):
    done = grid(config, tmp_path, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "g").exists()
