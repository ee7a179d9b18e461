"""What is asked of an engine and cannot be had is refused before a model is loaded."""

import ast

import pytest
from conftest import REPO
from scripts import run_script

from unlearnkit.exec.config import engine_page
from unlearnkit.exec.config.rules.engine_rules import REFUSALS
from unlearnkit.model.load.engine import precision_error, resolve_engine


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.key)
def test_what_sharded_weights_cannot_do_is_refused(refusal, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    place = ["--logger.json.root", tmp_path, "--logger.name", "run"]
    run = run_script("unlearn_model", *refusal.example, "--overall.engine", "fsdp2", *place)
    assert run.returncode == 2
    assert f"{refusal.key}: {refusal.reason}" in " ".join(run.stderr.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wanted, variables, reason",
    [
        ("fsdp2", {}, "FSDP2 needs several processes"),
        ("auto", {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "FSDP2 needs several processes"),
        ("auto", {"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2"}, "FSDP1"),
        (
            "ddp",
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "WORLD_SIZE": "2"},
            "leave one of them out",
        ),
        ("auto", {"ACCELERATE_USE_DEEPSPEED": "true", "WORLD_SIZE": "2"}, "asks for DeepSpeed"),
        (
            "auto",
            {
                "ACCELERATE_USE_FSDP": "true",
                "FSDP_VERSION": "2",
                "WORLD_SIZE": "2",
                "FSDP_OFFLOAD_PARAMS": "true",
            },
            "fsdp_offload_params",
        ),
        ("auto", {"ACCELERATE_MIXED_PRECISION": "fp16"}, "mixed_precision fp16"),
    ],
)
def test_a_request_that_cannot_be_met_is_an_error(wanted, variables, reason, monkeypatch, tmp_path):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    place = ["--logger.json.root", tmp_path, "--logger.name", "run"]
    run = run_script("unlearn_model", "--overall.engine", wanted, *place)
    assert run.returncode == 2
    assert reason in " ".join(run.stderr.split())
    assert not (tmp_path / "run").exists()


def test_the_launchers_request_is_met():
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "WORLD_SIZE": "2"}
    assert resolve_engine("auto", asked) == "fsdp2"
    assert resolve_engine("auto", {"WORLD_SIZE": "2"}) == "ddp"
    assert precision_error("auto", {"ACCELERATE_MIXED_PRECISION": "bf16"}) == ""
    assert "fp32" in precision_error("fp32", {"ACCELERATE_MIXED_PRECISION": "bf16"})


@pytest.mark.parametrize("script, place", [("make_mask", "--mask.out"), ("make_traces", "--dataset.traces")])
def test_a_script_of_whole_models_refuses_to_shard(script, place, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = run_script(script, "--overall.engine", "fsdp2", place, tmp_path / "out")
    assert run.returncode == 1
    assert "overall.engine fsdp2: this script needs whole weights" in run.stderr


def test_every_cell_of_the_table_is_a_case_of_the_tests():
    tree = ast.parse((REPO / "tests/unlearn/test_engines.py").read_text())
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    tree = ast.parse((REPO / "tests/trainings.py").read_text())
    words |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {name for names in engine_page.TESTED.values() for name in names} <= words
