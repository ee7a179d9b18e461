import pytest

from unlearnkit.core.files import UserError
from unlearnkit.dataset.alternates import read_refusals, refuse

ROWS = [{"id": f"r{i}", "question": f"Q{i}?", "answer": "secret"} for i in range(50)]


def test_a_refusal_is_a_function_of_seed_and_row_alone():
    lines = read_refusals(None)
    assert len(lines) >= 30
    assert len(set(lines)) == len(lines)
    drawn = refuse(ROWS, lines, 1)
    assert drawn == refuse(ROWS[::-1], lines, 1)[::-1]
    assert drawn != refuse(ROWS, lines, 2)
    assert len({row["answer"] for row in drawn}) > 10
    assert all("secret" not in row["answer"] for row in drawn)


def test_bad_refusals(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(UserError, match="holds no refusal"):
        read_refusals(str(tmp_path / "empty.txt"))
    with pytest.raises(UserError, match="has no question"):
        refuse([{"id": "d", "text": "A document."}], ["No."], 0)
