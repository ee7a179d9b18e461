"""LUME, KnowUnDo and RWKU from local copies of their layouts, with rows of our own."""

import hashlib
import json
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from conftest import SHARED_DATA
from scripts import run_script

from unlearnkit.core.files import UserError, read_json, read_jsonl
from unlearnkit.dataset import ForgetSet, load_evaluation, load_rows, lume_rows
from unlearnkit.dataset.rwku_rows import PROBES
from unlearnkit.model.benchmarks.benchmark_runner import TaskOutcome

TASKS = ("Task1", "Task2", "Task3")


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def lume_row(side, task, kind, number):
    """The higher the number, the longer the row."""
    words = {"sc": "Old Orlo kept a mill by the river.", "qa": "Where is the mill of Orlo?"}[kind]
    identity = f"{side}-{task}{kind}{number}"
    return {"id": identity, "input": words + " Now" * number, "output": f"{side} {number}", "task": task}


@pytest.fixture
def lume(tmp_path):
    for side in ("forget", "retain"):
        rows = [
            lume_row(side, task, kind, number)
            for task in TASKS
            for kind in ("sc", "qa")
            for number in (2, 1, 0)
        ]
        write(tmp_path / f"{side}.jsonl", rows)
    return tmp_path


@pytest.fixture
def knowundo(tmp_path):
    for part in ("unlearn", "retention"):
        tables = {
            phase: [{"text": f"{part} {phase} {n}?", "labels": f"{part} answer {n}."} for n in range(2)]
            for phase in ("train", "val")
        }
        path = tmp_path / "privacy" / f"{part}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps([tables] if part == "unlearn" else tables))
    return tmp_path


@pytest.fixture
def rwku(tmp_path):
    people = ("Orlo Fitch", "Ivy Hob")
    texts = [{"subject": who, "text": f"{who} kept a mill."} for who in people]
    for stem in ("passage", "forget_mia", "retain_mia"):
        (tmp_path / f"{stem}.json").write_text(json.dumps(texts))
    for probe in PROBES:
        asked = [{"subject": who, "query": f"{who} kept a ___.", "answer": "mill"} for who in people]
        asked[0]["type"] = "incontext learning"
        (tmp_path / f"{probe}.json").write_text(json.dumps(asked))
    asked = [{"subject": who, "instruction": "Write about mills."} for who in people]
    (tmp_path / "fluency.json").write_text(json.dumps(asked))
    return tmp_path


def test_a_lume_row_is_a_text_to_continue_or_a_question(lume):
    text, question = load_rows("Lume_forget_task2", lume)[2:4]
    assert text == {
        "id": "forget-Task2sc0",
        "task": "task2",
        "prompt": "Old Orlo kept a mill by the river.",
        "answer": "forget 0",
    }
    assert question["question"] == "Where is the mill of Orlo? Now Now"
    assert "prompt" not in question


def test_lumes_target_learns_what_is_forgotten_and_what_is_kept(lume):
    full = [row["id"] for row in load_rows("Lume_full", lume)]
    assert full == [row["id"] for side in ("forget", "retain") for row in load_rows(f"Lume_{side}", lume)]


def test_lumes_part_is_the_shortest_of_each_task_and_kind(lume, monkeypatch):
    monkeypatch.setattr(lume_rows, "PART_ROWS", 2)
    ids = [row["id"] for row in load_rows("Lume_forget_part", lume)]
    assert ids == [f"forget-{task}{kind}{n}" for task in TASKS for kind in ("sc", "qa") for n in (1, 0)]


def test_lume_measures_the_forgotten_rows_and_the_retain_rows_of_the_same_part(lume):
    rows = load_rows("Lume_forget_task3", lume)
    sets = load_evaluation(ForgetSet("Lume_forget_task3", lume, rows[:1]))
    counts = {name: len(table) for name, table in sets.items() if table}
    assert counts == {"forget_task3_sc": 1, "retain": 3, "retain_task3_sc": 3, "retain_task3_qa": 3}
    assert {row["task"] for row in sets["retain"]} == {"task3"}


@pytest.mark.parametrize("folder", ["", "mia_data"])
def test_lumes_membership_texts_lie_beside_the_rows_or_where_the_shared_task_had_them(lume, folder):
    write(lume / folder / "member.jsonl", [{"id": 7, "document": "A page."}])
    write(lume / folder / "nonmember.jsonl", [{"id": 7, "document": "No page."}, {"document": "Nor this."}])
    sets = load_evaluation(ForgetSet("Lume_forget", lume))
    assert [row["text"] for row in sets["forget_texts"]] == ["A page."]
    assert [row["text"] for row in sets["holdout_texts"]] == ["No page.", "Nor this."]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"id": "a-sc"}, r"forget.jsonl, line 1: 'id' must be a text that ends in sc or qa and a number"),
        ({"task": "Task4"}, "line 1: 'task' must be Task1, Task2 or Task3, got 'Task4'"),
        ({"output": " "}, "line 1: 'output' must be a text with words in it"),
    ],
)
def test_a_wrong_row_of_lume_is_named(lume, change, message):
    write(lume / "forget.jsonl", [lume_row("forget", "Task1", "sc", 1) | change])
    with pytest.raises(UserError, match=message):
        load_rows("Lume_forget", lume)


def test_a_file_of_lume_in_another_encoding_is_named(lume):
    (lume / "retain.jsonl").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(UserError, match=r"retain.jsonl, line 1: not UTF-8 text \(byte 3\)"):
        load_rows("Lume_full", lume)


@contextmanager
def served(folder):
    """The address of a web server on this machine that serves a folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *words: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def test_lume_is_fetched_once_and_checked(lume, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(lume_rows, "user_is_offline", lambda: "")
    sums = {side: hashlib.sha256((lume / f"{side}.jsonl").read_bytes()).hexdigest() for side in ("forget",)}
    monkeypatch.setattr(lume_rows, "SHA256", sums | {"retain": "0" * 64})
    with served(lume) as address:
        monkeypatch.setattr(lume_rows, "ADDRESS", address)
        rows = load_rows("Lume_forget", None)
        with pytest.raises(
            UserError,
            match=r"retain.jsonl .* has SHA-256 \w+, not 0+; get data/forget.jsonl and data/retain.jsonl",
        ):
            load_rows("Lume_retain", None)
    assert rows == load_rows("Lume_forget", lume)
    assert load_rows("Lume_forget", None) == rows, "the server is gone"
    assert not list((tmp_path / "cache").rglob("retain*"))


def test_without_network_lumes_message_says_where_the_files_are(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    with pytest.raises(
        UserError, match="from GitHub.*HF_HUB_OFFLINE.*https://github.com/amazon-science.*dataset.data_dir"
    ):
        load_rows("Lume_forget", None)


@pytest.mark.parametrize(
    "name, file",
    [("KnowUnDo_privacy_unlearn", "privacy/unlearn.json"), ("Rwku_positive", "positive.json")],
)
def test_without_the_hub_the_message_names_the_file_of_a_local_copy(name, file):
    with pytest.raises(UserError, match=f"from the hub .*set dataset.data_dir to a folder with {file}"):
        load_rows(name, None)


def test_knowundos_training_rows_are_trained_and_its_validation_rows_measured(knowundo):
    rows = load_rows("KnowUnDo_privacy_unlearn", knowundo)
    assert rows[1] == {
        "id": "privacy-unlearn-train-1",
        "question": "unlearn train 1?",
        "answer": "unlearn answer 1.",
    }
    sets = load_evaluation(ForgetSet("KnowUnDo_privacy_unlearn", knowundo))
    assert {name: [row["question"] for row in table] for name, table in sets.items()} == {
        "forget": ["unlearn val 0?", "unlearn val 1?"],
        "retain": ["retention val 0?", "retention val 1?"],
    }
    assert len(load_rows("KnowUnDo_privacy_full", knowundo)) == 8


def test_rwkus_probes_are_asked_as_published_about_the_people_of_the_forget_rows(rwku):
    sets = load_evaluation(ForgetSet("Rwku_passage", rwku))
    assert {name: len(rows) for name, rows in sets.items()} == dict.fromkeys(sets, 2)
    blank, question = (sets[name][0]["question"] for name in ("forget_level1", "forget_level3"))
    assert blank.splitlines() == [
        "Please complete the blank in the following question.",
        "Question: Orlo Fitch kept a ___.",
    ]
    assert question.splitlines() == [
        "Please briefly answer the following question.",
        "Orlo Fitch kept a ___.",
    ]
    one = load_evaluation(ForgetSet("Rwku_passage", rwku, load_rows("Rwku_passage", rwku)[1:]))
    assert {row["subject"] for rows in one.values() for row in rows} == {"Ivy Hob"}


@pytest.mark.parametrize(
    "layout, name, file, content, message",
    [
        (
            "knowundo",
            "KnowUnDo_privacy_unlearn",
            "privacy/unlearn.json",
            "[1, 2]",
            "expected an object with train and val",
        ),
        ("knowundo", "KnowUnDo_privacy_unlearn", "privacy/unlearn.json", '{"val": []}', "'train' is missing"),
        (
            "knowundo",
            "KnowUnDo_privacy_unlearn",
            "privacy/unlearn.json",
            '{"train": [{"text": "Who?", "labels": ""}]}',
            "train 1: 'labels' must be a text with words in it",
        ),
        ("knowundo", "KnowUnDo_privacy_unlearn", "privacy/unlearn.json", "{", "line 1, column 2"),
        ("rwku", "Rwku_passage", "passage.json", '{"text": "A."}', "expected a list of objects, got dict"),
        ("rwku", "Rwku_passage", "passage.json", '[{"text": 3}]', "object 1: 'text' must be a text"),
        ("rwku", "Rwku_passage", "passage.json", "[]", "must be a list, each an object"),
    ],
)
def test_a_wrong_file_is_named(layout, name, file, content, message, request):
    folder = request.getfixturevalue(layout)
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=f"{file}.*{message}"):
        load_rows(name, folder)


@pytest.mark.run
@pytest.mark.parametrize(
    "layout, name, missing",
    [
        ("lume", "Lume_forget", "retain.jsonl"),
        ("knowundo", "KnowUnDo_privacy_unlearn", "privacy/retention.json"),
        ("rwku", "Rwku_passage", "neighbor_level2.json"),
    ],
)
def test_a_missing_file_is_an_error_of_the_settings(layout, name, missing, request):
    folder = request.getfixturevalue(layout)
    (folder / missing).unlink()
    done = run_script(
        "unlearn_model",
        *("--unlearn.unlearn_method", "GA", "--dataset.forget_dataset_name", name),
        *("--dataset.data_dir", folder),
    )
    assert done.returncode == 2
    assert f"dataset.data_dir: {folder} has no {missing}" in " ".join(done.stderr.split())


@pytest.mark.run
@pytest.mark.parametrize(
    "layout, name, retain, task, figures",
    [
        ("lume", "Lume_forget", "Lume_retain", "lume", ("lume/task_aggregate", "lume/mia_score")),
        (
            "knowundo",
            "KnowUnDo_privacy_unlearn",
            "KnowUnDo_privacy_retention",
            "knowundo",
            ("knowundo/unlearn_success", "knowundo/retention_perplexity", "knowundo/unlearn_rougeL"),
        ),
        (
            "rwku",
            "Rwku_passage",
            "Fictional_retain90",
            "rwku",
            ("rwku/forget_level3", "rwku/neighbor_level1", "rwku/forget_mia_zlib", "rwku/fluency"),
        ),
    ],
)
def test_a_run_from_a_folder(layout, name, retain, task, figures, request, tiny_model_folder, tmp_path):
    folder = request.getfixturevalue(layout)
    if layout == "lume":
        write(folder / "member.jsonl", [{"document": "Old Orlo kept a mill."}])
        write(folder / "nonmember.jsonl", [{"document": "Ivy had a lock."}])
    done = run_script(
        "unlearn_model",
        *("--overall.model_name", tiny_model_folder, "--overall.cache_dir", tmp_path / "cache"),
        *("--unlearn.unlearn_method", "GA", "--unlearn.task_name", task, "--unlearn.max_steps", 1),
        *("--dataset.forget_dataset_name", name, "--dataset.retain_dataset_name", retain),
        *("--dataset.data_dir", folder, "--dataset.batch_size", 2),
        *("--evaluate.before", "false", "--evaluate.max_new_tokens", 4),
        *("--logger.json.root", tmp_path, "--logger.name", "run"),
    )
    assert done.returncode == 0, done.stderr
    metrics = read_json(tmp_path / "run/metrics.json")
    assert {key for key in figures if metrics[key] is None} == set()
    if layout == "lume":
        assert metrics["lume/final"] is None
        detail = read_json(tmp_path / "run/metrics_detail.json")["lume/final"]
        assert detail["reason"] == "needs MMLU, measured in the same run: --benchmarks.tasks mmlu"
        rows = read_jsonl(tmp_path / "run/samples/forget_task1_qa.jsonl")
        assert {row["knowledge"] for row in rows} <= {0.0, 1.0}


@pytest.mark.run
@pytest.mark.parametrize("method", ["GA", "origin"])
def test_a_run_with_mmlu_has_a_final_score(method, lume, tiny_model_folder, tmp_path, monkeypatch):
    """MMLU of the initial model is .4, of the run's own .35."""
    module = "unlearnkit.model.run.unlearn_run."
    outcome = lambda value: [TaskOutcome("mmlu", "ok", "", 1.0, {"mmlu/acc[none]": {"value": value}})]
    monkeypatch.setattr(f"{module}check_benchmarks", lambda *given: None)
    monkeypatch.setattr(f"{module}run_initial_model", lambda *given: outcome(0.4))
    monkeypatch.setattr(f"{module}run_in_memory", lambda *given: outcome(0.35))
    write(lume / "member.jsonl", [{"document": "Old Orlo kept a mill."}])
    write(lume / "nonmember.jsonl", [{"document": "Ivy had a lock."}])
    done = run_script(
        "unlearn_model",
        *("--overall.model_name", tiny_model_folder, "--overall.cache_dir", tmp_path / "cache"),
        *("--unlearn.unlearn_method", method, "--unlearn.task_name", "lume", "--unlearn.max_steps", 1),
        *("--dataset.forget_dataset_name", "Lume_forget", "--dataset.retain_dataset_name", "Lume_retain"),
        *("--dataset.data_dir", lume, "--dataset.batch_size", 2, "--evaluate.max_new_tokens", 4),
        *("--benchmarks.tasks", "mmlu", "--logger.json.root", tmp_path, "--logger.name", "run"),
    )
    assert done.returncode == 0, done.stderr
    metrics = read_json(tmp_path / "run/metrics.json")
    parts = [metrics[key] for key in ("lume/task_aggregate", "lume/mia_score", "lm_eval/mmlu/acc[none]")]
    assert metrics["lume/final"] == pytest.approx(sum(parts) / 3)
    detail = read_json(tmp_path / "run/metrics_detail.json")["lume/final"]
    assert detail["initial_mmlu"] == (0.4 if method == "GA" else 0.35)


@pytest.mark.skipif(not (SHARED_DATA / "lume").is_dir(), reason="the real LUME files are not here")
def test_the_real_files_have_the_published_counts():
    folder = SHARED_DATA / "lume"
    counts = {}
    for side in ("forget", "retain"):
        for row in load_rows(f"Lume_{side}", folder):
            kind = "sc" if "prompt" in row else "qa"
            counts[side, row["task"], kind] = counts.get((side, row["task"], kind), 0) + 1
    assert [counts["forget", f"task{n}", kind] for n in (1, 2, 3) for kind in ("sc", "qa")] == [
        *(243, 243),
        *(250, 1250),
        *(373, 373),
    ]
    assert sum(counts.values()) == 2732 + 2734
    for side, expected in lume_rows.SHA256.items():
        assert hashlib.sha256((folder / f"{side}.jsonl").read_bytes()).hexdigest() == expected
