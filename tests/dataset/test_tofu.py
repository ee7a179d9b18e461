import json

import pytest
from conftest import SHARED_DATA

from unlearnkit.core.files import UserError
from unlearnkit.dataset.sources import ForgetSet, load_evaluation, load_rows


def test_rows_of_a_folder_get_ids(tmp_path):
    (tmp_path / "forget01.json").write_text(
        '{"question": "Q?", "answer": "A."}\n{"question": "P?", "answer": "B."}\n'
    )
    assert [row["id"] for row in load_rows("Tofu_forget01", tmp_path)] == ["forget01-0", "forget01-1"]


def test_broken_and_empty_files_are_named(tmp_path):
    (tmp_path / "forget01.json").write_text('{"question": "Q?", "answer": "A."}\n{"question": \n')
    with pytest.raises(UserError, match="forget01.json, line 2"):
        load_rows("Tofu_forget01", tmp_path)
    (tmp_path / "forget01.json").write_text("")
    with pytest.raises(UserError, match="has no rows"):
        load_rows("Tofu_forget01", tmp_path)


@pytest.mark.skipif(not (SHARED_DATA / "tofu").is_dir(), reason="the real TOFU files are not here")
def test_the_real_files_load():
    assert len(load_rows("Tofu_forget10", SHARED_DATA / "tofu")) == 400
    sets = load_evaluation(ForgetSet("Tofu_forget10", SHARED_DATA / "tofu"))
    assert {name: len(rows) for name, rows in sets.items()} == {
        "forget": 400,
        "retain": 400,
        "real": 100,
        "world": 117,
    }
    assert json.dumps(sets["forget"][0])
