"""prefetch.py: what a config needs is named, and what is there already is not fetched."""

from conftest import FICTIONAL
from scripts import run_script


def test_what_lies_here_needs_no_hub(tiny_model_folder):
    done = run_script("prefetch", "--overall.model_name", tiny_model_folder)
    assert done.returncode == 0, done.stderr
    assert f"model {tiny_model_folder}: is a folder, nothing to fetch" in done.stdout
    assert "dataset Fictional_forget10: 100 rows" in done.stdout
    assert "measured: 100 forget" in done.stdout


def test_a_model_that_cannot_be_had_is_one_line():
    done = run_script("prefetch", "--overall.model_name", "owner/name")
    assert done.returncode == 1
    assert "cannot fetch 'owner/name' from the hub" in done.stderr
    assert "Traceback" not in done.stderr


def test_everything_that_a_run_needs_is_fetched(tiny_model_folder, tmp_path):
    (tmp_path / "neutral.txt").write_text("Rain fell on the harbour all day, and nobody minded.\n")
    done = run_script(
        *(
            "prefetch",
            "--overall.model_name",
            tiny_model_folder,
            "--evaluate.original_model",
            FICTIONAL / "retain",
        ),
        *("--unlearn.unlearn_method", "NPO+FT+CoT", "--evaluate.neutral_text", tmp_path / "neutral.txt"),
        *("--benchmarks.tasks", "fictional_forget10_choices"),
    )
    assert done.returncode == 0, done.stderr
    for line in (
        f"model {FICTIONAL / 'retain'}: is a folder",
        "dataset Fictional_arithmetic: 4000 rows",
        "neutral.txt: 1 documents",
        "benchmark fictional_forget10_choices: 100 rows",
    ):
        assert line in done.stdout
