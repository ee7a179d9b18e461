"""A Python that cannot run the project: one line, before anything of the project is imported."""

import ast
import signal
import sys

import pytest
from conftest import REPO
from scripts import path_of, run_python

from unlearnkit.exec import checkout

FILES = sorted((REPO / "src/exec").glob("*.py"))
SCRIPTS = [path for path in FILES if "\n    __package__ = runpy.run_path(" in path.read_text()]


def test_every_script_checks_its_interpreter_before_it_imports_anything_of_the_project():
    assert len(SCRIPTS) >= 15
    for path in SCRIPTS:
        text = path.read_text()
        assert text.count('"checkout.py"))["PACKAGE"]') == 1, path.name
        ours = [n for n in ast.parse(text).body if isinstance(n, ast.ImportFrom) and n.level]
        opening = next(n for n in ast.parse(text).body if isinstance(n, ast.If))
        assert all(node.lineno > opening.lineno for node in ours), path.name


@pytest.mark.parametrize("path", [*SCRIPTS, REPO / "src/exec/checkout.py"], ids=lambda path: path.stem)
def test_an_older_python_can_read_what_comes_before_the_check(path):
    ast.parse(path.read_text(), feature_version=(3, 8))


def test_a_python_without_the_packages_ends_with_one_line():
    run = run_python("-S", path_of("evaluate_model"), "--help")
    assert run.returncode == 1
    assert run.stderr.startswith(f"error: {sys.executable} lacks torch, transformers, accelerate and 13 more")
    assert "make demo" in run.stderr and "-m pip install -r" in run.stderr
    assert run.stderr.count("\n") == 1 and not run.stdout


def test_the_remedy_is_the_checkouts_own_python_where_there_is_one(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3.9")
    monkeypatch.setattr(checkout, "VENV", tmp_path / ".venv" / "bin" / "python")
    old = checkout.fault((3, 9), [])
    assert "is Python 3.9, and 3.11 or later is needed: make demo PYTHON=python3.11" in old
    checkout.VENV.parent.mkdir(parents=True)
    checkout.VENV.touch()
    for found in (checkout.fault((3, 9), []), checkout.fault((3, 12), ["fastargs"])):
        assert found.endswith(f": start the script with {checkout.VENV}")
    assert checkout.fault((3, 12), []) == ""


def test_every_package_that_is_imported_at_the_top_of_a_file_is_checked():
    optional = {"lm_eval"}  # the rules of the settings check it where benchmarks are run
    for path in (REPO / "src").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            packages = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
            assert packages <= {*checkout.PACKAGES, *optional}, path


def test_an_interrupt_while_libraries_are_loaded_is_one_line():
    start = f"import runpy; runpy.run_path({str(REPO / 'src/exec/checkout.py')!r}); raise KeyboardInterrupt"
    run = run_python("-c", start)
    assert run.returncode == -signal.SIGINT
    assert run.stderr == "interrupted; nothing was started\n"
