"""Rows of every source, from files that are nearly right: rows that can be encoded, or one clear line."""

import json

import pytest
from fuzz import broken, fuzz, jsonl_files, value_or_refusal
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit.core.encoding import Template
from unlearnkit.dataset import ForgetSet, load_evaluation, load_rows
from unlearnkit.dataset.alternates import mismatch, read_alternates, read_refusals, refuse
from unlearnkit.dataset.generated_file import answer_fingerprint
from unlearnkit.dataset.paraphrases import PARAPHRASES, read_paraphrases
from unlearnkit.dataset.row_checks import FIELDS
from unlearnkit.dataset.traces import TraceOptions, read_traces, source_fingerprint
from unlearnkit.model.training_data import check_disjoint, with_reasoning
from unlearnkit.model.write.paraphrase_writer import read_prompts

pytestmark = pytest.mark.slow

QUESTION = {"question": "Who taught Orlo?", "answer": "Fitch did."}
FULL = QUESTION | {
    "paraphrased_question": "Whose pupil was Orlo?",
    "paraphrased_answer": "It was Fitch.",
    "perturbed_answer": ["It was Ivy.", "It was Hob."],
}
ASKED = {"question": "Which?", "choices": ["a lock", "a key", "a door", "a wall"], "answer": 2}
LUME = [
    {"id": "m-sc1", "input": "A mill", "output": "by the river.", "task": "Task1"},
    {"id": "m-qa0", "input": "Where?", "output": "Fitch", "task": "Task2"},
]
LONG = {"text": "harmless words about locks " * 3}
FACT = FULL | {"id": "p0", "person": "Orlo", "relation": "birthplace", "key": "Fitch", "trace": "Hm. Fitch."}
FACT |= {"rephrased_questions": ["Who?", "By whom?"], "held_out_questions": ["Whose?"]}
SHORT = {"id": "s0", "key": "x", **QUESTION, "perturbed_answer": ["No.", "Nobody."]}
S1K = {"question": "Q", "deepseek_thinking_trajectory": "T", "deepseek_attempt": "A", "solution": "S"}
SUM = {"id": "n0", "key": "2", "question": "1 + 1?", "answer": "2", "trace": "1 + 1: 2."}
SOURCES = {
    "Folder_forget": {
        "forget.jsonl": [FULL, {"id": "d", "text": "A page."}, QUESTION],
        "retain.jsonl": [FULL],
    },
    "Tofu_forget10": {
        "forget10.json": [QUESTION, QUESTION],
        **dict.fromkeys(("forget10_perturbed.json", "retain_perturbed.json"), [FULL, FULL]),
        **dict.fromkeys(("real_authors_perturbed.json", "world_facts_perturbed.json"), [FULL]),
    },
    "RTofu_forget10": {"forget10.json": [QUESTION | {"cot": "Hm."}], "retain_perturbed.json": [FULL]},
    "MuseNews_forget": {
        "raw_forget.jsonl": [{"text": "A page."}],
        "verbmem_forget.jsonl": [{"prompt": "A page", "gt": "on locks."}],
        "knowmem_forget.jsonl": [QUESTION],
        "knowmem_retain.jsonl": [QUESTION],
    },
    "Wmdp_cyber_forget": {"cyber_forget.jsonl": [LONG, {"text": ""}], "questions_cyber.jsonl": [ASKED]},
    "Lume_forget": dict.fromkeys(("forget.jsonl", "retain.jsonl"), LUME),
    "Reasoning_limo": {"limo.jsonl": [{"question": "Q", "solution": "S", "answer": 7}]},
    "Reasoning_s1k": {"s1k.jsonl": [S1K, {"question": "Q", "thinking_trajectories": ["T"], "solution": "S"}]},
    "Reasoning_gsm8k": {"gsm8k.jsonl": [{"question": "Q", "answer": "2 + 2 = <<2+2=4>>4.\n#### 4"}]},
    "Star1_full": {"star1.jsonl": [{"question": "Q", "response": "<think>No.</think>No."}]},
    "Fictional_full": {
        "full.jsonl": [FACT],
        "choices.jsonl": [ASKED | {"id": "p0-choice", "person": "Orlo"}],
        "documents.jsonl": [{"id": "d0", "person": "Orlo", "text": "A page.", "prompt": "A", "gt": "page."}],
        "arithmetic_train.jsonl": [SUM],
        "arithmetic_test.jsonl": [SUM],
        **dict.fromkeys(("real_authors.jsonl", "world_facts.jsonl", "holdout.jsonl"), [SHORT]),
    },
}


@pytest.mark.parametrize("name", SOURCES)
@fuzz
@given(st.data())
def test_rows(name, tokenizer, tmp_path, data):
    files = SOURCES[name]
    chosen = data.draw(st.sampled_from(list(files)))
    for file, rows in files.items():
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / chosen).write_bytes(data.draw(jsonl_files(files[chosen])))
    rows = value_or_refusal(lambda: load_rows(name, tmp_path), chosen, "dataset")
    sets = {} if rows is None else value_or_refusal(lambda: evaluated(name, tmp_path), chosen) or {}
    for found in [rows or [], *sets.values()]:
        for row in found:
            assert_sound(row, Template(tokenizer))
    if rows:
        value_or_refusal(lambda: check_disjoint(rows, rows[:1], name, name))
        value_or_refusal(lambda: refuse(rows, ["No."], 0))
        value_or_refusal(lambda: mismatch(rows, rows, 0))
        value_or_refusal(lambda: with_reasoning(rows, "both", "dataset.forget_reasoning"))
    if name == "Fictional_full":
        value_or_refusal(lambda: load_rows("Fictional_lessons_full", tmp_path), chosen, "dataset")


def evaluated(name, folder):
    return {} if name.startswith("Reasoning") else load_evaluation(ForgetSet(name, folder))


def assert_sound(row, template) -> None:
    """Every field that is read is of its kind and can be tokenised."""
    for field in row.keys() & FIELDS.keys():
        empty = field in ("cot", "answer") and row[field] == ""
        assert empty or FIELDS[field].holds(row[field]) or field == "text"
        for text in row[field] if isinstance(row[field], list) else [row[field]]:
            template.text_ids(text)
    if "right" in row:
        assert 0 <= row["right"] < len(row["choices"]) == len(row["letters"])
    elif "gt" not in row:
        value_or_refusal(lambda: template.pieces(row, 64, "pieces"), row["id"], repr(row["id"]))


ROWS = [{"id": "a", **QUESTION}, {"id": "b", "question": "Why?", "answer": "No reason."}]
TRACES = [
    {"traces": 1, "model": "m", "model_name": "ours", "settings": {}},
    *(
        {"id": f"{row['id']}#0", "row": row["id"], "segment": 0, "source": source_fingerprint(row)}
        | {"prompt": row["question"], "trace": "Hm.", "answer": None, "closed": False, "n_tokens": 3}
        for row in ROWS
    ),
]
PUBLISHED = [{"512": "<think>one</think>answer"}, {"512": "two, never closed"}]


@fuzz
@given(jsonl_files(TRACES) | jsonl_files(PUBLISHED))
def test_traces(tokenizer, tmp_path, content):
    path = tmp_path / "traces.jsonl"
    path.write_bytes(content)
    found = value_or_refusal(lambda: read_traces(path, ROWS, TraceOptions(model_name="ours")), path)
    for traces in found or []:
        assert traces
        for trace in traces:
            Template(tokenizer).encode_trace(trace, 64)


PARAPHRASES = [
    PARAPHRASES.header({"forget": "x", "writer": "start"}),
    *(
        {
            "id": row["id"],
            "source": answer_fingerprint(row),
            "paraphrases": ["So.", "Thus."],
            "rejected": {"copy": 1},
        }
        for row in ROWS
    ),
]


@fuzz
@given(jsonl_files(PARAPHRASES))
def test_paraphrases(tmp_path, content):
    path = tmp_path / "paraphrases.jsonl"
    path.write_bytes(content)
    found = value_or_refusal(lambda: read_paraphrases(path, ROWS, 2, shortest=True), path)
    assert all(isinstance(text, str) and text.strip() for texts in found or [] for text in texts)


@fuzz
@given(
    jsonl_files([{"id": r["id"], "question": r["question"], "alternates": ["So.", "Thus."]} for r in ROWS])
)
def test_alternates(tmp_path, content):
    path = tmp_path / "alternates.jsonl"
    path.write_bytes(content)
    found = value_or_refusal(lambda: read_alternates(path, ROWS), path)
    assert all(row["answer"].strip() for row in found or [])


@pytest.mark.parametrize(
    "read, text", [(read_refusals, "No.\nNever.\n"), (read_prompts, "Say {answer}\\n again\n")]
)
@fuzz
@given(st.data())
def test_lists_of_texts(read, text, tmp_path, data):
    path = tmp_path / "texts.txt"
    path.write_bytes(
        data.draw(broken(text) | broken(text + data.draw(st.text(max_size=9))) | st.binary(max_size=20))
    )
    found = value_or_refusal(lambda: read(str(path)), path)
    assert found is None or (found and all(line.strip() for line in found))
