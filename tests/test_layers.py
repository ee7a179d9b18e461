"""Imports go one way: exec -> model -> {unlearn, dataset, optim, metrics, loggers} -> core."""

import ast

import pytest
from conftest import REPO

SRC = REPO / "src"
MIDDLE = {"unlearn", "dataset", "optim", "metrics", "loggers"}
LAYERS = {
    "core": {"core"},
    "model": {"core", "model", *MIDDLE},
    "exec": {"core", "exec", "model", *MIDDLE},
} | {name: {"core", name} for name in MIDDLE}


def imports(path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: str(p.relative_to(SRC)))
def test_a_file_imports_only_what_its_layer_may(path):
    layer = path.relative_to(SRC).parts[0]
    ours = imports(path) & set(LAYERS)
    assert ours <= LAYERS[layer], f"{path} imports {ours - LAYERS[layer]}"
    if layer != "exec":
        assert not imports(path) & {"argparse", "fastargs"}
