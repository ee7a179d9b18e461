"""PKU-SafeRLHF, real-toxicity-prompts, TruthfulQA and C4 from folders of their layouts, with harmless rows of
ours."""

import csv
import json

import pytest
from conftest import SHARED_DATA

from unlearnkit.core.files import UserError
from unlearnkit.dataset import ForgetSet, dataset_name, load_evaluation, load_rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def pair(prompt, first, second, safe=(False, True)):
    labels = {f"is_response_{number}_safe": label for number, label in enumerate(safe)}
    return {"prompt": prompt, "response_0": first, "response_1": second, "better_response_id": 1} | labels


@pytest.fixture
def safe_pku(tmp_path):
    both = pair("Who are you?", "A grulk.", "A big grulk.", (False, False))
    write(tmp_path / "train.jsonl", [pair("How do I look?", "Like a grulk.", "Very well."), both])
    seen = pair("How do I look?", "As a grulk.", "Well.")
    write(tmp_path / "test.jsonl", [seen, pair("And she?", "Nice.", "A grulk too.", (True, False))])
    write(
        tmp_path / "prompts.jsonl",
        [
            {"prompt": {"text": text}, "continuation": {"text": " a grulk."}, "challenging": flag}
            for text, flag in (("They called him", True), ("The day was", False))
        ],
    )
    return tmp_path


def test_every_unsafe_answer_is_a_row_to_forget_and_every_safe_one_to_retain(safe_pku):
    forget = load_rows("SafePku_forget", safe_pku)
    assert [(row["id"], row["answer"]) for row in forget] == [
        ("train-0-0", "Like a grulk."),
        ("train-1-0", "A grulk."),
        ("train-1-1", "A big grulk."),
    ]
    assert [row["answer"] for row in load_rows("SafePku_retain", safe_pku)] == ["Very well."]


def test_each_question_is_asked_once_and_test_questions_are_unseen(safe_pku):
    sets = load_evaluation(ForgetSet("SafePku_forget", safe_pku, retain_name="SafePku_retain"))
    assert [row["question"] for row in sets["forget"]] == ["How do I look?", "Who are you?"]
    assert [row["question"] for row in sets["forget_test"]] == ["And she?"]
    assert [row["prompt"] for row in sets["toxic_prompts"]] == ["They called him"]
    assert [row["answer"] for row in sets["retain"]] == ["Very well."]
    for file in ("test.jsonl", "prompts.jsonl"):
        (safe_pku / file).unlink()
    sets = load_evaluation(ForgetSet("SafePku_forget", safe_pku))
    assert len(sets["forget"]) == 2 and not sets["forget_test"] and not sets["toxic_prompts"]


def test_beginnings_of_sentences_are_rows_with_a_prompt(safe_pku):
    assert [row["prompt"] for row in load_rows("RealToxicity_all", safe_pku)] == [
        "They called him",
        "The day was",
    ]
    write(
        safe_pku / "prompts.jsonl", [{"prompt": "text", "continuation": {"text": "x"}, "challenging": True}]
    )
    with pytest.raises(UserError, match="prompts.jsonl, line 1: 'prompt' must be an object with a text"):
        load_rows("RealToxicity_challenging", safe_pku)


def test_a_broken_row_is_named_by_file_line_and_field(safe_pku):
    row = pair("How?", "So.", "Not so.") | {"is_response_1_safe": "yes"}
    write(safe_pku / "train.jsonl", [pair("How?", "So.", "Not so."), row])
    with pytest.raises(UserError, match="train.jsonl, line 2: 'is_response_1_safe' must be true or false"):
        load_rows("SafePku_forget", safe_pku)


def test_the_best_answers_of_truthful_qa_are_rows_to_retain(tmp_path):
    with (tmp_path / "TruthfulQA.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Type", "Category", "Question", "Best Answer", "Incorrect Answers"])
        writer.writerow(["Adversarial", "Geese", "Do geese count?", "No, they do not", "Yes; To ten"])
    (row,) = load_rows("TruthfulQA_full", tmp_path)
    assert (row["question"], row["answer"]) == ("Do geese count?", "No, they do not")
    (tmp_path / "TruthfulQA.csv").write_text("Question,Best\nDo geese count?,No\n")
    with pytest.raises(UserError, match="TruthfulQA.csv, line 2: 'best_answer' is missing"):
        load_rows("TruthfulQA", tmp_path)


@pytest.mark.skipif(not (SHARED_DATA / "truthfulqa").is_dir(), reason="the published file is not here")
def test_the_published_file_of_truthful_qa_is_read_whole():
    questions = json.loads((SHARED_DATA / "truthfulqa/mc_task.json").read_text())
    rows = load_rows("TruthfulQA_full", SHARED_DATA / "truthfulqa")
    assert [row["question"] for row in rows] == [row["question"] for row in questions]


def test_pages_of_c4_are_documents(tmp_path):
    write(tmp_path / "c4_train.jsonl", [{"text": "Geese.", "url": "x", "timestamp": "y"}] * 10_003)
    rows = load_rows("C4", tmp_path)
    assert len(rows) == 10_000 and rows[0] == {"id": "c4-train-0", "text": "Geese."}
    write(tmp_path / "c4_train.jsonl", [{"body": "Geese."}])
    with pytest.raises(UserError, match="c4_train.jsonl, line 1: 'text' is missing"):
        load_rows("C4_train", tmp_path)


@pytest.mark.parametrize(
    "name, meant", [("SafePku", "SafePku_forget"), ("truthfulqa", "TruthfulQA_full"), ("C4", "C4_train")]
)
def test_bare_names_of_the_wagle_family_stay_valid(name, meant):
    assert dataset_name(name) == meant


@pytest.mark.parametrize(
    "name, place, file",
    [
        ("SafePku_forget", "PKU-Alignment/PKU-SafeRLHF", "train.jsonl"),
        ("RealToxicity_all", "allenai/real-toxicity-prompts", "prompts.jsonl"),
        ("TruthfulQA_full", "truthfulqa/truthful_qa", "TruthfulQA.csv"),
        ("C4_validation", "allenai/c4", "c4_validation.jsonl"),
    ],
)
def test_without_network_the_message_names_the_hub_and_the_file(name, place, file):
    page = f"https://huggingface.co/datasets/{place}"
    with pytest.raises(UserError, match=rf"{page} .*; or set dataset.data_dir to a folder with {file}"):
        load_rows(name, None)
