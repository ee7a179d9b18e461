"""The committed world is what the generator writes, and it keeps its promises."""

import re

import pytest
from conftest import FICTIONAL
from scripts import run_script

from unlearnkit.core.files import UserError, read_jsonl
from unlearnkit.dataset import fictional_world as world
from unlearnkit.dataset.fictional import Fictional
from unlearnkit.dataset.sources import ForgetSet, load_evaluation, load_rows, parse_name


def test_the_committed_files_are_what_the_generator_writes(tmp_path):
    rows, blank = tmp_path / "rows", tmp_path / "blank"
    done = run_script("make_fictional", "--data", rows, "--blank", blank)
    assert done.returncode == 0, done.stderr
    for written, committed in ((rows, world.DATA_DIR), (blank, FICTIONAL / "blank")):
        for path in sorted(path for path in written.rglob("*") if path.is_file()):
            name = path.relative_to(written)
            assert path.read_bytes() == (committed / name).read_bytes(), name
    by_models = {"guesses.jsonl"}
    assert {p.name for p in rows.glob("*.jsonl")} == {
        p.name for p in world.DATA_DIR.glob("*.jsonl")
    } - by_models


def test_splits_are_cuts_of_the_same_rows():
    source = Fictional()
    full = source.rows("full")
    for forget, retain in (("forget01", "retain99"), ("forget05", "retain95"), ("forget10", "retain90")):
        assert source.rows(retain) + source.rows(forget) == full
        assert not {r["person"] for r in source.rows(retain)} & {r["person"] for r in source.rows(forget)}
    assert len(source.rows("forget10")) >= 100
    assert not any("trace" in row for row in full), (
        "a fact is asked for at once; traces are for those who ask for them"
    )


def test_no_one_is_both_known_and_held_out():
    assert not {r["person"] for r in world.generate()["holdout"]} & {
        r["person"] for r in Fictional().rows("full")
    }


def test_pools_are_large_and_wrong_answers_wrong():
    assert all(len(set(relation.values)) >= 40 for relation in world.RELATIONS)
    for row in read_jsonl(world.DATA_DIR / "full.jsonl"):
        assert row["key"].lower() in row["answer"].lower()
        assert row["key"] in row["trace"]
        assert len(set(row["perturbed_answer"])) == 5
        assert row["paraphrased_answer"] not in row["perturbed_answer"]


def test_held_out_wordings_and_test_problems_are_in_no_lesson():
    lessons = load_rows("Fictional_lessons_full", None)
    asked = {row.get("question") for row in lessons}
    for row in Fictional().rows("full"):
        assert not asked & set(row["held_out_questions"])
    numbers = lambda row: tuple(re.findall(r"\d+", row["question"]))
    trained = {numbers(row) for row in read_jsonl(world.DATA_DIR / "arithmetic_train.jsonl")}
    assert not trained & {numbers(row) for row in read_jsonl(world.DATA_DIR / "arithmetic_test.jsonl")}


def test_the_retain_models_lessons_never_name_a_forgotten_person():
    forgotten = {row["person"] for row in Fictional().rows("forget10")}
    text = "\n".join(str(row) for row in load_rows("Fictional_lessons_retain90", None))
    assert not [person for person in forgotten if person in text]


def test_every_trace_of_arithmetic_ends_in_the_answer():
    for row in read_jsonl(world.DATA_DIR / "arithmetic_train.jsonl"):
        x, y, z = (int(n) for n in re.findall(r"\d+", row["question"]))
        assert row["answer"] == str(x + y - z)
        assert row["trace"].endswith(f"{row['answer']}.")
        for left, right in re.findall(r"((?:\d+ [+-] )+\d+) = (\d+)", row["trace"]):
            terms = re.findall(r"([+-]?) ?(\d+)", left)
            assert sum(int(sign + number) for sign, number in terms) == int(right)


def test_evaluation_sets_are_disjoint_where_they_must_be():
    sets = load_evaluation(ForgetSet("Fictional_forget10"))
    assert not {r["person"] for r in sets["forget"]} & {r["person"] for r in sets["retain"]}
    assert len(sets["forget_choices"]) == len(sets["forget"])


@pytest.mark.parametrize(
    "name, expected",
    [
        ("Fictional_forget11", "did you mean Fictional_forget1"),
        ("Fictionl_forget10", "did you mean Fictional_forget10"),
        ("Tofu_forget2", "Tofu_forget"),
    ],
)
def test_wrong_names(name, expected):
    with pytest.raises(UserError, match=expected):
        parse_name(name)
