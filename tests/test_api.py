"""From Python as from the command line: the same settings, checks and figures."""

import json

import pytest
from conftest import FICTIONAL, REPO
from scripts import run_script
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearnkit.api import evaluate, unlearn
from unlearnkit.core.files import UserError

TABLE = [json.loads(line) for line in (REPO / "files/data/fictional/full.jsonl").read_text().splitlines()]
ROWS = [{"question": row["question"], "answer": row["answer"]} for row in TABLE]
FORGET, RETAIN = ROWS[-8:], ROWS[:24]
TARGET = str(FICTIONAL / "target")
QUICK = {"unlearn.lr": 1e-3, "unlearn.max_steps": 2, "evaluate.bootstrap": 0, "overall.quiet": True}


@pytest.fixture
def quick(tmp_path):
    return QUICK | {"overall.cache_dir": str(tmp_path / "cache")}


@pytest.mark.run
def test_a_run_is_that_of_the_script(tmp_path, quick):
    result = unlearn(TARGET, FORGET, RETAIN, "NPO+FT", tmp_path / "mine", **quick)
    assert result.folder == tmp_path / "mine" and result.before["forget/prob"] > 0.99
    assert result.metrics["forget/prob"] < result.before["forget/prob"]
    assert result.metrics["forget_quality"] is None and result.detail["forget_quality"]["reason"]
    assert not result.model.training and result.tokenizer.get_vocab()
    config = ["--config_file", result.folder / "config.json", "--logger.name", "again"]
    again = run_script("unlearn_model", *config)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "again/metrics.json").read_text()) == result.metrics


@pytest.mark.run
def test_a_loaded_model_stays_as_it_is_and_rows_may_be_a_dataset(tmp_path, quick):
    from datasets import Dataset

    model = AutoModelForCausalLM.from_pretrained(TARGET)
    tokenizer = AutoTokenizer.from_pretrained(TARGET)
    before = [p.clone() for p in model.parameters()]
    result = unlearn((model, tokenizer), Dataset.from_list(FORGET), None, "GA", tmp_path / "mine", **quick)
    assert all((p == old).all() for p, old in zip(model.parameters(), before))
    assert result.metrics["forget/prob"] < result.before["forget/prob"]
    keys = {key: value for key, value in quick.items() if not key.startswith("unlearn")}
    measured = evaluate((result.model, tokenizer), FORGET, output=tmp_path / "measured", **keys)
    assert measured.metrics["forget/prob"] == pytest.approx(result.metrics["forget/prob"], abs=1e-6)
    assert measured.before is None and measured.metrics["retain/prob"] is None


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model": "nowhere"}, "overall.model_name: there is no folder nowhere"),
        ({"model": 3}, "model: expected a folder, a hub name or a pair"),
        ({"forget": "no.jsonl"}, "forget: no.jsonl is not a file of rows"),
        ({"forget": 3}, "forget: expected a file, a list of dicts"),
        ({"forget": []}, "forget: there are no rows"),
        ({"forget": [{"q": 1}]}, "forget.jsonl, line 1"),
        ({"retain": None}, "retain: NPO\\+FT trains on rows to keep"),
        ({"retain": "Fictional_retain90"}, "one is the name of a data set"),
        ({"method": "NPO+FTT"}, "did you mean NPO\\+FT"),
        ({"unlearn.lrr": 1}, "unknown key 'unlearn.lrr'"),
        ({"unlearn.lr": -1}, "unlearn.lr: expected a number above 0"),
        (
            {"forget": [{"question": "Who?", "answer": float("nan")}]},
            "forget: row 0 cannot be written as JSON",
        ),
        ({"forget": [{"question": "Who?", "answer": {1}}]}, "forget: row 0 cannot be written as JSON"),
        ({"output": "."}, "output: expected the path of a run folder"),
        ({"output": 3}, "output: expected the path of a run folder"),
    ],
)
def test_wrong_input_is_refused_and_leaves_nothing(change, words, tmp_path, quick):
    given = {"model": TARGET, "forget": FORGET, "retain": RETAIN, "method": "NPO+FT"} | quick | change
    with pytest.raises(UserError, match=words):
        unlearn(**{"output": tmp_path / "mine"} | given)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


@pytest.mark.run
def test_an_output_that_is_used_again_holds_the_rows_of_its_last_call(tmp_path, quick):
    keys = {key: value for key, value in quick.items() if not key.startswith("unlearn")}
    again = keys | {"logger.overwrite": True}
    evaluate(TARGET, FORGET, RETAIN, output=tmp_path / "mine", **keys)
    with pytest.raises(UserError, match="mine already"):
        evaluate(TARGET, FORGET[:2], output=tmp_path / "mine", **keys)
    with pytest.raises(UserError, match="unknown key"):
        evaluate(TARGET, FORGET[:2], output=tmp_path / "mine", **again, **{"evaluate.rowss": 1})
    rows = tmp_path / "mine-inputs/rows"
    assert len((rows / "forget.jsonl").read_text().splitlines()) == len(FORGET)
    result = evaluate(TARGET, FORGET[:2], output=tmp_path / "mine", **again)
    assert result.metrics["retain/prob"] is None and not (rows / "retain.jsonl").exists()
    assert result.detail["forget/prob"]["n"] == 2


@pytest.mark.run
def test_an_interrupted_run_is_resumed_on_the_same_rows_alone(tmp_path, quick, monkeypatch):
    from unlearnkit.unlearn.step.trainer import UnlearnTrainer

    keys = quick | {"unlearn.max_steps": 3, "unlearn.save_steps": 1}
    end_step, steps = UnlearnTrainer._end_step, []

    def stop(self, counts):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        end_step(self, counts)

    monkeypatch.setattr(UnlearnTrainer, "_end_step", stop)
    with pytest.raises(KeyboardInterrupt):
        unlearn(TARGET, FORGET, RETAIN, "NPO+FT", tmp_path / "mine", **keys)
    resumed = keys | {"unlearn.resume_path": "auto"}
    with pytest.raises(UserError, match="the run began with other rows"):
        unlearn(TARGET, FORGET[:3], RETAIN, "NPO+FT", tmp_path / "mine", **resumed)
    result = unlearn(TARGET, FORGET, RETAIN, "NPO+FT", tmp_path / "mine", **resumed)
    assert len((result.folder / "log.jsonl").read_text().splitlines()) == 3


def test_runs_without_an_output_have_folders_of_their_own():
    from unlearnkit.api import _folder

    assert _folder(None) != _folder(None)
