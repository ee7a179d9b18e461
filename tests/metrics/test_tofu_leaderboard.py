"""TOFU's published leaderboard: its rows, its own arithmetic, and the choice of rows."""

import pytest
from conftest import SHARED_DATA

from unlearnkit.core.files import UserError
from unlearnkit.metrics.tofu_leaderboard import FIGURES, read_leaderboard, select_rows, utility_faults

LEADERBOARD = SHARED_DATA / "tofu_leaderboard"
NAMES = ["Index", "Method", "Epoch", "Submitted By", "Model", "LR", "WD", *FIGURES]
GOOD = ["0", "Grad. Ascent", "3", "Us", "Phi", "2e-05", "0.01", "1e-05", "0.5", *["0.5"] * 12]


def table(path, *rows, names=NAMES):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(",".join(row) + "\n" for row in (names, *rows)))
    return path


def with_cell(name, text):
    return [text if column == name else cell for column, cell in zip(NAMES, GOOD)]


@pytest.mark.skipif(not LEADERBOARD.is_dir(), reason="TOFU's leaderboard is not here")
def test_the_model_utility_of_all_published_rows_is_that_of_its_nine_parts():
    rows = read_leaderboard(LEADERBOARD)
    assert len(rows) == 132 and not utility_faults(rows)
    assert max(abs(row.utility - row.figures["model_utility"]) for row in rows) < 1e-12


def test_rows_are_read_under_our_names(tmp_path):
    table(tmp_path / "phi-10p.csv", GOOD, with_cell("Method", "Finetune Model"))
    table(tmp_path / "phi-1p.csv", with_cell("Epoch", "-1"), with_cell("Model", "LLaMA 2-7B"))
    rows = read_leaderboard(tmp_path)
    assert [(row.model, row.split) for row in rows] == [
        ("LLaMA 2-7B", "forget01"),
        ("Phi", "forget01"),
        ("Phi", "forget10"),
        ("Phi", "forget10"),
    ]
    assert rows[2].title == "Grad. Ascent, epoch 3 (Phi, forget10)"
    assert rows[1].title == "Grad. Ascent (Phi, forget01)"
    assert rows[2].figures["forget_quality"] == 1e-5 and rows[2].figures["world/truth_ratio"] == 0.5
    assert read_leaderboard(table(tmp_path / "mine.csv", GOOD))[0].split == "file mine"
    table(tmp_path / "all" / "phi-5p" / "ascent.csv", GOOD)
    assert [row.split for row in read_leaderboard(tmp_path / "all")] == ["forget05"]


def test_a_utility_that_its_parts_do_not_give_is_named(tmp_path):
    rows = [with_cell("Model Utility", "0.6"), with_cell("ROUGE Retain", "0"), with_cell("ROUGE Retain", "")]
    path = table(tmp_path / "phi-5p.csv", GOOD, *rows)
    faults = utility_faults(read_leaderboard(path))
    assert faults[0] == (
        "Grad. Ascent, epoch 3 (Phi, forget05): model utility is 0.6, but its nine parts give 0.5"
    )
    assert faults[1].endswith("is 0.5, but its nine parts give 0.0")
    assert "cannot be recomputed" in faults[2] and "line 5" in faults[2] and len(faults) == 3


def test_words_choose_rows_by_model_split_method_and_epoch(tmp_path):
    others = [with_cell("Method", "Grad. Diff."), with_cell("Epoch", "4"), with_cell("Model", "LLaMA 2-7B")]
    for name in ("phi-1p.csv", "phi-10p.csv"):
        table(tmp_path / name, GOOD, *others)
    rows = read_leaderboard(tmp_path)
    titles = lambda *words: [row.title for row in select_rows(rows, words)]
    assert len(titles()) == 8
    assert titles("phi", "10p", "ascent") == [
        "Grad. Ascent, epoch 3 (Phi, forget10)",
        "Grad. Ascent, epoch 4 (Phi, forget10)",
    ]
    assert (
        titles("llama", "forget01")
        == titles("1p", "LLAMA")
        == ["Grad. Ascent, epoch 3 (LLaMA 2-7B, forget01)"]
    )
    assert len(titles("diff", "ascent", "epoch 3", "phi")) == 4
    with pytest.raises(UserError, match="'npo' is in no row .* method: Grad. Ascent, Grad. Diff."):
        titles("npo")
    with pytest.raises(UserError, match="no row of the leaderboard fits llama diff"):
        titles("llama", "diff")


@pytest.mark.parametrize(
    "cell, text, message",
    [
        ("ROUGE Retain", "x", "line 2: ROUGE Retain must be a finite number from 0 to 1, got 'x'"),
        ("ROUGE Retain", "nan", "line 2: ROUGE Retain must be"),
        ("Forget Quality", "1.5", "line 2: Forget Quality must be"),
        ("Epoch", "2.5", "line 2: Epoch must be a whole number, got '2.5'"),
        ("Model", "", "line 2: Model is empty"),
        ("Model", "Phi,2", "line 2: more cells than columns"),
        ("Index", '"', "not CSV"),
    ],
)
def test_a_wrong_cell_is_named(cell, text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_leaderboard(table(tmp_path / "phi-5p.csv", with_cell(cell, text)))


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(UserError, match="no column Prob. Forget, ROUGE Forget, Truth Ratio Forget"):
        read_leaderboard(table(tmp_path / "phi-5p.csv", GOOD[:-3], names=NAMES[:-3]))
    with pytest.raises(UserError, match="line 2: Truth Ratio Forget is missing"):
        read_leaderboard(table(tmp_path / "phi-5p.csv", GOOD[:-1]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \*.csv"):
        read_leaderboard(tmp_path / "empty")
    with pytest.raises(UserError, match="no such file"):
        read_leaderboard(tmp_path / "gone.csv")
