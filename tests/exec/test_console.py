"""The command `unlearnkit`: every script that users call, by a short name."""

import json

import pytest
from conftest import FICTIONAL, REPO

from unlearnkit import __version__
from unlearnkit.exec.console import COMMANDS, main

NOT_COMMANDS = {"make_docs", "make_fictional", "child_process"}
"""Scripts for work on the project itself."""


def test_every_script_of_users_is_a_command(capsys):
    scripts = {
        path.stem
        for path in (REPO / "src/exec").glob("*.py")
        if "\n    __package__ = runpy.run_path(" in path.read_text()
    }
    assert set(COMMANDS.values()) == scripts - NOT_COMMANDS
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert "Make a model forget, and measure whether it did." in shown


def test_no_word_a_wrong_word_and_the_version(capsys):
    assert main([]) == 2
    assert main(["unlaern"]) == 2
    assert "unknown command 'unlaern'; did you mean unlearn?" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"unlearnkit {__version__}\n"


def test_errors_name_the_command_that_was_typed(capsys):
    with pytest.raises(SystemExit) as end:
        main(["unlearn", "--unlearn.lr", "x"])
    assert end.value.code == 2
    assert "unlearnkit unlearn: the settings are not right" in capsys.readouterr().err


@pytest.mark.run
def test_a_command_does_what_its_script_does(tmp_path):
    words = ["--overall.model_name", str(FICTIONAL / "target"), "--logger.json.root", str(tmp_path)]
    words += ["--logger.name", "run", "--evaluate.metrics", "forget/prob", "--evaluate.rows", "4"]
    words += ["--overall.quiet", "true"]
    assert main(["evaluate", *words]) == 0
    assert json.loads((tmp_path / "run/metrics.json").read_text())["forget/prob"] > 0.99
