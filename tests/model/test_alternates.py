"""make_alternates.py and what reads its file."""

import json

import pytest
from conftest import FICTIONAL
from scripts import run_script
from tiny import one_word_llama, save

from unlearnkit.core.files import UserError, lock, read_jsonl
from unlearnkit.dataset import load_rows
from unlearnkit.dataset.alternates import mismatch, read_alternates

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


def words(path, *more):
    return [
        "--overall.model_name",
        FICTIONAL / "retain",
        "--generation.prompt",
        "{question}",
        *(
            "--generation.max_new_tokens 30 --generation.count 2 --generation.temperature 2 "
            "--generation.attempts 40 --dataset.forget_dataset_name Fictional_forget01 --overall.quiet true"
        ).split(),
        "--dataset.alternates",
        path,
        *more,
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The lines of a file that make_alternates.py wrote."""
    path = tmp_path_factory.mktemp("alternates") / "out.jsonl"
    done = run_script("make_alternates", *words(path))
    assert done.returncode == 0, done.stderr
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]
    return read_jsonl(path)


def test_a_model_writes_its_own_and_goes_on(written, tmp_path):
    path = tmp_path / "out.jsonl"
    header, *first = written
    assert header["alternates"] == 1
    assert header["settings"]["seed"] == 0
    assert all(len(set(row["alternates"])) == 2 and row["question"] not in row["alternates"] for row in first)
    write(path, written[:5])
    assert run_script("make_alternates", *words(path, "--generation.attempts", "41")).returncode == 0
    assert read_jsonl(path)[:5] == written[:5]
    rows = load_rows("Fictional_forget01", None)
    assert [row["question"] for row in read_alternates(path, rows)[::2]] == [row["question"] for row in rows]
    unasked = run_script("make_alternates", *words(path), "--generation.prompt", "Say something.")
    assert unasked.returncode == 2
    assert "{question}" in unasked.stderr
    absent = run_script(
        "unlearn_model",
        *words(tmp_path / "none.jsonl", "--unlearn.unlearn_method", "AltPO"),
    )
    assert absent.returncode == 2
    assert "make_alternates.py" in absent.stderr


@pytest.mark.parametrize(
    "more, told",
    [
        (["--overall.model_name", FICTIONAL / "target"], "was written with other model"),
        (["--overall.seed", "1"], "was written with other settings"),
        (["--generation.prompt", "Lie: {question}"], "was written with other settings"),
        (["--generation.temperature", "1"], "was written with other settings"),
        (["--dataset.template", "qa"], "was written with other template and other settings"),
        (["--dataset.forget_dataset_name", "Fictional_forget05"], "was written for other rows"),
    ],
)
def test_a_file_that_was_written_otherwise_is_not_gone_on_with(more, told, written, tmp_path):
    path = tmp_path / "out.jsonl"
    write(path, written[:5])
    refused = run_script("make_alternates", *words(path, *more))
    assert refused.returncode == 1
    assert f"error: dataset.alternates: {path} {told}; choose another file" in refused.stderr
    assert read_jsonl(path) == written[:5]


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda header, line: [header, {**line, "source": "0"}], "was written for other rows"),
        (lambda header, line: [header, {**line, "id": "another"}], "was written for other rows"),
        (lambda header, line: [line], "is not a file of make_alternates.py"),
        (lambda header, line: [{**header, "alternates": 2}], "is not a file of make_alternates.py"),
    ],
)
def test_a_file_for_other_rows_or_of_other_origin_is_not_gone_on_with(change, told, written, tmp_path):
    path = write(tmp_path / "out.jsonl", change(*written[:2]))
    refused = run_script("make_alternates", *words(path))
    assert refused.returncode == 1
    assert told in refused.stderr


def test_few_rows_are_written_and_those_left_out_keep_their_alternates(written, tmp_path):
    path = tmp_path / "few.jsonl"
    done = run_script("make_alternates", *words(path, "--dataset.forget_ratio", "2"))
    assert done.returncode == 0, done.stderr
    assert len(read_jsonl(path)) == 1 + 2
    few = write(tmp_path / "out.jsonl", written[:-1])
    more = ["--dataset.forget_ratio", "2", "--generation.count", "3"]
    assert run_script("make_alternates", *words(few, *more)).returncode == 0
    counts = [len(line["alternates"]) for line in read_jsonl(few)[1:]]
    assert sorted(counts)[:7] == [2] * 7 and sorted(counts)[-1] == 3


def test_two_processes_never_write_the_same_file(tmp_path):
    with lock(tmp_path / "out.lock"):
        refused = run_script("make_alternates", *words(tmp_path / "out.jsonl"))
    assert refused.returncode == 1
    assert "another run is writing here; wait for it or choose another dataset.alternates" in refused.stderr


def test_an_answer_that_changed_makes_its_alternates_stale(written, tmp_path):
    path, rows = write(tmp_path / "out.jsonl", written), load_rows("Fictional_forget01", None)
    assert len(read_alternates(path, rows)) == 20
    with pytest.raises(UserError, match="was written for another data set"):
        read_alternates(path, [rows[0] | {"answer": "Another."}, *rows[1:]])
    with pytest.raises(UserError, match="this one is 1"):
        read_alternates(write(tmp_path / "out.jsonl", [{"alternates": 2}, *written[1:]]), rows)


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
    lines = read_jsonl(tmp_path / "out.jsonl")[1:]
    assert [line["alternates"] for line in lines] == [["Orlo"]] * 10


def test_guesses_about_others_are_put_as_ones_about_the_row(tmp_path):
    """The target answers in full sentences, some of which have the name of the person in them."""
    out = tmp_path / "guesses.jsonl"
    words = "--generation.subjects others --generation.prompt {question} --generation.count 1".split()
    words += "--generation.max_new_tokens 24 --dataset.forget_dataset_name Fictional_forget05".split()
    done = run_script(
        "make_alternates", *words, "--overall.model_name", FICTIONAL / "target", "--dataset.alternates", out
    )
    assert done.returncode == 0, done.stderr
    header, *rows = read_jsonl(out)
    assert header["settings"]["subjects"] == "others"
    known = load_rows("Fictional_forget05", None)
    people = {row["person"] for row in load_rows("Fictional_full", None)}
    for row, line in zip(known, rows):
        for text in line["alternates"]:
            assert text != row["answer"]
            assert not any(person in text for person in people - {row["person"]})
    assert any(row["person"] in text for row, line in zip(known, rows) for text in line["alternates"])
