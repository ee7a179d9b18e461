"""Multiple choice in another order, and the fictional stand-ins of MUSE and WMDP."""

from collections import Counter

import numpy as np
import pytest
from conftest import REPO

from unlearnkit.core.files import UserError
from unlearnkit.dataset import ForgetSet, load_evaluation, load_rows, parse_name
from unlearnkit.dataset.choices import choice_sets
from unlearnkit.metrics.inputs import MetricInputs
from unlearnkit.metrics.measure import MeasureOptions, _compute
from unlearnkit.metrics.spec import METRICS, AnswerScore

ROWS = [
    {"id": f"q{n}", "question": f" Which {n}? ", "choices": ["elm", "oak", "ash", "yew"], "answer": n % 4}
    for n in range(40)
]


def test_shuffled_options_are_the_same_options_with_the_same_right_one():
    sets = choice_sets("forget", ROWS, "Head.\n\n")
    plain, shuffled = sets["forget_choices"], sets["forget_choices_shuffled"]
    assert plain[0]["prompt"] == "Head.\n\nWhich 0?\nA. elm\nB. oak\nC. ash\nD. yew\nAnswer:"
    for one, other in zip(plain, shuffled, strict=True):
        assert other["choices"] != one["choices"]
        assert sorted(other["choices"]) == sorted(one["choices"])
        assert other["choices"][other["right"]] == one["choices"][one["right"]]
        assert f"{'ABCD'[other['right']]}. {one['choices'][one['right']]}" in other["prompt"]
    assert choice_sets("forget", ROWS) == choice_sets("forget", ROWS)


def letters(picks):
    """Scores of four letters of which the model picks `picks` in turn."""
    score = lambda logp: AnswerScore(np.array([logp, -1.0]), np.array([True, True]), 1)
    return [[score(-0.1 if letter == pick else -2.0) for letter in range(4)] for pick in picks]


def test_the_favourite_letter_and_the_share_of_each(monkeypatch):
    picks = [0, 0, 0, 1, 2, 0, 3, 0]
    rows = {
        "forget_choices": [{"id": str(n), "letters": list("ABCD"), "right": 0} for n in range(len(picks))]
    }
    inputs = MetricInputs(rows, None)
    inputs.scores["forget_choices", "letters", ""] = letters(picks)
    value = _compute(METRICS["forget/choice_same_letter"], inputs, MeasureOptions(bootstrap=50))
    counts = Counter(picks)
    assert value.value == counts[0] / len(picks)
    assert value.details == {f"share_{'ABCD'[n]}": counts[n] / len(picks) for n in range(4)}
    assert value.interval[0] <= value.value <= value.interval[1]


def test_the_fictional_muse_has_the_tables_of_the_real_one():
    whole = {row["text"] for row in load_rows("MuseFictional_full", None)}
    forget = {row["text"] for row in load_rows("MuseFictional_forget", None)}
    kept = {row["text"] for row in load_rows("MuseFictional_retain_full", None)}
    assert (len(whole), len(forget), len(kept)) == (200, 20, 180)
    assert forget | kept == whole
    folds = [{row["text"] for row in load_rows(f"MuseFictional_sust_{k}", None)} for k in range(1, 5)]
    assert set().union(*folds) == forget
    assert sum(map(len, folds)) == len(forget)
    grown = [{row["text"] for row in load_rows(f"MuseFictional_scal_{k}", None)} for k in range(1, 5)]
    assert all(small < large for small, large in zip(grown, grown[1:]))
    assert grown[0] == folds[0]
    sets = load_evaluation(ForgetSet("MuseFictional_sust_1", None))
    sizes = {name: len(rows) for name, rows in sets.items()}
    assert sizes == {
        "forget_documents": 20,
        "forget": 100,
        "retain": 100,
        "forget_knowledge": 100,
        "retain_knowledge": 100,
        "forget_texts": 20,
        "holdout_texts": 20,
    }
    examples, question = sets["forget_knowledge"][0]["prompt"].rsplit("\n\n", 1)
    assert question == f"Question: {sets['forget_knowledge'][0]['question']}\nAnswer: "
    assert examples.count("Question: ") == 3
    asked = {row["question"] for row in sets["forget"]}
    assert not any(question in examples for question in asked)


def test_lessons_teach_the_form_without_what_is_to_be_forgotten():
    for split, documents in (("lessons", 200), ("lessons_retain", 180)):
        rows = load_rows(f"MuseFictional_{split}", None)
        names = {row["prompt"].rsplit("Question: ", 1)[1] for row in rows if "prompt" in row}
        assert len(names) == 900
        assert len({row["text"] for row in rows if "text" in row}) == documents
    asked = {row["question"] for row in load_evaluation(ForgetSet("MuseFictional_forget", None))["forget"]}
    assert not any(question in name for name in names for question in asked)


def test_the_fictional_wmdp_forgets_documents_and_asks_by_choice():
    assert len(load_rows("WmdpFictional_forget", None)) == 20
    assert len(load_rows("WmdpFictional_retain", None)) == 180
    sets = load_evaluation(ForgetSet("WmdpFictional_forget", None))
    assert {name: len(rows) for name, rows in sets.items()} == {
        "forget_choices": 100,
        "forget_choices_shuffled": 100,
        "retain_choices": 200,
        "retain_choices_shuffled": 200,
    }


@pytest.mark.parametrize("name", ["MuseFictional_forget", "WmdpFictional_forget"])
def test_the_stand_ins_take_no_folder(name):
    source, split = parse_name(name)
    with pytest.raises(UserError, match="comes with the project"):
        source(REPO).check(split)
