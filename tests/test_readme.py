"""What README and docs name exists, generated pages are current, and the worked example runs."""

import json
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from conftest import REPO
from scripts import Forked

from unlearnkit.core.files import read_text
from unlearnkit.exec.config.reader import StrictConfig
from unlearnkit.exec.make_docs import PAGES as GENERATED

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
LONGEST_README = 12_000
MOST_COLUMNS = 6

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))


def named(pattern: str) -> set[str]:
    """What the pattern finds in README and docs."""
    return {found for page in PAGES for found in re.findall(pattern, page.read_text())}


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Where a link can lead within a page: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len((REPO / "README.md").read_bytes()) <= LONGEST_README


@every_page
def test_every_relative_link_leads_somewhere(page):
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@every_page
def test_tables_have_few_columns(page):
    for line in prose(page).splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) - 1 <= MOST_COLUMNS, line


def test_every_config_named_exists():
    for path in named(r"configs/[\w.-]+/[\w.+-]+\.json"):
        assert (REPO / path).is_file(), path


def test_every_key_of_the_examples_exists():
    keys = {".".join(path) for path in StrictConfig().entries}
    for page in PAGES:
        for _, code in FENCED.findall(page.read_text()):
            assert set(re.findall(r"--([a-z]+\.[\w.]+)", code)) <= keys, page.name


def test_every_source_file_named_exists():
    for path in named(r"\bsrc/[\w/]+\.py\b"):
        assert (REPO / path).is_file(), path


def test_every_make_target_named_exists():
    targets = set(re.findall(r"^([\w-]+):", (REPO / "Makefile").read_text(), re.M))
    mentioned = named(r"`make ([a-z][\w-]*)") | named(r"(?m)^make ([a-z][\w-]*)")
    assert {"demo", "test"} <= mentioned <= targets


def test_every_script_is_in_the_index():
    index = (REPO / "docs/README.md").read_text()
    for path in (REPO / "src/exec").glob("*.py"):
        if path.name == "child_process.py":  # started by other scripts alone
            continue
        if "\nif not __package__:" in path.read_text():  # it can be started as a file
            assert f"`src/exec/{path.name}`" in index, path.name


def test_every_page_is_in_the_index():
    links = LINK.findall((REPO / "docs/README.md").read_text())
    assert {path.name for path in (REPO / "docs").glob("*.md")} - {"README.md"} <= set(links)


@pytest.mark.parametrize("page", GENERATED)
def test_generated_parts_are_current(page):
    part = GENERATED[page]
    text = read_text(REPO / page)
    assert f"{part.MARKS[0]}\n{part.render()}{part.MARKS[1]}" in text, "run src/exec/make_docs.py"


@pytest.mark.run
def test_the_worked_example_runs(tiny_model_folder, tmp_path):
    """The method of the README, put into a file of its own, is a method like any other."""
    blocks = FENCED.findall((REPO / "README.md").read_text())
    (example,) = [code for language, code in blocks if language == "python" and "@FORGET.register" in code]
    (tmp_path / "example.py").write_text(example)
    name = re.search(r'register\("(\w+)"', example).group(1)

    def import_it() -> None:
        place = "unlearnkit.unlearn.objectives.example"
        spec = spec_from_file_location(place, tmp_path / "example.py")
        sys.modules[place] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[place])

    words = [
        "--overall.model_name",
        tiny_model_folder,
        "--unlearn.unlearn_method",
        f"{name}+FT",
        *f"--unlearn.{name}.power 0.5 --unlearn.max_steps 2 --evaluate.before false".split(),
        *"--evaluate.metrics forget/prob --logger.name run".split(),
        "--logger.json.root",
        tmp_path / "out",
        "--overall.cache_dir",
        tmp_path / "cache",
    ]
    run = Forked("unlearn_model", *words, log=tmp_path / "log", before=import_it).ended
    assert run.returncode == 0, run.stderr
    records = [json.loads(line) for line in (tmp_path / "out/run/log.jsonl").read_text().splitlines()]
    assert len(records) == 2
    assert "retain_nll" in records[0]
