"""MUSE and WMDP from folders, and long documents."""

import json
import shutil

import pytest
from conftest import GOLDEN
from scripts import run_script

from unlearnkit.core.encoding import Template
from unlearnkit.core.files import UserError, read_json, read_jsonl
from unlearnkit.dataset import (
    SOURCES,
    ForgetSet,
    dataset_name,
    load_evaluation,
    load_rows,
    parse_name,
    retain_name,
)
from unlearnkit.dataset.fictional_layouts import knowundo_files, rwku_files
from unlearnkit.dataset.fictional_world import DATA_DIR, generate
from unlearnkit.dataset.rwku_rows import PROBES

pytestmark = pytest.mark.run


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def muse(tmp_path):
    data = GOLDEN / "metrics/data"
    shutil.copy(data / "muse_privleak_forget.jsonl", tmp_path / "raw_forget.jsonl")
    shutil.copy(data / "muse_privleak_retain.jsonl", tmp_path / "raw_retain1.jsonl")
    shutil.copy(data / "muse_verbmem_forget.jsonl", tmp_path / "verbmem_forget.jsonl")
    return tmp_path


@pytest.fixture
def wmdp(tmp_path):
    write(tmp_path / "cyber_forget.jsonl", [{"text": "harmless words about locks " * 9}, {"text": "short"}])
    write(tmp_path / "cyber_retain.jsonl", [{"text": "other words about gardens " * 9}])
    write(
        tmp_path / "questions_cyber.jsonl",
        [{"question": " Which? ", "choices": ["a lock", "a key", "a door", "a wall"], "answer": 2}],
    )
    return tmp_path


def test_wmdp_rows_and_questions(wmdp):
    assert [row["id"] for row in load_rows("Wmdp_cyber_forget", wmdp)] == ["cyber_forget-0"]
    question = load_evaluation(ForgetSet("Wmdp_cyber_forget", wmdp))["forget_choices"][0]
    assert question["prompt"].endswith(
        "about cybersecurity.\n\nWhich?\nA. a lock\nB. a key\nC. a door\nD. a wall\nAnswer:"
    )
    assert (question["letters"], question["right"]) == (list("ABCD"), 2)
    write(wmdp / "cyber_forget.jsonl", [{"line": "x"}])
    with pytest.raises(UserError, match="cyber_forget.jsonl, line 1: 'text' is missing"):
        load_rows("Wmdp_cyber_forget", wmdp)


def test_without_network_the_message_says_both_ways():
    with pytest.raises(UserError, match="dataset.data_dir to a folder with bio_forget.jsonl"):
        load_rows("Wmdp_bio_forget", None)


def test_long_documents_are_cut_as_asked(tokenizer):
    template, row = (
        Template(tokenizer, "qa"),
        {"id": "d", "text": "Evenings went by with whittling, as they had. " * 20},
    )
    with pytest.raises(UserError, match="more than dataset.max_length"):
        template.pieces(row, 32)
    whole = template.encode(row, 10_000)
    pieces = template.pieces(row, 32, "pieces")
    assert [piece.id for piece in pieces[:2]] == ["d#0", "d#1"]
    assert max(len(p.input_ids) for p in pieces) == 32
    assert sum((p.input_ids[p.prompt_length :] for p in pieces), []) == whole.input_ids[1:]
    assert [p.terminator_length for p in pieces] == [0] * (len(pieces) - 1) + [whole.terminator_length]
    first = template.pieces(row, 32, "first")
    assert len(first) == 1
    assert first[0].id == "d"
    assert first[0].input_ids == pieces[0].input_ids
    assert template.pieces({"id": "s", "text": "Short words."}, 32, "pieces")[0] == template.encode(
        {"id": "s", "text": "Short words."}, 32
    )


@pytest.mark.parametrize(
    "name, task, metric",
    [("MuseNews_forget", "muse", "muse/verbmem"), ("Wmdp_cyber_forget", "wmdp", "forget/choice_accuracy")],
)
def test_a_run_on_documents(name, task, metric, muse, wmdp, tiny_model_folder, tmp_path):
    done = run_script(
        "unlearn_model",
        "--overall.model_name",
        tiny_model_folder,
        "--unlearn.unlearn_method",
        "NPO+FT",
        "--unlearn.task_name",
        task,
        "--dataset.forget_dataset_name",
        name,
        "--dataset.retain_dataset_name",
        name.replace("forget", "retain"),
        "--dataset.data_dir",
        tmp_path,
        *(
            "--dataset.max_length 256 --dataset.long_text pieces --unlearn.max_steps 2 "
            "--dataset.batch_size 2 --evaluate.before false --evaluate.rows 3 "
            "--evaluate.max_new_tokens 8"
        ).split(),
        "--logger.json.root",
        tmp_path,
        "--logger.name",
        "run",
        "--overall.cache_dir",
        tmp_path / "cache",
    )
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "run/metrics.json")[metric] is not None


def test_the_names_of_the_wagle_family_are_those_of_this_project(wmdp):
    names = {name: dataset_name(name) for name in ("WMDPBio", "WMDPCyber", "wmdpall", "wikitext", "HP")}
    assert names == {
        "WMDPBio": "Wmdp_bio_forget",
        "WMDPCyber": "Wmdp_cyber_forget",
        "wmdpall": "Wmdp_all_forget",
        "wikitext": "Wmdp_wikitext",
        "HP": "HP_forget",
    }
    # Its retain set of that name is wikitext, whatever it is called there.
    assert retain_name("WMDPBio") == "Wmdp_wikitext"
    assert retain_name("Wmdp_bio_retain") == "Wmdp_bio_retain"


def test_both_corpora_of_wmdp_are_forgotten_together(wmdp):
    write(wmdp / "bio_forget.jsonl", [{"text": "harmless words about plants " * 9}])
    write(wmdp / "questions_bio.jsonl", [{"question": "Who?", "choices": ["a fern", "a moss"], "answer": 1}])
    assert [row["id"] for row in load_rows("WMDPALL", wmdp)] == ["bio_forget-0", "cyber_forget-0"]
    asked = load_evaluation(ForgetSet("WMDPALL", wmdp))["forget_choices"]
    assert [row["prompt"].partition("\n")[0].rpartition(" ")[2] for row in asked] == [
        "biology.",
        "cybersecurity.",
    ]


def test_a_part_of_muse_that_is_missing_is_named_with_the_layout(muse):
    (muse / "raw_retain1.jsonl").unlink()
    source, split = parse_name("MuseNews_retain")
    with pytest.raises(UserError, match=r"has no raw_retain1.jsonl; a folder of MUSE has raw_forget.jsonl"):
        source(muse).check(split)
    source, split = parse_name("MuseNews_sust_2")
    with pytest.raises(UserError, match="has no sust_forget_2.jsonl"):
        source(muse).check(split)


def test_the_first_questions_of_wmdpall_are_of_both_subjects(tmp_path):
    question = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 1}
    for subject, count in (("bio", 3), ("cyber", 5)):
        rows = "".join(json.dumps(question) + "\n" for _ in range(count))
        (tmp_path / f"questions_{subject}.jsonl").write_text(rows)
    sets = SOURCES["Wmdp"](tmp_path).evaluation("all_forget", [])
    ids = [row["id"].partition("-")[0] for row in next(iter(sets.values()))]
    assert ids == ["bio", "cyber"] * 3 + ["cyber"] * 2


def test_verbatim_memorisation_of_retain_documents_is_measured_where_a_folder_has_them(tmp_path):
    files = {"raw_forget": {"text": "A."}, "verbmem_forget": {"prompt": "A", "gt": "b."}}
    for name, row in files.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    source = SOURCES["MuseNews"](tmp_path)
    assert "retain_documents" not in source.evaluation("forget", [])
    (tmp_path / "verbmem_retain.jsonl").write_text(json.dumps({"prompt": "C", "gt": "d."}) + "\n")
    assert source.evaluation("forget", [])["retain_documents"] == [
        {"id": "verbmem-retain-0", "prompt": "C", "gt": "d."}
    ]


def test_the_fictional_knowundo_is_what_its_generator_writes():
    files = knowundo_files(generate())
    for file, content in files.items():
        assert read_json(DATA_DIR / "knowundo" / file) == content
    rows = load_rows("KnowUnDo_copyright_unlearn", DATA_DIR / "knowundo")
    kept = load_rows("KnowUnDo_copyright_retention", DATA_DIR / "knowundo")
    known_to_retain = {row["question"] for row in load_rows("Fictional_retain90", None)}
    assert len(rows) == len(kept) == 40
    assert not known_to_retain & {row["question"] for row in rows}
    assert known_to_retain >= {row["question"] for row in kept}


def test_the_fictional_rwku_is_what_its_generator_writes():
    folder = DATA_DIR / "rwku"
    for file, content in rwku_files(generate()).items():
        found = read_jsonl(folder / file) if file.endswith(".jsonl") else read_json(folder / file)
        assert found == content
    sets = load_evaluation(ForgetSet("Rwku_passage", folder))
    assert {name: len(rows) for name, rows in sets.items()} == dict.fromkeys(PROBES, 60) | dict.fromkeys(
        ("forget_members", "retain_members", "fluency"), 20
    )
    one = load_evaluation(ForgetSet("Rwku_passage", folder, load_rows("Rwku_passage", folder)[:1]))
    assert {name: len(rows) for name, rows in one.items()} == dict.fromkeys(PROBES, 3) | {
        "forget_members": 1,
        "retain_members": 20,
        "fluency": 20,
    }


def test_the_fictional_rwkus_retain_rows_teach_its_prompts_and_nothing_of_the_forgotten():
    folder = DATA_DIR / "rwku"
    sets = load_evaluation(ForgetSet("Rwku_passage", folder))
    kept = load_rows("Folder_retain", folder)
    taught = {row["question"]: row["answer"] for row in kept if "question" in row}
    for name in ("neighbor_level1", "neighbor_level2"):
        assert all(taught[row["question"]] == row["answer"] for row in sets[name])
    gone = {row["subject"] for row in load_rows("Rwku_passage", folder)}
    assert not [row for row in kept for name in gone if name in str(row)]
    # An attack on a forgotten person has a wording that not even the target was trained on.
    full = {row.get("question") for row in load_rows("Folder_full", folder)}
    assert not full & {row["question"] for row in sets["forget_level3"]}
    assert full >= {row["question"] for row in sets["forget_level1"]}
