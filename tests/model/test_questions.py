"""Questions of the same kind as some, written by a model."""

import pytest
from conftest import FICTIONAL

from unlearnkit.core.encoding import Template
from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
from unlearnkit.model.write import question_writer
from unlearnkit.model.write.question_writer import _list, _questions, similar_questions

ASKED = ["Where is Rye?", "Where is High Gate?", "Who lives in Rye?"]


@pytest.fixture
def settings():
    return resolve_settings(StrictConfig(), [], {"overall.model_name": str(FICTIONAL / "target")}, {})


@pytest.fixture
def template(tokenizer):
    return Template(tokenizer)


def test_a_list_ends_where_the_model_goes_on():
    assert _list(ASKED[:2]) == "1. Where is Rye?\n2. Where is High Gate?\n3."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            " Where is Low Ford?\n5. Who lives in Ham?\n6. Where is",
            ["Where is Low Ford?", "Who lives in Ham?"],
        ),
        (" Where is rye?\n5) Who lives in Rye?", []),
        (" It is in the south.\n\nWhen is it?", []),
        (" Where?\n Where is the town that has no name, no gate, no mill and no road?", []),
    ],
    ids=["cut at its end", "asked already", "another kind", "too short and too long"],
)
def test_only_whole_new_questions_of_the_kind_are_taken(text, found):
    assert _questions(text, ASKED) == found


def test_questions_of_signs_or_longer_than_a_list_are_no_fault(settings, tiny_model, template):
    asked = ["???", "Where is the mill? " * 200]
    assert _questions("Where is Low Ford?", asked) == ["Where is Low Ford?"]
    assert isinstance(similar_questions(settings, tiny_model, template, asked, 2), list)


def test_what_the_model_writes_most_often_comes_first(settings, tiny_model, template, monkeypatch):
    texts = ["Where is Ham?\n5. Where is Low Ford?", "Where is Low Ford?\n5. Where is Low Ford?", "Who?"]
    monkeypatch.setattr(question_writer, "_continuations", lambda *_: texts)
    assert similar_questions(settings, tiny_model, template, ASKED, 5) == [
        "Where is Low Ford?",
        "Where is Ham?",
    ]
    assert similar_questions(settings, tiny_model, template, ASKED, 1) == ["Where is Low Ford?"]


def test_the_lists_of_a_model_depend_on_the_seed_alone(settings, tiny_model, template):
    lists = [_list(ASKED[:2]), _list(ASKED[1:])]
    both = question_writer._continuations(settings, tiny_model, template, lists)
    assert both == question_writer._continuations(settings, tiny_model, template, lists)
    assert len(set(both)) == 2 and all(both)
