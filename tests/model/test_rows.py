"""Which rows a run trains on."""

import pytest
from conftest import REPO

from unlearnkit.core.files import UserError, write_jsonl
from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
from unlearnkit.model.training_data import RequestedParts, check_disjoint, part_sources, training_texts
from unlearnkit.unlearn import compose

FORGET = [{"id": f"f{n}", "question": f"Q{n}?", "answer": f"A{n}."} for n in range(4)]
OTHERS = [{"id": f"r{n}", "question": f"Q{n}?", "answer": "Another."} for n in range(4)]


def test_forget_rows_among_the_retain_rows_are_counted(caplog):
    check_disjoint(FORGET, OTHERS, "A", "B")
    assert not caplog.text
    check_disjoint(FORGET, [*OTHERS, *({**row, "id": "x"} for row in FORGET[:3])], "A", "B")
    assert "3 of 4 forget rows (A) are rows of B too" in caplog.text


def test_rows_that_are_retained_of_the_forget_set_itself_are_named_as_such(monkeypatch, caplog):
    """Two facts stand in the forget set twice."""
    monkeypatch.chdir(REPO)
    flags = {
        "unlearn.unlearn_method": "GA+FT",
        "dataset.self_retain": "true",
        "dataset.forget_ratio": "0.5",
        "dataset.retain_dataset_name": "Fictional_retain90",
    }
    settings = resolve_settings(StrictConfig(), [], flags, {})
    composition = compose(settings.method, settings.components)
    wanted = lambda rest: RequestedParts(composition.parts, composition.alternates, FORGET, rest)
    texts = lambda rest: training_texts(settings, wanted(rest))
    texts(OTHERS + FORGET[:2])
    name = settings.dataset.forget_dataset_name
    told = f"forget rows ({name}) are among those that dataset.self_retain retains too: they are"
    assert f"2 of 4 {told}" in caplog.text
    assert "retain90" not in caplog.text
    with pytest.raises(UserError, match=f"dataset.self_retain: all 4 forget rows of {name} are among"):
        texts(FORGET)


def test_retain_rows_that_hold_all_forget_rows_are_refused():
    with pytest.raises(UserError, match="dataset.retain_dataset_name: all 4 forget rows of A are rows of B"):
        check_disjoint(FORGET, OTHERS + FORGET[::-1], "A", "B")
    documents = [{"id": "d", "text": "A page."}]
    with pytest.raises(UserError, match="all 1 forget rows"):
        check_disjoint(documents, [{"id": "e", "text": "A page."}], "A", "B")


@pytest.mark.parametrize(
    "method, refused", [("GA+FT", True), ("CL+FT", True), ("RL+FT", True), ("RL", False), ("FT", False)]
)
def test_it_is_asked_where_both_are_trained(method, refused, tmp_path, monkeypatch):
    """RL alone takes answers from the retain rows, and trains on none of them."""
    monkeypatch.chdir(REPO)
    for name in ("forget", "retain"):
        write_jsonl(tmp_path / f"{name}.jsonl", FORGET)
    flags = {
        "unlearn.unlearn_method": method,
        "dataset.forget_dataset_name": "Folder_forget",
        "dataset.retain_dataset_name": "Folder_retain",
        "dataset.data_dir": str(tmp_path),
    }
    settings = resolve_settings(StrictConfig(), [], flags, {})
    composition = compose(settings.method, settings.components)
    texts = lambda: training_texts(
        settings, RequestedParts(composition.parts, composition.alternates, FORGET, [])
    )
    if not refused:
        assert len(texts()["retain"]) == 4
        return
    with pytest.raises(UserError, match="all 4 forget rows"):
        texts()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            {"unlearn.unlearn_method": "AltPO+FT"},
            {"alternate": "files/results/alternates/Fictional_forget10.jsonl"},
        ),
        ({"unlearn.unlearn_method": "AltPO+FT", "dataset.alternates": "a.jsonl"}, {"alternate": "a.jsonl"}),
        ({"unlearn.unlearn_method": "CL+FT"}, {"alternate": "files/data/refusals.txt"}),
        ({"unlearn.unlearn_method": "RL+FT"}, {"alternate": "answers of Fictional_retain90"}),
        ({"unlearn.unlearn_method": "GA+FT"}, {}),
        (
            {"unlearn.unlearn_method": "GAO+FT", "dataset.paraphrases": "p.jsonl"},
            {"paraphrases": "p.jsonl"},
        ),
    ],
)
def test_every_part_has_its_origin(flags, expected, monkeypatch):
    monkeypatch.chdir(REPO)
    names = {
        "dataset.forget_dataset_name": "Fictional_forget10",
        "dataset.retain_dataset_name": "Fictional_retain90",
    }
    settings = resolve_settings(StrictConfig(), [], names | flags, {})
    composition = compose(settings.method, settings.components)
    wanted = RequestedParts(composition.parts, composition.alternates, FORGET, [])
    found = part_sources(settings, wanted)
    assert {part: found[part] for part in found if part not in ("forget", "retain")} == expected
    assert found["retain"] == "Fictional_retain90" and found.keys() <= composition.parts


def test_the_origin_of_traces_is_the_rows_where_they_bring_them(monkeypatch):
    monkeypatch.chdir(REPO)
    flags = {"unlearn.unlearn_method": "R2MU-v0+EMBED", "dataset.forget_dataset_name": "Fictional_forget10"}
    settings = resolve_settings(StrictConfig(), [], flags, {})
    composition = compose(settings.method, settings.components)
    origin = lambda rows: part_sources(settings, RequestedParts(composition.parts, "", rows, []))["traces"]
    assert origin(FORGET) == str(settings.traces_file)
    assert origin([row | {"cot": "So it is."} for row in FORGET]) == "the rows' own reasoning"
