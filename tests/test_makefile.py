"""What make removes, and what it refuses to install on."""

import subprocess
import sys

import pytest
from conftest import REPO


def make(folder, *words, answer=""):
    return subprocess.run(
        ["make", "-f", REPO / "Makefile", *words], cwd=folder, input=answer, capture_output=True, text=True
    )


@pytest.fixture
def folder(tmp_path):
    """A checkout with a cache and a run."""
    for name in (".cache/before", "files/results/demo/checkpoints"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "requirements.txt").touch()
    return tmp_path


def test_clean_keeps_trained_models(folder):
    assert make(folder, "clean").returncode == 0
    assert not (folder / ".cache").exists()
    assert (folder / "files/results/demo/checkpoints").is_dir()


def test_results_are_removed_after_a_yes_only(folder):
    for answer in ("", "\n", "n\n"):
        assert make(folder, "clean-results", answer=answer).returncode != 0
        assert (folder / "files/results/demo").is_dir()
    assert make(folder, "clean-results", answer="y\n").returncode == 0
    assert not (folder / "files/results").exists()


def test_a_python_that_is_too_old_is_named_before_anything_is_installed(folder):
    old = folder / "python3.9"
    python = f'exec {sys.executable} -c "import sys; sys.version_info = (3, 9)'
    old.write_text(f'#!/bin/sh\nshift\n{python}\n$1"\n')
    old.chmod(0o755)
    done = make(folder, "demo", f"PYTHON={old}")
    assert done.returncode != 0 and f"{old} is older than 3.11" in done.stderr
    assert not (folder / ".venv").exists()
