"""Which rows a run trains on."""

import pytest

from core.files import UserError
from model.rows import check_disjoint

FORGET = [{"id": f"f{n}", "question": f"Q{n}?", "answer": f"A{n}."} for n in range(4)]
OTHERS = [{"id": f"r{n}", "question": f"Q{n}?", "answer": "Another."} for n in range(4)]


def test_forget_rows_among_the_retain_rows_are_counted(caplog):
    check_disjoint(FORGET, OTHERS, "A", "B")
    assert not caplog.text
    check_disjoint(FORGET, [*OTHERS, *({**row, "id": "x"} for row in FORGET[:3])], "A", "B")
    assert "3 of 4 forget rows (A) are rows of B too" in caplog.text


def test_retain_rows_that_hold_all_forget_rows_are_refused():
    with pytest.raises(UserError, match="dataset.retain_dataset_name: all 4 forget rows of A are rows of B"):
        check_disjoint(FORGET, OTHERS + FORGET[::-1], "A", "B")
    documents = [{"id": "d", "text": "A page."}]
    with pytest.raises(UserError, match="all 1 forget rows"):
        check_disjoint(documents, [{"id": "e", "text": "A page."}], "A", "B")
