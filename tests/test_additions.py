"""A new objective and a new metric: a file and an import line each, and nothing else has to change."""

import json
import shutil

import pytest
from conftest import REPO
from scripts import run_python

OBJECTIVE = '''"""Ascent that weighs each token by its probability."""

from dataclasses import dataclass

from ...core.options import knob
from ..base import FORGET, Objective, Term
from ..scoring import answer_nll


@FORGET.register("Gentle", "SoftGA")
@dataclass(frozen=True)
class Gentle(Objective):
    """Ascent that fades as a token is forgotten.

    Formula: -sg(p^power) NLL, mean over tokens
    Cost: one forward and backward over the forget rows."""

    power: float = knob(1.0, "how fast the ascent fades as p falls", at_least=0)
    parts = frozenset({"forget"})

    def terms(self, model, batch, reference):
        nll = answer_nll(model, batch["forget"])
        return {"gentle": Term(-((-nll).exp().detach() ** self.power * nll).sum(), "forget", "tokens")}
'''
METRIC = '''"""Length of generated answers."""

from .spec import About, Generations, metric


@metric(
    "forget/answer_words",
    rows="forget",
    needs=[Generations("forget")],
    good="down",
    about=About(
        formula="words of the greedy answer, mean over rows",
        range="at least 0",
        blind_spot="what they mean",
        source="this project",
    ),
)
def answer_words(inputs):
    return [float(len(answers[0].text.split())) for answers in inputs.generations("forget")]
'''
ADDED = {"src/unlearn/objectives/gentle.py": OBJECTIVE, "src/metrics/lengths.py": METRIC}
IMPORTS = {
    "src/unlearn/objectives/__init__.py": ("    ga,\n", "    ga,\n    gentle,\n"),
    "src/metrics/__init__.py": ("    health,\n", "    health,\n    lengths,\n"),
}


@pytest.fixture
def checkout(tmp_path):
    """A checkout with both added."""
    for folder in ("src", "configs", "lm-evaluation-harness"):
        shutil.copytree(REPO / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "files").symlink_to(REPO / "files")
    for name, text in ADDED.items():
        (tmp_path / name).write_text(text)
    for name, (before, after) in IMPORTS.items():
        text = (tmp_path / name).read_text()
        assert text.count(before) == 1, name
        (tmp_path / name).write_text(text.replace(before, after))
    return tmp_path


@pytest.mark.run
@pytest.mark.slow
def test_an_objective_and_a_metric_are_a_file_and_an_import_line_each(checkout):
    script = checkout / "src/exec/unlearn_model.py"
    words = "--unlearn.unlearn_method SoftGA+FT --unlearn.Gentle.power 0.5 --unlearn.max_steps 1"
    words += " --evaluate.metrics forget/answer_words,lengths --evaluate.rows 4 --evaluate.bootstrap 10"
    words += " --dataset.forget_ratio 8 --logger.name run --overall.quiet true"
    places = ["--logger.json.root", checkout / "out", "--overall.cache_dir", checkout / "cache"]
    run = run_python(script, *words.split(), *places, cwd=checkout)
    assert run.returncode == 0, run.stderr
    assert set(json.loads((checkout / "out/run/metrics.json").read_text())) == {"forget/answer_words"}
    (step,) = [json.loads(line) for line in (checkout / "out/run/log.jsonl").read_text().splitlines()]
    assert {"gentle", "retain_nll"} <= step.keys()
    config = json.loads((checkout / "out/run/config.json").read_text())["unlearn"]
    assert config["unlearn_method"] == "Gentle+FT" and config["Gentle"] == {"power": 0.5}
    help_text = run_python(script, "--help", "unlearn.Gentle", cwd=checkout).stdout
    assert "how fast the ascent fades as p falls" in help_text
    docs = checkout / "docs"
    shutil.copytree(REPO / "docs", docs)
    made = run_python(checkout / "src/exec/make_docs.py", "--repo", checkout, cwd=checkout)
    assert made.returncode == 0, made.stderr
    for page, name in (("methods", "Gentle"), ("metrics", "forget/answer_words"), ("configuration", "power")):
        assert name in (docs / f"{page}.md").read_text(), page
