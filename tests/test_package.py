"""What is installed as `unlearnkit`: every room of `src`, and the files that a first run reads."""

import re
import tomllib
from importlib.metadata import requires

import pytest
from conftest import REPO

from unlearnkit import __version__
from unlearnkit.core import project

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())
DATA = {"unlearnkit.configs", "unlearnkit.files", "unlearnkit.harness"}


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=]", requirement)[0].lower().replace("_", "-")


def test_every_room_is_a_package():
    rooms = [path.parent.relative_to(REPO / "src") for path in (REPO / "src").rglob("__init__.py")]
    found = {".".join(("unlearnkit", *room.parts)) for room in rooms}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | DATA


def test_what_is_installed_with_it_is_there():
    setuptools = PROJECT["tool"]["setuptools"]
    for package, patterns in setuptools["package-data"].items():
        folder = REPO / setuptools["package-dir"][package]
        assert all(any(folder.glob(pattern)) for pattern in patterns), package


def test_the_version_stands_once():
    assert f"version: {__version__}\n" in (REPO / "CITATION.cff").read_text()
    assert "version" not in PROJECT["project"]


def test_the_tested_pins_meet_every_dependency():
    pins = {name_of(line): line for line in (REPO / "requirements.txt").read_text().split()}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(need for needs in extras.values() for need in needs)]
    brought = {name_of(need.split(";")[0].strip()) for pin in pins for need in requires(pin) or ()}
    for need in wanted:
        assert name_of(need) in pins or name_of(need) in brought, need
        floor = re.search(r">=([\d.]+)", need)
        if floor and name_of(need) in pins:
            pinned = pins[name_of(need)].rpartition("==")[2]
            numbers = [tuple(map(int, re.findall(r"\d+", text)[:2])) for text in (pinned, floor[1])]
            assert numbers[0] >= numbers[1], need


@pytest.mark.parametrize("place", ["files/models/fictional/target", "configs/fictional/npo+ft.json"])
def test_files_of_the_project_are_found_from_anywhere(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project.in_project(place) == str(REPO / place)
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).touch()
    assert project.in_project(place) == place
    assert project.in_project("files/results") == "files/results"
    assert project.in_project("files/models/none") == "files/models/none"
