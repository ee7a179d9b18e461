"""prefetch.py: what a config needs is named, and what is there already is not fetched."""

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
