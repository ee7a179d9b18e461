"""What the README says is so: the tree, the commands, the worked example."""

import importlib
import json
import re
import sys

import pytest
from conftest import REPO
from scripts import Forked

README = (REPO / "README.md").read_text()
TREE = re.search(r"```text\n(src/.*?)```", README, re.S).group(1)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_tree_names_every_file_with_a_phrase():
    said, folders = {}, []
    for line in TREE.splitlines():
        name, _, phrase = line.strip().partition("  ")
        folders = folders[: (len(line) - len(line.lstrip())) // 2]
        if name.endswith("/"):
            folders.append(name)
        else:
            said["".join(folders) + name] = phrase.strip()
    files = {str(p.relative_to(REPO)) for p in (REPO / "src").rglob("*.py") if p.stem != "__init__"}
    assert set(said) == files
    assert all(said.values())


def test_the_table_of_methods_is_the_registries():
    from unlearnkit.model.report.method_table import MARKS, render

    assert f"{MARKS[0]}\n{render()}{MARKS[1]}" in README, "run src/exec/make_docs.py"


def test_the_table_of_benchmark_tasks_is_that_of_the_suites():
    from unlearnkit.model.report.task_table import MARKS, render

    page = (REPO / "docs/benchmarks.md").read_text()
    assert f"{MARKS[0]}\n{render()}{MARKS[1]}" in page, "run src/exec/make_docs.py"


def test_every_script_is_mentioned():
    for script in (REPO / "src/exec").glob("[a-z]*_*.py"):
        assert f"src/exec/{script.name}" in README, script.name


def test_every_config_named_exists():
    for path in set(re.findall(r"configs/\w+/[\w+]+\.json", README)):
        assert (REPO / path).is_file(), path


@pytest.mark.parametrize("target", ["demo", "test", "test-all", "lint", "figures"])
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (REPO / "Makefile").read_text(), re.M)


@pytest.mark.run
def test_the_worked_example_runs(tiny_model_folder, tmp_path):
    """The method of the README, put into a file of its own, is a method like any other."""
    (example,) = [block for block in blocks("python") if "@FORGET.register" in block]
    (tmp_path / "example.py").write_text(example)
    name = re.search(r'register\("(\w+)"', example).group(1)

    def import_it() -> None:
        sys.path.insert(0, str(tmp_path))
        importlib.import_module("example")

    words = [
        "--overall.model_name",
        tiny_model_folder,
        "--unlearn.unlearn_method",
        f"{name}+FT",
        *"--unlearn.max_steps 2 --evaluate.before false --evaluate.metrics forget/prob".split(),
        "--logger.json.root",
        tmp_path / "out",
        "--logger.name",
        "run",
        "--overall.cache_dir",
        tmp_path / "cache",
    ]
    run = Forked("unlearn_model", *words, log=tmp_path / "log", before=import_it).ended
    assert run.returncode == 0, run.stderr
    records = [json.loads(line) for line in (tmp_path / "out/run/log.jsonl").read_text().splitlines()]
    assert len(records) == 2
    assert "retain_nll" in records[0]
