"""The rooms of `src`: imports go one way, exec -> model -> {unlearn, dataset, metrics, loggers} -> core, with
optim under unlearn; all are relative, and no file name stands twice."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPO

SRC = REPO / "src"
MIDDLE = {"unlearn", "dataset", "optim", "metrics", "loggers"}
LAYERS = {
    "core": {"core"},
    **{name: {"core", name} for name in MIDDLE},
    "unlearn": {"core", "optim", "unlearn"},
    "model": {"core", "model", *MIDDLE},
    "exec": {"core", "exec", "model", *MIDDLE},
    "api": {"core", "exec", "model", *MIDDLE},
}
FILES = sorted(SRC.rglob("*.py"))
STARTED_AS_A_FILE = "checkout"
"""What a script imports by its bare name, before the package is there."""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Level and module of every import; level 0 is absolute."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((node.level, name) for name in names)


def rooms_of(path: Path) -> set[str]:
    """The rooms that a file imports from."""
    package = path.relative_to(SRC).parts[:-1]
    found = set()
    for level, module in imports(path):
        if level:
            place = [*package[: len(package) - level + 1], *module.split(".")]
            found |= {place[0]} & LAYERS.keys()
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_a_file_imports_only_what_its_layer_may(path):
    room = path.relative_to(SRC).parts[0].removesuffix(".py")
    if room != "__init__":
        assert rooms_of(path) <= LAYERS[room]
    absolute = {module.partition(".")[0] for level, module in imports(path) if not level}
    assert not absolute & {*LAYERS, "unlearnkit"}, "imports within the package are relative"
    if room != "exec":
        assert not absolute & {"argparse", "fastargs", STARTED_AS_A_FILE}


def test_a_file_name_stands_once():
    names = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []
