"""Reasoning sets, and files of traces."""

import json

import pytest
from conftest import SHARED_DATA

from unlearnkit.core.files import UserError, write_jsonl
from unlearnkit.dataset import ForgetSet, load_evaluation, load_rows
from unlearnkit.dataset.traces import TraceOptions, own_traces, read_traces, source_fingerprint
from unlearnkit.model.training_data import with_reasoning

ROWS = [
    {"id": "a", "question": "Who?", "answer": "Orlo.", "cot": "Hm."},
    {"id": "b", "text": "A page on nothing."},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    "file, published, cot, answer",
    [
        ("limo", {"question": "Q", "solution": "S", "answer": 7}, "S", "7"),
        (
            "s1k",
            {"question": "Q", "deepseek_thinking_trajectory": "T", "deepseek_attempt": "A", "solution": "S"},
            "T",
            "A",
        ),
        ("s1k", {"question": "Q", "thinking_trajectories": ["T"], "solution": "S"}, "T", "S"),
        ("gsm8k", {"question": "Q", "answer": "2 + 2 = <<2+2=4>>4 eggs.\n#### 4"}, "2 + 2 = 4 eggs.", "4"),
    ],
)
def test_published_forms_become_question_reasoning_answer(tmp_path, file, published, cot, answer):
    write(tmp_path / f"{file}.jsonl", [published])
    assert load_rows(f"Reasoning_{file}", tmp_path) == [
        {"id": f"{file}-0", "question": "Q", "cot": cot, "answer": answer}
    ]
    for broken in ({"questions": "Q"}, {key: [value] for key, value in published.items()}):
        write(tmp_path / f"{file}.jsonl", [published, broken])
        with pytest.raises(UserError, match=f"{file}.jsonl, line 2: not in the published form"):
            load_rows(f"Reasoning_{file}", tmp_path)


def test_star1_is_text_with_its_response_for_reasoning(tmp_path):
    published = [
        {"question": "Q", "response": "<think>I must refuse.</think>No."},
        {"question": "P", "response": "No."},
    ]
    write(tmp_path / "star1.jsonl", published)
    first, second = load_rows("Star1_full", tmp_path)
    assert (first["text"], first["cot"], first["answer"]) == ("Q", "I must refuse.", "No.")
    assert second["cot"] == "No."


def test_rtofu_reads_its_repositorys_files(tmp_path):
    (tmp_path / "forget01.json").write_text(json.dumps({"question": "Q", "answer": "A", "cot": "C"}) + "\n")
    assert load_rows("RTofu_forget01", tmp_path) == [
        {"id": "forget01-0", "question": "Q", "answer": "A", "cot": "C"}
    ]
    assert set(load_evaluation(ForgetSet("RTofu_forget01", tmp_path))) == {"forget"}
    with pytest.raises(UserError, match="RTofu needs the folder data/tofu"):
        load_rows("RTofu_forget01", None)


def test_the_fictional_facts_bring_their_reasoning():
    assert all(row["cot"] and "trace" not in row for row in load_rows("Fictional_forget10", None))
    assert all(row["cot"] for row in load_rows("Fictional_arithmetic", None))


@pytest.mark.skipif(not (SHARED_DATA / "gsm8k/test.jsonl").is_file(), reason="GSM8K is not here")
def test_real_gsm8k(tmp_path):
    (tmp_path / "gsm8k.jsonl").symlink_to(SHARED_DATA / "gsm8k/test.jsonl")
    rows = load_rows("Reasoning_gsm8k", tmp_path)
    assert len(rows) == 1319
    assert not any("<<" in row["cot"] or "####" in row["cot"] for row in rows)
    assert rows[0]["answer"] == "18"


# --- files of traces ----------------------------------------------------------------------------------------


def lines(**changes):
    head = {"traces": 1}
    body = [
        {
            "id": f"{row['id']}#{n}",
            "row": row["id"],
            "segment": n,
            "source": source_fingerprint(row),
            "prompt": f"P{n}",
            "trace": f"T{n}",
            "answer": "A",
            "closed": n == 0,
            "n_tokens": 3,
        }
        for row in ROWS
        for n in range(2)
    ]
    return [head, *({**line, **changes} for line in body)]


def test_every_row_gets_its_traces(tmp_path):
    path = tmp_path / "t.jsonl"
    write_jsonl(path, lines())
    found = read_traces(path, ROWS[::-1])
    assert [[trace["id"] for trace in traces] for traces in found] == [["b#0", "b#1"], ["a#0", "a#1"]]
    assert found[0][1] == {"id": "b#1", "question": "P1", "trace": "T1"}
    assert [len(traces) for traces in read_traces(path, ROWS, TraceOptions(keep_unclosed=False))] == [1, 1]
    assert own_traces(ROWS[:1]) == [[{"id": "a-cot", "question": "Who?", "trace": "Hm."}]]


@pytest.mark.parametrize(
    "change, rows, expected",
    [
        ({"source": "0"}, ROWS, "was written for another data set: 'a' has another text there"),
        ({"row": "z"}, ROWS, "has no line for 2 of 2 forget rows"),
        ({"trace": ""}, ROWS, "all 2 traces of 'a' are empty"),
    ],
)
def test_a_file_of_other_rows_is_refused(tmp_path, change, rows, expected):
    path = tmp_path / "t.jsonl"
    write_jsonl(path, lines(**change))
    with pytest.raises(UserError, match=expected):
        read_traces(path, rows)
    write_jsonl(path, lines()[1:])
    with pytest.raises(UserError, match="first line has no such header"):
        read_traces(path, rows)


def test_the_published_format_goes_by_order(tmp_path):
    path = tmp_path / "r2mu.json"
    write(
        path, [{"512": "<think>one</think>answer"}, {"512": "two, never closed"}, {"512": "</think>at once"}]
    )
    assert [trace[0]["trace"] for trace in read_traces(path, ROWS)] == ["one", "two, never closed"]
    with pytest.raises(UserError, match="has 3 traces for 4 forget rows"):
        read_traces(path, ROWS * 2)
    write(tmp_path / "bad.json", [{"512": "one</think>a"}, {"512": 3}])
    with pytest.raises(UserError, match="line 2: '512' must be a text, got 3"):
        read_traces(tmp_path / "bad.json", ROWS)
    with pytest.raises(UserError, match="take all of them"):
        read_traces(path, ROWS, TraceOptions(whole=False))
    with pytest.raises(UserError, match="line 2 has no trace that can be used .* or never closes"):
        read_traces(path, ROWS, TraceOptions(keep_unclosed=False))
    with pytest.raises(UserError, match="line 3 has no trace that can be used"):
        read_traces(path, [*ROWS, ROWS[0]])


def test_traces_of_another_model_are_remarked_upon_and_broken_lines_named(tmp_path, caplog):
    path = tmp_path / "t.jsonl"
    head, *rest = lines()
    write_jsonl(path, [head | {"model_name": "theirs"}, *rest])
    read_traces(path, ROWS, TraceOptions(model_name="ours"))
    assert "was written by theirs, and overall.model_name is ours" in caplog.text
    write_jsonl(path, [head, {"id": "a#0", "row": "a"}])
    with pytest.raises(UserError, match="line 2: 'source' is missing"):
        read_traces(path, ROWS)


def test_rows_with_text_are_thought_out_as_questions():
    row = {"id": "s", "text": "Q", "question": "Q", "cot": "C", "answer": "A"}
    assert with_reasoning([row], "on", "k") == [
        {"id": "s", "question": "Q", "cot": "C", "answer": "A", "trace": "C"}
    ]
    assert [r["id"] for r in with_reasoning([row], "both", "k")] == ["s", "s-thought"]
    with pytest.raises(UserError, match="k on: no row of the data set brings its reasoning"):
        with_reasoning([{"id": "x"}], "on", "k")
