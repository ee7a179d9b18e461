"""What is asked of an engine and cannot be had is refused before a model is loaded."""

import ast

import pytest
from conftest import REPO
from scripts import run_script

from unlearnkit.core.files import UserError
from unlearnkit.core.zero import ZeroPlan
from unlearnkit.exec.config import engine_page
from unlearnkit.exec.config.rules.engine_rules import REFUSALS
from unlearnkit.model.load.engine import STAGE, precision_error, resolve_engine, zero_plan

ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "WORLD_SIZE": "2"}


@pytest.fixture
def installed(monkeypatch):
    """DeepSpeed counts as installed: nothing here loads it."""
    monkeypatch.setattr("unlearnkit.model.load.engine.is_installed", lambda: True)


@pytest.mark.parametrize(
    "refusal, engine",
    [
        pytest.param(refusal, engine, id=f"{refusal.key}-{engine}")
        for refusal in REFUSALS
        for engine in refusal.engines
    ],
)
def test_what_an_engine_cannot_do_is_refused(refusal, engine, installed, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    place = ["--logger.json.root", tmp_path, "--logger.name", "run"]
    run = run_script("unlearn_model", *refusal.example, "--overall.engine", engine, *place)
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
        ("zero2", {}, "DeepSpeed needs several processes"),
        ("auto", ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, "ZeRO stage 1; set zero_stage to 2 or 3"),
        ("fsdp2", ZERO, "leave one of them out"),
        ("zero2", ZERO, "leave one of them out"),
        ("auto", ZERO | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, "deepspeed_config_file"),
        ("auto", ZERO | {"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "nvme"}, "offload to nvme"),
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
def test_a_request_that_cannot_be_met_is_an_error(
    wanted, variables, reason, installed, monkeypatch, tmp_path
):
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


def test_the_launchers_deepspeed_is_met(installed):
    offloads = {f"ACCELERATE_DEEPSPEED_OFFLOAD_{what}_DEVICE": "cpu" for what in ("OPTIMIZER", "PARAM")}
    assert resolve_engine("auto", ZERO) == resolve_engine("zero3", ZERO) == "zero3"
    assert zero_plan("auto", ZERO | offloads) == ZeroPlan(3, True, True)
    assert zero_plan("auto", ZERO | offloads | {STAGE: "2"}) == ZeroPlan(2, True, False)
    assert zero_plan("auto", {"WORLD_SIZE": "2"}) is None


def test_deepspeed_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("unlearnkit.model.load.engine.is_installed", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'unlearnkit\[deepspeed\]'"):
        resolve_engine("zero3", {"WORLD_SIZE": "2"})


@pytest.mark.parametrize("script, place", [("make_mask", "--mask.out"), ("make_traces", "--dataset.traces")])
def test_a_script_of_whole_models_refuses_to_shard(script, place, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = run_script(script, "--overall.engine", "fsdp2", place, tmp_path / "out")
    assert run.returncode == 1
    assert "overall.engine fsdp2: this script needs whole weights" in run.stderr


def test_every_cell_of_the_table_is_a_case_of_the_tests():
    assert _cases(engine_page.TESTED) <= _words("test_engines")
    assert _cases(engine_page.ZERO_TESTED) <= _words("test_deepspeed")
    refused = {refusal.feature for refusal in REFUSALS if "zero2" in refusal.engines}
    shared = {name: cases for name, cases in engine_page.TESTED.items() if name not in refused}
    assert _cases(shared) <= _words("test_deepspeed")


def _cases(features) -> set[str]:
    return {name for names in features.values() for name in names}


def _words(file: str) -> set[str]:
    """Strings and names of tests in a file of tests, and in what it shares with others."""
    found = set()
    for path in (f"tests/unlearn/{file}.py", "tests/trainings.py"):
        nodes = list(ast.walk(ast.parse((REPO / path).read_text())))
        found |= {node.value for node in nodes if isinstance(node, ast.Constant)}
        found |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return found
