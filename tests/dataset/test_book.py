"""A user's own book, and the files of the WAGLE family's HP task."""

import json

import pytest
from conftest import SHARED_DATA
from scripts import run_script

from unlearnkit.core.encoding import Template
from unlearnkit.core.files import UserError, read_json
from unlearnkit.dataset import ForgetSet, dataset_name, load_evaluation, load_rows, parse_name
from unlearnkit.dataset.book import SECTION, SHARES, Section, _divided

ALICE = SHARED_DATA / "alice/alice_in_wonderland.txt"


def book(words: int, name: str = "w", width: int = 9) -> str:
    """A text of different words, so many in a line."""
    lines = [
        " ".join(f"{name}{number}" for number in range(first, min(first + width, words)))
        for first in range(0, words, width)
    ]
    return "\n".join(lines) + "\n"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def texts(name, place):
    return [row["text"] for row in load_rows(name, place)]


def test_a_book_is_cut_into_sections_by_words(tmp_path):
    """10 sections: 40 % to forget, 40 % to retain, 20 % held out."""
    file = write(tmp_path / "book.txt", book(10 * SECTION + 7))
    words = [f"w{number}" for number in range(10 * SECTION + 7)]
    forget, retain = texts("Book_forget", file), texts("Book_retain", file)
    assert [text.split() for text in forget] == [words[n * SECTION :][:SECTION] for n in range(4)]
    assert [text.split() for text in retain] == [words[n * SECTION :][:SECTION] for n in range(4, 8)]
    assert texts("Book_full", file) == forget + retain
    held_out = load_evaluation(ForgetSet("Book_forget", file))["holdout_passages"]
    assert [word for row in held_out for word in row["text"].split()] == words[8 * SECTION :]


def test_a_share_in_the_name_takes_less_of_the_book(tmp_path):
    file = write(tmp_path / "book.txt", book(20 * SECTION))
    assert [row["id"] for row in load_rows("Book_forget10", file)] == ["section-0", "section-1"]
    assert [row["id"] for row in load_rows("Book_retain10", file)] == ["section-2", "section-3"]
    assert [row["id"] for row in load_rows("Book_full05", file)] == ["section-0", "section-1"]
    held_out = load_evaluation(ForgetSet("Book_forget05", file))["holdout_passages"]
    assert [row["id"] for row in held_out] == [f"section-{number}" for number in range(16, 20)]


@pytest.mark.parametrize("share", SHARES)
def test_no_section_is_in_two_parts(share, tmp_path):
    for count in range(3, 150):
        sections = [Section(str(number), "", [], tmp_path, 1) for number in range(count)]
        parts = _divided(sections, [tmp_path], share)
        ids = [section.id for part in ("forget", "retain", "holdout") for section in parts[part]]
        assert all(parts.values())
        assert len(set(ids)) == len(ids)


def test_a_passage_is_a_section_with_the_prompt_in_front_of_its_last_words(tmp_path):
    file = write(tmp_path / "book.txt", book(3 * SECTION))
    sets = load_evaluation(ForgetSet("Book_forget", file))
    words = [f"w{number}" for number in range(SECTION)]
    for length in (300, 200, 100, 50):
        (row,) = sets["forget_passages" + ("" if length == 300 else f"_{length}")]
        assert row["prompt"].split() == words[300 - length : 300]
        assert row["gt"].split() == words[300:450]
        assert row["prompt_words"] == length
    whole = sets["forget_passages"][0]
    # As in the file, line breaks included.
    assert whole["text"] == file.read_text()[: len(whole["text"])]
    assert whole["text"].startswith(whole["prompt"]) and whole["text"].endswith(whole["gt"])


def test_passages_are_of_the_forgotten_sections_at_equal_distances(tmp_path):
    file = write(tmp_path / "book.txt", book(100 * SECTION, width=SECTION))
    rows = load_rows("Book_forget", file)
    ids = [row["id"] for row in load_evaluation(ForgetSet("Book_forget", file))["forget_passages"]]
    assert ids == [f"section-{number}" for number in range(0, 40, 2)]
    few = load_evaluation(ForgetSet("Book_forget", file, rows[5:7]))["forget_passages"]
    assert [row["id"] for row in few] == ["section-5", "section-6"]


def test_the_files_of_a_folder_are_one_book(tmp_path):
    whole = write(tmp_path / "whole.txt", book(4 * SECTION, width=SECTION))
    folder = tmp_path / "book"
    folder.mkdir()
    lines = whole.read_text().splitlines()
    for number, line in enumerate(lines):
        write(folder / f"{number}.txt", line)
    (folder / "notes.md").write_text("not read")
    assert texts("Book_full", folder) == texts("Book_full", whole)


def test_words_of_scripts_without_blanks_are_counted(tmp_path):
    characters = [chr(0x4E00 + number) for number in range(3 * SECTION)]
    file = write(tmp_path / "book.txt", "".join(characters))
    assert texts("Book_forget", file) == ["".join(characters[:SECTION])]


def test_users_divide_their_book_themselves(tmp_path):
    for number, part in enumerate(("forget", "retain", "holdout")):
        write(tmp_path / f"{part}.txt", book((number + 1) * SECTION, part[0]))
    assert [row["id"] for row in load_rows("Book_full", tmp_path)] == ["forget-0", "retain-0", "retain-1"]
    assert len(load_evaluation(ForgetSet("Book_forget", tmp_path))["holdout_passages"]) == 3
    with pytest.raises(UserError, match="forget.txt, which is forgotten as a whole: name Book_full, not"):
        load_rows("Book_full10", tmp_path)
    (tmp_path / "holdout.txt").unlink()
    assert load_evaluation(ForgetSet("Book_forget", tmp_path))["holdout_passages"] == []
    (tmp_path / "retain.txt").unlink()
    with pytest.raises(UserError, match="has a forget.txt but no retain.txt"):
        load_rows("Book_forget", tmp_path)


def test_sections_are_cut_into_pieces_of_max_length(tokenizer, tmp_path):
    template = Template(tokenizer, "qa")
    row = load_rows("Book_forget", write(tmp_path / "book.txt", book(3 * SECTION)))[0]
    pieces = template.pieces(row, 128, "pieces")
    assert (
        sum((piece.input_ids[piece.prompt_length :] for piece in pieces), [])
        == (template.encode(row, 100_000).input_ids[1:])
    )


def test_a_short_book_is_refused(tmp_path):
    file = write(tmp_path / "book.txt", book(3 * SECTION - 1))
    with pytest.raises(UserError, match=r"book.txt: 1349 words; a book needs 1350: a section of 450 words"):
        load_rows("Book_forget", file)
    write(file, book(SECTION - 1))
    with pytest.raises(UserError, match="book.txt: fewer than 450 words; a book needs 1350"):
        load_rows("Book_forget", file)
    write(tmp_path / "forget.txt", book(SECTION - 1))
    write(tmp_path / "retain.txt", book(SECTION, "r"))
    with pytest.raises(UserError, match="forget.txt: fewer than 450 words, which make one passage"):
        load_rows("Book_forget", tmp_path)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(UserError, match="dataset.data_dir: Book needs your book: a plain-text file"):
        load_rows("Book_forget", None)
    with pytest.raises(UserError, match=f"dataset.data_dir: {tmp_path} has no .txt file"):
        load_rows("Book_forget", tmp_path)
    with pytest.raises(UserError, match="nowhere does not exist"):
        load_rows("Book_forget", tmp_path / "nowhere")
    write(tmp_path / "a.txt", book(3 * SECTION))
    write(tmp_path / "b.txt", " \n")
    with pytest.raises(UserError, match="b.txt: an empty file"):
        load_rows("Book_forget", tmp_path)
    (tmp_path / "b.txt").write_bytes(b"eins\nzwei\ndrei\n" + "für".encode("latin-1"))
    with pytest.raises(UserError, match=r"b.txt, line 4: not UTF-8 text \(byte 16\)"):
        load_rows("Book_forget", tmp_path)


def test_parts_that_overlap_are_named_by_file_and_line(tmp_path):
    forget = book(2 * SECTION, "f").splitlines()
    write(tmp_path / "forget.txt", "\n".join(forget))
    # Lines 51 to 70 of the forget part stand behind 60 lines of the other, in another case.
    copied = [line.upper() for line in forget[50:70]]
    write(tmp_path / "retain.txt", book(60 * 9, "r") + "\n".join(copied))
    told = rf"retain.txt, line 6\d \(retain\): the same 50 words stand in {tmp_path / 'forget.txt'}, line 5\d"
    with pytest.raises(UserError, match=told):
        load_rows("Book_retain", tmp_path)
    write(tmp_path / "retain.txt", book(60 * 9, "r") + "\n".join(copied[:5]))
    assert len(load_rows("Book_retain", tmp_path)) == 1
    twice = write(tmp_path / "twice.txt", 2 * book(3 * SECTION))
    with pytest.raises(UserError, match="parts of a book must not overlap"):
        load_rows("Book_forget", twice)


def test_rows_of_stars_are_no_overlap(tmp_path):
    stars = "* " * 2 * SECTION + "\n"
    file = write(tmp_path / "book.txt", book(SECTION, "a") + stars + book(4 * SECTION, "b"))
    assert len(load_rows("Book_full", file)) == 4


@pytest.mark.skipif(not ALICE.is_file(), reason="needs shared/data/alice")
def test_alice_in_wonderland_is_divided():
    sets = load_evaluation(ForgetSet("Book_forget10", ALICE))
    assert [len(sets[f"{part}_passages"]) for part in ("forget", "retain", "holdout")] == [5, 5, 11]
    assert sets["forget_passages"][0]["text"].startswith("CHAPTER I. Down the Rabbit-Hole\n\nAlice was")
    assert all(row["text"] in ALICE.read_text(encoding="utf-8-sig") for row in sets["holdout_passages"])


@pytest.fixture
def hp(tmp_path):
    """The layout of the WAGLE family's folder, with rows of ours."""
    folder = tmp_path / "hp"
    folder.mkdir()

    def rows(name, *table):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))

    pairs = [{"prompt": f"The owl of house {n} flew", "response": f"over tower {n} at dawn."} for n in "abc"]
    rows("hp_qa", *pairs)
    rows("hp", {"text": "Once there was a school for owls."})
    rows("hp_train_qa_300", *pairs[:2])
    rows("hp_test_qa_300", {"prompt": "Nobody read", "response": "this line."})
    rows("hp_train_qa_50", pairs[0])
    return folder


def test_the_layout_of_the_wagle_family_is_read(hp):
    assert dataset_name("HP") == "HP_forget" == dataset_name("hp_forget")
    assert parse_name("HP")[1] == "forget"
    assert load_rows("HP", hp)[1] == {
        "id": "qa-1",
        "prompt": "The owl of house b flew",
        "answer": "over tower b at dawn.",
    }
    assert load_rows("HP_full", hp)[-1] == {"id": "text-0", "text": "Once there was a school for owls."}
    sets = load_evaluation(ForgetSet("HP", hp))
    assert {name: len(rows) for name, rows in sets.items()} == {
        "forget_passages": 2,
        "forget_passages_50": 1,
        "holdout_passages": 1,
    }
    assert sets["holdout_passages"][0] == {
        "id": "holdout-0",
        "prompt": "Nobody read",
        "gt": "this line.",
        "text": "Nobody read this line.",
    }


def test_what_the_folder_of_the_wagle_family_lacks_is_named(hp):
    (hp / "hp_test_qa_300.jsonl").write_text('{"prompt": "Nobody"}\n')
    with pytest.raises(UserError, match="hp_test_qa_300.jsonl, line 1: 'response' is missing"):
        load_evaluation(ForgetSet("HP", hp))
    (hp / "hp_qa.jsonl").unlink()
    with pytest.raises(UserError, match=f"dataset.data_dir: {hp} has no hp_qa.jsonl. HP reads your own copy"):
        load_rows("HP", hp)


def words_of_a_run(model, name, place, folder):
    return [
        *("--overall.model_name", model, "--unlearn.task_name", "copyright", "--dataset.data_dir", place),
        *("--dataset.forget_dataset_name", name, "--dataset.batch_size", "2"),
        *"--dataset.max_length 256 --dataset.long_text pieces --unlearn.max_steps 2".split(),
        *"--evaluate.before false --evaluate.rows 2 --evaluate.max_new_tokens 8".split(),
        *("--logger.json.root", folder, "--logger.name", "run", "--overall.cache_dir", folder / "cache"),
    ]


@pytest.mark.run
def test_a_run_on_a_book(tiny_model_folder, tmp_path):
    file = write(tmp_path / "book.txt", book(4 * SECTION))
    words = words_of_a_run(tiny_model_folder, "Book_forget", file, tmp_path)
    done = run_script(
        "unlearn_model", *words, "--unlearn.unlearn_method", "NPO+FT", "--dataset.retain_dataset_name",
        "Book_retain", "--evaluate.metrics", "copyright,copyright_lengths",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = read_json(tmp_path / "run/metrics.json")
    assert None not in figures.values()
    assert len(figures) == 18 + 3 * 2 * 7
    rows = [json.loads(line) for line in (tmp_path / "run/samples/forget_passages.jsonl").open()]
    assert rows[0]["gt"].startswith("w300 ") and "continuation" in rows[0]
    # A continuation has a budget of its own, which cuts no answer.
    assert "cut_texts" not in json.dumps(read_json(tmp_path / "run/metrics_detail.json"))


@pytest.mark.run
def test_a_run_on_the_layout_of_the_wagle_family(hp, tiny_model_folder, tmp_path):
    words = words_of_a_run(tiny_model_folder, "HP", hp, tmp_path)
    done = run_script("unlearn_model", *words, "--unlearn.unlearn_method", "GA")
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "run/metrics.json")["copyright/forget_rougeL"] is not None


@pytest.mark.run
def test_a_wrong_book_ends_with_one_line(tiny_model_folder, tmp_path):
    file = write(tmp_path / "book.txt", "too short")
    words = words_of_a_run(tiny_model_folder, "Book_forget", file, tmp_path)
    done = run_script("unlearn_model", *words, "--dataset.retain_dataset_name", "Book_retain")
    assert done.returncode == 1
    assert done.stderr.count("error:") == 1 and f"{file}: fewer than 450 words" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.run
@pytest.mark.parametrize("other", ["Book_full10", "Book_retain05", "Book_retain"])
def test_a_part_that_overlaps_with_the_forgotten_one_is_not_retained(other, tiny_model_folder, tmp_path):
    file = write(tmp_path / "book.txt", book(4 * SECTION))
    words = words_of_a_run(tiny_model_folder, "Book_forget10", file, tmp_path)
    words += ["--dataset.retain_dataset_name", other]
    done = run_script("unlearn_model", *words, "--unlearn.unlearn_method", "NPO+FT")
    assert done.returncode == 2
    assert f"{other} overlaps with Book_forget10 or has another share; take Book_retain10" in done.stderr


@pytest.mark.run
def test_a_file_is_no_folder_of_other_sources(tiny_model_folder, tmp_path):
    file = write(tmp_path / "book.txt", book(4 * SECTION))
    words = words_of_a_run(tiny_model_folder, "MuseNews_forget", file, tmp_path)
    done = run_script("unlearn_model", *words, "--unlearn.unlearn_method", "GA")
    assert done.returncode == 2
    assert f"dataset.data_dir: {file} is a file; MuseNews reads the files of a folder" in done.stderr
