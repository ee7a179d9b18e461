"""The user's own rows: CSV, chats, hub data sets, columns of any name."""

import copy
import json

import pytest

from unlearnkit.core.encoding import Template
from unlearnkit.core.files import UserError, write_jsonl
from unlearnkit.dataset import ForgetSet, dataset_name, load_evaluation, load_rows
from unlearnkit.dataset.own_rows import column_pair

ASKED = {"question": "Where is Ann?", "answer": "In Low Ford."}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Where is Ann?"},
    {"role": "assistant", "content": "In Low Ford."},
]


def asked_fields(row: dict) -> dict:
    return {key: row[key] for key in ASKED}


# --- CSV ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "question,answer\nWhere is Ann?,In Low Ford.\n",
        "\ufeffquestion,answer\r\nWhere is Ann?,In Low Ford.\r\n\r\n",
        'answer;"question"\n"In Low Ford.";"Where is Ann?"\n',
        "question\tanswer\tnote\nWhere is Ann?\tIn Low Ford.\t\n",
        ",question,answer\n0,Where is Ann?,In Low Ford.\n",
        "question,answer,\nWhere is Ann?,In Low Ford.,\n",
    ],
)
def test_csv_files_of_usual_forms_are_read(text, tmp_path):
    (tmp_path / "forget.csv").write_text(text, encoding="utf-8", newline="")
    (row,) = load_rows("Folder_forget", tmp_path)
    assert row == ASKED | {"id": "forget-0"}


def test_quoted_cells_hold_commas_quotes_line_breaks_and_lists(tmp_path):
    (tmp_path / "forget.csv").write_text(
        'question,answer,perturbed_answer\n"Where, today,\nis ""Ann""?","In Low\nFord.","[""In Hill."", ""In'
        ' Dale.""]"\n'
    )
    (row,) = load_rows("Folder_forget", tmp_path)
    assert row["question"] == 'Where, today,\nis "Ann"?'
    assert row["answer"] == "In Low\nFord."
    assert row["perturbed_answer"] == ["In Hill.", "In Dale."]


@pytest.mark.parametrize(
    "text, message",
    [
        ("question,answer\nA?,B.\nWhere, now?,C.\n", r"forget.csv, line 3: 3 cells where the header has 2"),
        ("question,answer\nA?\n", r"forget.csv, line 2: 1 cells where the header has 2"),
        ('question,answer\n"A?,B.\n', r"forget.csv, line 2: .* is a double quote missing\?"),
        ("question,question\nA?,B.\n", r"forget.csv: the column 'question' is there twice"),
        ("question,answer\nA?,\n", r"forget.csv, line 2: needs question and answer.*it has 'question'"),
        ("question,answer\n", "has no rows"),
        ("", "has no rows"),
    ],
)
def test_a_broken_csv_file_names_its_line(text, message, tmp_path):
    (tmp_path / "forget.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load_rows("Folder_forget", tmp_path)


# --- Columns ------------------------------------------------------------------------------------------------


def test_columns_of_other_names_are_mapped(tmp_path):
    write_jsonl(
        tmp_path / "forget.jsonl", [{"id": 7, "prompt": "Where is Ann?", "Short reply": "In Low Ford."}]
    )
    columns = {"question": "prompt", "answer": "Short reply"}
    assert load_rows("Folder_forget", tmp_path, columns) == [ASKED | {"id": "7"}]
    # A table of the same folder may have our names.
    write_jsonl(tmp_path / "retain.jsonl", [ASKED | {"paraphrased_answer": None}])
    assert asked_fields(load_rows("Folder_retain", tmp_path, columns)[0]) == ASKED


@pytest.mark.parametrize(
    "row, columns, message",
    [
        (
            {"prompt": "A?", "response": "B."},
            {},
            r"forget.jsonl, line 1: .*it has 'prompt', 'response'; --dataset.columns question=prompt"
            r" answer=response names the columns",
        ),
        ({"qestion": "A?", "answer": "B."}, {}, r"it has 'qestion', 'answer'; did you mean question\?"),
        (
            {"prompt": "A?", "reply": "B."},
            {"question": "promt", "answer": "reply"},
            r"dataset.columns question=promt: there is no 'promt'; did you mean prompt\?",
        ),
        ({}, {}, "it has nothing"),
        ({"question": "A?", "answer": ""}, {}, "'answer' must be a text with words in it"),
    ],
)
def test_wrong_columns_name_file_row_and_what_is_there(row, columns, message, tmp_path):
    write_jsonl(tmp_path / "forget.jsonl", [row])
    with pytest.raises(UserError, match=message):
        load_rows("Folder_forget", tmp_path, columns)


@pytest.mark.parametrize("pair", ["question", "question=", "=prompt", "qestion=prompt", 3])
def test_pairs_of_columns_are_checked(pair):
    with pytest.raises(UserError, match=r"not a pair|did you mean question\?"):
        column_pair(pair)


def test_the_flag_takes_pairs_as_words_and_in_one(tmp_path, capsys):
    from unlearnkit.exec.cli import read_settings

    write_jsonl(tmp_path / "forget.jsonl", [{"prompt": "A?", "response": "B."}])
    folder = ["--dataset.forget_dataset_name", "folder_forget", "--dataset.data_dir", str(tmp_path)]
    names = {"question": "prompt", "answer": "response"}
    for words in (["question=prompt", "answer=response"], ["question=prompt,answer=response"]):
        settings = read_settings([*folder, "--dataset.columns", *words], "")
        assert settings.dataset.column_names == names
        assert settings.dataset.forget_dataset_name == "Folder_forget"
    with pytest.raises(SystemExit):
        read_settings([*folder, "--dataset.columns", "qestion=prompt"], "")
    assert "dataset.columns: expected" in (shown := capsys.readouterr().err)
    assert "did you mean question?" in shown


# --- Chats --------------------------------------------------------------------------------------------------


def test_the_last_assistant_turn_is_the_answer_and_the_others_stand_before_the_question(tokenizer, tmp_path):
    write_jsonl(tmp_path / "forget.jsonl", [{"messages": CHAT}])
    (row,) = load_rows("Folder_forget", tmp_path)
    assert row == ASKED | {"id": "forget-0", "turns": CHAT[:3]}
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    before = (
        "<|system|>Be brief.<|end|><|user|>Hello.<|end|><|assistant|>Hi.<|end|><|user|>Where is Ann?<|end|>"
    )
    encoded = Template(tokenizer).encode(row)
    assert tokenizer.decode(encoded.input_ids[: encoded.prompt_length]) == f"{before}<|assistant|>"
    assert tokenizer.decode(encoded.input_ids[encoded.prompt_length :]) == "In Low Ford.<|end|>"
    plain = Template(tokenizer, "qa").prompt_text(row["question"], "direct", row["turns"])
    assert plain == "Be brief.\n\nQuestion: Hello.\nAnswer:\nHi.\n\nQuestion: Where is Ann?\nAnswer:\n"


def test_metrics_ask_within_the_chat(tokenizer, tiny_model):
    from unlearnkit.metrics.runner import EvalOptions, EvalRunner
    from unlearnkit.metrics.spec import Generations

    asked = []
    template = Template(tokenizer)
    template.prompt_ids = lambda *words: asked.append(words) or [1]
    passes = EvalRunner(tiny_model, template, EvalOptions(64, 2, 64))
    passes.generations([ASKED | {"id": "a", "turns": CHAT[:1]}, ASKED | {"id": "b"}], Generations("forget"))
    assert asked == [("Where is Ann?", "direct", CHAT[:1]), ("Where is Ann?", "direct", ())]


@pytest.mark.parametrize(
    "chat, message",
    [
        ("hello", "'messages' must be a list of turns"),
        ([], "'messages' must be a list of turns"),
        (["hello"], "line 1, message 1: expected an object with role and content"),
        ([{"role": "tool", "content": "x"}], "message 1: the role must be one of system, user, assistant"),
        ([{"role": ["user"], "content": "x"}], "message 1: the role must be one of"),
        ([{"role": "user", "content": None}], "message 1: the content must be a text"),
        (CHAT[:2], "must follow a user turn; the roles are system, user"),
        ([CHAT[2]], "must follow a user turn; the roles are assistant"),
    ],
)
def test_a_broken_chat_names_the_message(chat, message, tmp_path):
    write_jsonl(tmp_path / "forget.jsonl", [{"messages": chat}])
    with pytest.raises(UserError, match=message):
        load_rows("Folder_forget", tmp_path)


def test_content_in_parts_is_one_text(tmp_path):
    parts = [{"type": "text", "text": "Where is "}, {"type": "text", "text": "Ann?"}]
    write_jsonl(tmp_path / "forget.jsonl", [{"messages": [{"role": "user", "content": parts}, CHAT[-1]]}])
    assert load_rows("Folder_forget", tmp_path) == [ASKED | {"id": "forget-0"}]


# --- Names --------------------------------------------------------------------------------------------------


def test_any_table_of_the_folder_and_all_of_its_rows(tmp_path):
    write_jsonl(tmp_path / "forget.jsonl", [ASKED | {"id": "0"}])
    write_jsonl(tmp_path / "retain.jsonl", [ASKED | {"id": "0"}, {"question": "A?", "answer": "B."}])
    assert [row["id"] for row in load_rows("Folder_full", tmp_path)] == [
        "forget-0",
        "retain-0",
        "retain-retain-1",
    ]
    write_jsonl(tmp_path / "secrets.jsonl", [ASKED])
    assert len(load_rows("Folder_secrets", tmp_path)) == 1
    with pytest.raises(UserError, match=r"has no secret.jsonl \(or secret.csv\); did you mean secrets.jsonl"):
        load_rows("Folder_secret", tmp_path)
    (tmp_path / "retain.csv").write_text("question,answer\n")
    with pytest.raises(UserError, match="has both retain.jsonl and retain.csv"):
        load_rows("Folder_retain", tmp_path)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_data_set_of_any_name_is_read_by_datasets(suffix, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "own"
    folder.mkdir()
    for split, count in (("train", 3), ("test", 1)):
        rows = [{"prompt": f"Q{n}?", "response": f"A{n}.", "likes": n} for n in range(count)]
        if suffix == "jsonl":
            write_jsonl(folder / f"{split}.jsonl", rows)
        else:
            lines = ["prompt,response,likes", *(",".join(map(str, row.values())) for row in rows)]
            (folder / f"{split}.csv").write_text("\n".join(lines))
    columns = {"question": "prompt", "answer": "response"}
    assert load_rows(f"{folder}", None, columns)[2] == {"id": "train-2", "question": "Q2?", "answer": "A2."}
    assert len(load_rows(f"{folder}:test", None, columns)) == 1
    assert len(load_rows(f"{folder}:train[:2]", None, columns)) == 2
    sets = load_evaluation(ForgetSet(f"{folder}:test", None, columns=columns, retain_name=f"{folder}:train"))
    assert {name: len(rows) for name, rows in sets.items()} == {"forget": 1, "retain": 3}
    with pytest.raises(
        UserError, match=r"row 1: needs question.* it has 'prompt', 'response', 'likes'; --data"
    ):
        load_rows(f"{folder}", None)
    with pytest.raises(UserError, match=r'Unknown split "dev". Should be one of \[.*train'):
        load_rows(f"{folder}:dev", None, columns)


def test_a_chat_data_set_is_read_by_datasets(tmp_path):
    write_jsonl(tmp_path / "own" / "train.jsonl", [{"messages": CHAT}] * 2)
    assert load_rows(f"{tmp_path / 'own'}", None)[1] == ASKED | {"id": "train-1", "turns": CHAT[:3]}


@pytest.mark.parametrize(
    "name, proper",
    [
        ("owner/name", "owner/name"),
        ("fictional_FORGET10", "Fictional_forget10"),
        ("folder_Mine", "Folder_Mine"),
    ],
)
def test_proper_names(name, proper):
    assert dataset_name(name) == proper


@pytest.mark.parametrize(
    "name, message",
    [
        ("Fictional_forget11", r"no split 'forget11'; did you mean Fictional_forget"),
        ("Fctional_forget10", r"unknown dataset .*; did you mean Fictional_forget10"),
        ("imdb", "unknown dataset 'imdb'; one of the hub is named owner/name:split"),
        ("Folder", r"no split ''; "),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(name, message):
    with pytest.raises(UserError, match=message):
        dataset_name(name)


def test_rows_are_json(tmp_path):
    """They are part of cache keys."""
    write_jsonl(tmp_path / "forget.jsonl", [{"messages": CHAT}])
    assert json.dumps(load_rows("Folder_forget", tmp_path))
