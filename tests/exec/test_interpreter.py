"""A Python that cannot run the project: one line, before anything of the project is imported."""

import ast
import sys

import pytest
from conftest import REPO
from scripts import path_of, run_python

from exec import interpreter

SCRIPTS = sorted(
    path for path in (REPO / "src/exec").glob("*.py") if "\nsys.path.insert(" in path.read_text()
)


def test_every_script_checks_its_interpreter_first():
    assert len(SCRIPTS) >= 15
    for path in SCRIPTS:
        lines = path.read_text().splitlines()
        start = next(number for number, line in enumerate(lines) if line.startswith("sys.path.insert"))
        assert lines[start + 2] == "import exec.interpreter  # noqa: E402, F401", path.name


@pytest.mark.parametrize("path", [*SCRIPTS, REPO / "src/exec/interpreter.py"], ids=lambda path: path.stem)
def test_an_older_python_can_read_what_comes_before_the_check(path):
    ast.parse(path.read_text(), feature_version=(3, 8))


def test_a_python_without_the_packages_ends_with_one_line():
    run = run_python("-S", path_of("evaluate_model"), "--help")
    assert run.returncode == 1
    assert run.stderr.startswith(f"error: {sys.executable} lacks torch, transformers, accelerate and 12 more")
    assert "make demo" in run.stderr and "-m pip install -r" in run.stderr
    assert run.stderr.count("\n") == 1 and not run.stdout


def test_the_remedy_is_the_checkouts_own_python_where_there_is_one(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3.9")
    monkeypatch.setattr(interpreter, "VENV", tmp_path / ".venv" / "bin" / "python")
    old = interpreter.fault((3, 9), [])
    assert "is Python 3.9, and 3.11 or later is needed: make demo PYTHON=python3.11" in old
    interpreter.VENV.parent.mkdir(parents=True)
    interpreter.VENV.touch()
    for found in (interpreter.fault((3, 9), []), interpreter.fault((3, 12), ["fastargs"])):
        assert found.endswith(f": start the script with {interpreter.VENV}")
    assert interpreter.fault((3, 12), []) == ""


def test_every_package_that_is_imported_at_the_top_of_a_file_is_checked():
    ours = {path.name for path in (REPO / "src").iterdir()}
    optional = {"lm_eval"}  # rules.py checks it where benchmarks are run
    for path in (REPO / "src").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            packages = {name.partition(".")[0] for name in names} - ours - set(sys.stdlib_module_names)
            assert packages <= {*interpreter.PACKAGES, *optional}, path
