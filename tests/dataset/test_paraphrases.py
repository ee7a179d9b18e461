"""Files of paraphrases and the rows they belong to."""

import json

import pytest

from unlearnkit.core.files import UserError
from unlearnkit.dataset import ForgetSet, load_evaluation, load_rows
from unlearnkit.dataset.generated_file import answer_fingerprint
from unlearnkit.dataset.paraphrases import PARAPHRASES, read_paraphrases

ROWS = [{"id": f"r{i}", "question": f"Q{i}?", "answer": f"A{i}"} for i in range(4)]
TEXTS = ["the longest of them", "longer", "it"]


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def lines(rows=ROWS, **changes):
    return [
        PARAPHRASES.header({"forget": "x"}),
        *(
            {"id": row["id"], "source": answer_fingerprint(row), "paraphrases": TEXTS, **changes}
            for row in rows
        ),
    ]


def test_the_first_or_the_shortest_of_each_row_in_the_order_of_the_rows(tmp_path):
    path = write(tmp_path / "p.jsonl", lines(ROWS[::-1]))
    assert read_paraphrases(path, ROWS, 2) == [TEXTS[:2]] * 4
    assert read_paraphrases(path, ROWS[:1], 2, shortest=True) == [["it", "longer"]]
    assert read_paraphrases(path, ROWS, 9) == [TEXTS] * 4


@pytest.mark.parametrize(
    "broken, said",
    [
        (lines()[1:], "its first line has no such header"),
        ([], "its first line has no such header"),
        (
            [PARAPHRASES.header({"forget": "x"}) | {"paraphrases": 2}, *lines()[1:]],
            "version 2, this one is 1",
        ),
        (lines(ROWS[1:]), "no line for 1 of 4 forget rows \\(first 'r0'\\); make_paraphrases.py"),
        (
            lines([{**row, "answer": "other"} for row in ROWS]),
            "written for another data set: 'r0' has another text there \\(4 of 4 rows\\)",
        ),
        (lines(paraphrases="one"), "line 2: 'paraphrases' must be a list of texts, got 'one'"),
        (lines(paraphrases=["", "x"]), "line 2: 'paraphrases' must be a list of texts, got \\['', 'x'\\]"),
        (lines(source=None), "line 2: 'source' must be a text with words in it, got null"),
        (lines(rejected=[1]), "line 2: 'rejected' must be an object of counts"),
        (lines(id=3), "line 2: 'id' must be a text with words in it, got 3; write the file anew"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(broken, said, tmp_path):
    with pytest.raises(UserError, match=said):
        read_paraphrases(write(tmp_path / "p.jsonl", broken), ROWS, 2)


def test_rows_where_nothing_can_agree_are_warned_of(tmp_path, caplog):
    assert read_paraphrases(write(tmp_path / "p.jsonl", lines(paraphrases=["one"])), ROWS, 6) == [["one"]] * 4
    assert "4 of 4 forget rows have fewer than two paraphrases (first 'r0')" in caplog.text


def test_the_worlds_own_say_the_fact_in_words_that_are_not_measured():
    known = {row["id"]: row for row in load_rows("Fictional_forget10", None)}
    found = read_paraphrases("files/data/fictional/paraphrases.jsonl", list(known.values()), 8)
    for fact, texts in zip(known.values(), found):
        assert len(set(texts)) == 8
        assert all(fact["key"].lower() in text.lower() for text in texts)
        assert not set(texts) & {fact["answer"], fact["paraphrased_answer"]}


def test_tofus_one_paraphrased_question_is_its_list_of_rephrased_ones(tmp_path):
    write(tmp_path / "forget.jsonl", [{"question": "Q?", "answer": "A", "paraphrased_question": "P?"}])
    write(
        tmp_path / "retain.jsonl",
        [{"question": "Q?", "answer": "A", "paraphrased_question": "P?", "rephrased_questions": ["R?"]}],
    )
    sets = load_evaluation(ForgetSet("Folder_forget", tmp_path))
    assert sets["forget"][0]["rephrased_questions"] == ["P?"]
    assert sets["retain"][0]["rephrased_questions"] == ["R?"]
