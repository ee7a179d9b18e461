"""forget.py: from rows to an unlearned model, and the messages about wrong rows."""

import json
from random import Random
from types import SimpleNamespace

import pytest
from conftest import FICTIONAL, REPO
from scripts import run_script

from unlearnkit.core.files import read_json, read_jsonl
from unlearnkit.exec.forget_checks import advice
from unlearnkit.model.write.other_subjects import OtherSubjects, proper_names
from unlearnkit.model.write.retain_writer import _fault, _secret

pytestmark = pytest.mark.run
ROW = {"question": "Where was Jasper Nightshade born?", "answer": "It was in Low Ford."}
OTHER = {"question": "Who taught Jasper Nightshade?", "answer": "The weaver Orlo did."}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ask(rows, tmp_path, *words, model=FICTIONAL / "target"):
    place = ["--root", tmp_path, "--name", "f", "--model", model]
    return run_script("forget", rows, *place, *words)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "rows.jsonl: has no rows; a row is"),
        ('{"prompt": "a?", "response": "b"}\n', "question=prompt answer=response names the columns"),
        ('{"question": "a?"}\n', "needs question and answer"),
        ('{"text": "A page."}\n', "has a text and no question"),
        ("{broken\n", "rows.jsonl, line 1"),
    ],
)
def test_wrong_rows_are_one_clear_line(text, expected, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(text)
    done = ask(rows, tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--method", "FT"], "--method: FT trains nothing to forget"),
        (["--method", "NPOO"], "did you mean"),
        (["--floor", "95"], "--floor: expected a share"),
        (["--set", "logger.name=x"], "--set logger.name: is --name"),
        (["--set", "unlearn.lora.rr=3"], "unlearn.lora.r"),
        (["--model", "files/models/none"], "files/models/none"),
        (["--lr", "-1"], "--lr: expected"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(words, expected, tmp_path):
    rows = write(tmp_path / "rows.jsonl", ROW, OTHER)
    done = ask(rows, tmp_path, *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


def test_rows_that_are_also_to_be_kept_are_refused(tmp_path):
    rows, retain = write(tmp_path / "rows.jsonl", ROW, OTHER), write(tmp_path / "keep.jsonl", OTHER)
    done = ask(rows, tmp_path, "--retain", retain)
    assert done.returncode == 2
    assert "1 of its rows are also to be forgotten, first 'Who taught Jasper Nightshade?'" in done.stderr


def test_rows_that_the_model_never_knew_are_not_forgotten(tiny_model_folder, tmp_path):
    rows = write(tmp_path / "rows.jsonl", ROW, ROW, OTHER)
    done = ask(rows, tmp_path, "--set", "evaluate.max_new_tokens=4", model=tiny_model_folder)
    assert done.returncode == 2
    assert "has 1 rows twice; each is taken once" in done.stderr
    assert "2 rows to forget: figures of so few are rough" in done.stderr
    assert "the model knows 0 of 2 rows" in done.stderr
    assert "there is nothing to forget. --anyway goes on" in done.stderr
    assert not list(tmp_path.glob("f*"))


def test_a_request_ends_with_checks_an_adapter_and_what_to_do_next(tmp_path):
    facts = read_jsonl("files/data/fictional/full.jsonl")
    rows = write(
        tmp_path / "rows.jsonl", *({k: row[k] for k in ("question", "answer")} for row in facts[-3:])
    )
    keep = write(tmp_path / "keep.jsonl", *({k: row[k] for k in ("question", "answer")} for row in facts[:3]))
    words = "--epochs 2 --set unlearn.max_steps=2 evaluate.max_new_tokens=12 evaluate.bootstrap=0".split()
    words += ["evaluate.metrics=forget/prob,forget/exact"]
    cache = f"overall.cache_dir={tmp_path / 'cache'}"
    done = ask(rows, tmp_path, "--retain", keep, *words, cache)
    assert done.returncode == 0, done.stderr
    assert "the model knows 3 of 3 rows" in done.stderr
    assert "rows that are answered in some wording: 1.00 -> " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("next: ")
    assert (tmp_path / "f/adapter/adapter_config.json").is_file()
    assert (tmp_path / "f/checkpoints/model.safetensors").is_file()
    used = read_jsonl(tmp_path / "f-inputs/rows/forget.jsonl")
    assert len(used) == 3 and len(used[0]["rephrased_questions"]) == 3
    assert {"forget/exact", "semantic/worst_of_k"} <= read_json(tmp_path / "f/metrics.json").keys()
    again = ask(rows, tmp_path, "--retain", keep, *words, cache)
    assert again.returncode == 2
    assert "already holds a run; choose another --name, or set --overwrite" in again.stderr


BEST, LAST = {"step": 8, "epoch": 2.0}, {"step": 16, "epoch": 4.0}


@pytest.mark.parametrize(
    "best, failed, expected",
    [
        (None, (), "no epoch kept 95%"),
        (BEST, ("forgotten", "kept"), "epochs after 2 kept too little or forgot no more"),
        (
            LAST,
            ("forgotten", "kept"),
            "not all is forgotten; run again under another --name with --epochs 24",
        ),
        (LAST, ("kept",), "too much was lost"),
        (LAST, ("sound",), "answers loop or are broken"),
        (LAST, (), "base is unchanged"),
    ],
)
def test_the_last_line_says_what_to_do_about_what_went_wrong(best, failed, expected):
    outcome = SimpleNamespace(folder="f", best={"best": best, "last": LAST})
    arguments = SimpleNamespace(floor=0.95, epochs=12, name="f", model="base")
    checks = {name: name not in failed for name in ("forgotten", "kept", "sound")}
    assert expected in advice(outcome, arguments, checks)


def test_retain_rows_that_the_model_does_not_know_are_named(tmp_path):
    facts = read_jsonl(REPO / "files/data/fictional/full.jsonl")
    rows, keep = (
        write(tmp_path / name, *({k: row[k] for k in ("question", "answer")} for row in part))
        for name, part in (("rows.jsonl", facts[-3:]), ("keep.jsonl", facts[:2]))
    )
    with keep.open("a") as file:
        file.write(json.dumps({"question": "Who taught Ada Unknown?", "answer": "Grace did, at sea."}) + "\n")
    words = "--epochs 1 --set unlearn.max_steps=1 evaluate.max_new_tokens=12 evaluate.bootstrap=0".split()
    done = ask(rows, tmp_path, "--retain", keep, *words, f"overall.cache_dir={tmp_path / 'cache'}")
    assert done.returncode == 0, done.stderr
    assert "does not know 1 of 3 rows, first 'Who taught Ada Unknown?'" in done.stderr


def test_the_subject_of_a_question_is_replaced_and_put_back():
    names = ["Jasper Nightshade", "Orla Vensk", "Petra Quill", "Ulric Yarrow"]
    others = OtherSubjects([f"Where was {name} born?" for name in names])
    assert proper_names("Where was Orla Vensk's cat in 1990?") == ["Orla Vensk"]
    for seed in range(20):
        found = others.ask("Where was Orla Vensk born in 1990?", Random(seed))
        (other,) = found.names
        assert other not in names and set(other.split()) <= set(" ".join(names).split())
        assert other in found.question and "Vensk b" not in found.question.replace(other, "")
        assert "1990" not in found.question
        assert found.back(f"{other} comes from Rye.") == "Orla Vensk comes from Rye."
    assert others.ask("why is the sky blue?", Random(0)) is None


@pytest.mark.parametrize(
    "text, fault",
    [
        ("It was in High Gate.", None),
        (None, "without an end"),
        ("...", "empty"),
        ("no no no no no no no no", "degenerate"),
        ("Ask Jasper Nightshade.", "about what is to be forgotten"),
        ("It was in Low Ford, I believe.", "states a fact to be forgotten"),
    ],
)
def test_answers_that_hold_what_is_to_be_forgotten_or_are_unsound_are_left_out(text, fault):
    assert _fault("Where was Adela Birch born?", text, [_secret(ROW)]) == fault
