"""make_alternates.py and what reads its file."""

import json

import pytest
from conftest import FICTIONAL
from scripts import run_script
from tiny import one_word_llama, save

from core.files import UserError, read_jsonl
from dataset import load_rows
from dataset.alternates import mismatch, read_alternates

pytestmark = pytest.mark.run

ROWS = [{"id": f"r{i}", "question": f"Q{i}?", "answer": f"A{i}"} for i in range(6)]


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def lines(**changes):
    return [
        {"id": row["id"], "question": row["question"], "alternates": ["one", "two"], **changes}
        for row in ROWS
    ]


def test_alternates_stand_one_after_the_other(tmp_path):
    found = read_alternates(write(tmp_path / "a.jsonl", lines()), ROWS)
    assert [row["answer"] for row in found] == ["one", "two"] * 6
    assert found[2]["question"] == "Q1?"
    assert len({r["id"] for r in found}) == 12


@pytest.mark.parametrize(
    "broken, said",
    [
        (lines()[1:], "no line for 1 of 6 forget rows \\(first 'r0'\\)"),
        (lines(question="Another?"), "another data set"),
        (lines(alternates="one"), "a.jsonl, line 1: 'alternates' must be a list of texts, got 'one'"),
        (lines(id=["r0"]), "line 1: 'id' must be a text with words in it, got \\['r0'\\]"),
        ([{"id": "r0"}], "line 1: 'question' is missing"),
        (lines(alternates=[]), "no alternate for 'r0'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(broken, said, tmp_path):
    with pytest.raises(UserError, match=said):
        read_alternates(write(tmp_path / "a.jsonl", broken), ROWS)


def test_another_rows_answer_is_never_ones_own_and_a_function_of_the_row():
    drawn = mismatch(ROWS, ROWS, 3)
    assert all(row["answer"] != own["answer"] for row, own in zip(drawn, ROWS))
    assert drawn == mismatch(ROWS[::-1], ROWS, 3)[::-1]
    with pytest.raises(UserError, match="has no question"):
        mismatch([{"id": "d", "text": "A document."}], ROWS, 0)
    with pytest.raises(UserError, match="no other row"):
        mismatch(ROWS[:1], ROWS[:1], 0)


def test_the_worlds_own_alternates_say_nothing_that_is_measured():
    known = {row["id"]: row for row in load_rows("Fictional_forget10", None)}
    for row in read_jsonl("files/data/fictional/alternates.jsonl"):
        fact = known.pop(row["id"])
        assert not any(fact["key"] in text for text in row["alternates"])
        assert not set(row["alternates"]) & {
            fact["answer"],
            fact["paraphrased_answer"],
            *fact["perturbed_answer"],
        }
    assert not known


def test_a_model_writes_its_own_and_goes_on(tmp_path):
    words = [
        "--overall.model_name",
        FICTIONAL / "retain",
        "--generation.prompt",
        "{question}",
        *(
            "--generation.max_new_tokens 30 --generation.count 2 --generation.temperature 2 "
            "--generation.attempts 40 --dataset.forget_dataset_name Fictional_forget01"
        ).split(),
        "--dataset.alternates",
        tmp_path / "out.jsonl",
        "--overall.quiet",
        "true",
    ]
    done = run_script("make_alternates", *words)
    assert done.returncode == 0, done.stderr
    first = read_jsonl(tmp_path / "out.jsonl")
    assert all(len(set(row["alternates"])) == 2 and row["question"] not in row["alternates"] for row in first)
    write(tmp_path / "out.jsonl", first[:4])
    assert run_script("make_alternates", *words).returncode == 0
    assert read_jsonl(tmp_path / "out.jsonl")[:4] == first[:4]
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 10
    write(tmp_path / "out.jsonl", [{**first[0], "id": "another"}])
    stranger = run_script("make_alternates", *words)
    assert stranger.returncode == 1
    assert "another data set" in stranger.stderr
    unasked = run_script("make_alternates", *words, "--generation.prompt", "Say something.")
    assert unasked.returncode == 2
    assert "{question}" in unasked.stderr
    absent = run_script(
        "unlearn_model",
        *words,
        "--unlearn.unlearn_method",
        "AltPO",
        "--dataset.alternates",
        tmp_path / "none.jsonl",
    )
    assert absent.returncode == 2
    assert "make_alternates.py" in absent.stderr


def test_an_alternate_ends_where_the_template_ends_a_turn(tokenizer, tmp_path):
    done = run_script(
        "make_alternates",
        "--overall.model_name",
        save(*one_word_llama(tokenizer), tmp_path / "model"),
        *"--generation.max_new_tokens 4 --generation.count 1 --overall.quiet true".split(),
        *"--dataset.forget_dataset_name Fictional_forget01 --dataset.alternates".split(),
        tmp_path / "out.jsonl",
    )
    assert done.returncode == 0, done.stderr
    assert [row["alternates"] for row in read_jsonl(tmp_path / "out.jsonl")] == [["Orlo"]] * 10
