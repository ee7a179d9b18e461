"""Rows of a user's folder: what is wrong is named by file, line and field."""

import json

import pytest
from scripts import run_script

from unlearnkit.core.files import UserError
from unlearnkit.dataset import ForgetSet, load_evaluation, load_rows

ROW = {"question": "Who taught Orlo?", "answer": "Fitch did."}


def write(folder, *rows, file="forget.jsonl"):
    (folder / file).write_text("\n" + "".join(json.dumps(row) + "\n" for row in (ROW, *rows)))


@pytest.mark.parametrize(
    "row, expected",
    [
        ({"question": 5}, "line 3: 'question' must be a text with words in it, got 5"),
        ({"answer": ["A"]}, r"line 3: 'answer' must be a text with words in it, got \['A'\]"),
        ({"answer": " "}, "line 3: 'answer' must be a text with words in it, got ' '"),
        ({"id": 7.5}, "line 3: 'id' must be a text with words in it, got 7.5"),
        ({"cot": True}, "line 3: 'cot' must be a text with words in it, got true"),
        ({"key": 1.5}, "line 3: 'key' must be a text with words in it, got 1.5"),
        ({"perturbed_answer": "A"}, "line 3: 'perturbed_answer' must be a list of texts, got 'A'"),
        ({"perturbed_answer": []}, r"line 3: 'perturbed_answer' must be a list of texts, got \[\]"),
        ({"rephrased_questions": ["Q", 1]}, r"line 3: 'rephrased_questions' must be a list of texts"),
        ({"facts": "x"}, "line 3: 'facts' must be a list of texts, got 'x'"),
        ({"paraphrased_answer": "\ud83d"}, r"line 3, column \d+: \\ud83d is half of a character"),
        ({"perturbed_answer": ["A", "\udc00"]}, r"line 3, column \d+: \\udc00 is half of a character"),
        ({"text": "A page."}, "line 3: needs question and answer, or text alone"),
        ({"text": "A page.", "answer": None}, "line 3: needs question and answer, or text alone"),
        ({"question": None}, "line 3: needs question and answer, or text alone"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(row, expected, tmp_path):
    write(tmp_path, ROW | row)
    with pytest.raises(UserError, match=f"forget.jsonl, {expected}"):
        load_rows("Folder_forget", tmp_path)
    write(tmp_path)
    write(tmp_path, ROW | row, file="retain_eval.jsonl")
    with pytest.raises(UserError, match=f"retain_eval.jsonl, {expected}"):
        load_evaluation(ForgetSet("Folder_forget", tmp_path))


def test_optional_fields_that_are_null_are_not_there(tmp_path):
    """Tables have null where a row lacks a field."""
    write(tmp_path, ROW | {"text": None, "perturbed_answer": None, "id": None})
    assert load_rows("Folder_forget", tmp_path)[1] == {"id": "forget-1", **ROW}


@pytest.mark.parametrize(
    "name, file, right, wrong, expected",
    [
        ("Tofu_forget01", "forget01.json", ROW, {"answer": None}, "'answer' must be a text .* got null"),
        ("Tofu_forget01", "forget01.json", ROW, {"perturbed_answer": 1}, "'perturbed_answer' must be a list"),
        ("MuseNews_forget", "raw_forget.jsonl", {"text": "A page."}, {"text": 5}, "'text' must be a text"),
        ("Wmdp_bio_forget", "bio_forget.jsonl", {"text": "long " * 20}, {"text": None}, "got null"),
        ("Star1_full", "star1.jsonl", {"question": "Q", "response": "R"}, {"response": 1}, "published form"),
        (
            "Reasoning_limo",
            "limo.jsonl",
            {"question": "Q", "solution": "S", "answer": 7},
            {"answer": True},
            "published form",
        ),
    ],
)
def test_tables_of_every_source_name_the_line(name, file, right, wrong, expected, tmp_path):
    (tmp_path / file).write_text(json.dumps(right) + "\n")
    assert len(load_rows(name, tmp_path)) == 1
    (tmp_path / file).write_text(json.dumps(right) + "\n" + json.dumps(right | wrong) + "\n")
    with pytest.raises(UserError, match=f"{file}, line 2: .*{expected}"):
        load_rows(name, tmp_path)


@pytest.mark.parametrize("wrong", [{"answer": 4}, {"answer": True}, {"choices": ["a"]}, {"choices": [1, 2]}])
def test_multiple_choice_questions_have_a_right_choice(wrong, tmp_path):
    asked = {"question": "Which?", "choices": ["a lock", "a key", "a door", "a wall"], "answer": 2}
    (tmp_path / "cyber_forget.jsonl").write_text(json.dumps({"text": "long " * 20}) + "\n")
    (tmp_path / "questions_cyber.jsonl").write_text(json.dumps(asked) + "\n" + json.dumps(asked | wrong))
    with pytest.raises(UserError, match=f"questions_cyber.jsonl, line 2: '{next(iter(wrong))}' must be"):
        load_evaluation(ForgetSet("Wmdp_cyber_forget", tmp_path))


@pytest.mark.run
def test_a_run_ends_with_one_line(tiny_model_folder, tmp_path):
    for name in ("forget", "retain"):
        write(tmp_path, ROW | {"question": f"Who, {name}? \ud83d"}, file=f"{name}.jsonl")
    words = ["--overall.model_name", tiny_model_folder, "--dataset.data_dir", tmp_path]
    words += ["--logger.json.root", tmp_path / "out", "--logger.name", "run"]
    ended = run_script(
        "evaluate_model",
        *words,
        *"--dataset.forget_dataset_name Folder_forget --dataset.retain_dataset_name Folder_retain".split(),
    )
    assert ended.returncode == 1
    assert f"error: {tmp_path / 'forget.jsonl'}, line 3, column" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()
