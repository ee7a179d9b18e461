"""DeepSpeed changes the time of a run and nothing else: 20 steps of two processes, by ZeRO-2 and by ZeRO-3,
are those of one process."""

import json

import pytest
from safetensors.torch import load_file
from scripts import TWO_PROCESSES, launch, once, run_python, run_script
from tiny import random_llama, save
from trainings import (
    ACCUMULATED,
    EVALUATED,
    MEASURED,
    METHODS,
    STEPS,
    losses,
    placed,
    same_weights,
    words,
)

from unlearnkit.core.files import read_json, read_jsonl
from unlearnkit.core.zero import is_installed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.run,
    pytest.mark.usefixtures("in_small_world"),
    pytest.mark.skipif(not is_installed(), reason="needs DeepSpeed: pip install 'unlearnkit[deepspeed]'"),
]

OTHERS = {
    "DPO": ["--unlearn.unlearn_method", "DPO+FT"],
    "SimNPO": ["--unlearn.unlearn_method", "SimNPO+FT"],
    "L1": ["--unlearn.unlearn_method", "NPO+FT+L1"],
    "GP-exact": ["--unlearn.flatness", "GP", "--unlearn.flat.GP.mode", "exact"],
    "autocast": ["--overall.precision", "bf16"],
}
BOTH = (
    *("NPO+FT", "NPO+KL", "DPO", "SimNPO", "EMBED", "R2MU", "lora", "checkpointing", "autocast"),
    *("2x2", "1x4"),
)
WHOLE = ("pcgrad", "gru", "blur", "sago", "ngdiff", "lora-gru", "SAM", "RS", "GP", "GP-exact", "WA", "L1")
"""Cases that need whole gradients or weights."""
CASES = {"zero2": (*BOTH, *WHOLE), "zero3": BOTH}
MEASURING = {"measured": MEASURED, "evaluated": EVALUATED}
ROUGH = {"autocast": 2e-3}
"""Case -> tolerance of what is logged, where 1e-4 would be below the rounding of bf16."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer, small_world):
    """The folder of a model, and for each engine of a run for each case, made by two processes."""

    def fill(root):
        save(random_llama(tokenizer), tokenizer, root / "model")
        for engine, names in CASES.items():
            plan = root / f"{engine}.json"
            runs = [
                [*sized(root, root / engine, name, small_world), "--overall.engine", engine]
                for name in (*names, *MEASURING)
            ]
            plan.write_text(json.dumps([[str(word) for word in run] for run in runs]))
            done = run_python(
                *TWO_PROCESSES, "tests/zero_runs.py", plan, OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu"
            )
            assert done.returncode == 0, done.stderr[-3000:]

    return once(tmp_path_factory, "deepspeed", fill)


def sized(root, place, name, world, *more) -> list:
    """A run of 8 rows a step in two processes."""
    sizes = ACCUMULATED.get(name, (4, 1))
    common = [*STEPS, "--dataset.data_dir", world, *flags(name, root, world)]
    return [*words(root / "model", place, name, *sizes, *common), *more]


def flags(name, root, world) -> list:
    return placed((METHODS | OTHERS | MEASURING).get(name, []), root, world)


@pytest.mark.parametrize(
    "engine, name", [(engine, name) for engine, names in CASES.items() for name in names]
)
def test_two_processes_take_the_steps_of_one(engine, name, folder, small_world, tmp_path):
    one = losses(folder / "model", tmp_path, "one", 8, 1, *STEPS, *flags(name, folder, small_world))
    two = read_jsonl(folder / engine / name / "log.jsonl")
    assert len(one) == len(two) == 20
    rel = ROUGH.get(name, 1e-4)
    for ours, theirs in zip(two, one):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"tokens_per_second", "epoch"}:
            assert ours[key] == pytest.approx(theirs[key], rel=rel, abs=1e-5), (ours["step"], key)
    same_weights(folder / engine / name, tmp_path / "one", atol=5e-3 if name in ROUGH else 2e-4)


@pytest.mark.parametrize("engine", CASES)
def test_passes_run_in_the_precision_of_the_run(engine, folder):
    found = read_json(folder / f"{engine}.0.json")
    seen = {name: record["dtypes"] for name, record in zip(CASES[engine], found)}
    assert seen["autocast"] == ["torch.bfloat16"]
    assert all(seen[name] == ["torch.float32"] for name in seen.keys() - {"autocast"})


@pytest.mark.parametrize("engine, stage", [("zero2", 2), ("zero3", 3)])
@pytest.mark.parametrize("rank", [0, 1])
def test_deepspeed_trained_and_at_stage_3_every_weight_was_in_parts(engine, stage, rank, folder):
    found = read_json(folder / f"{engine}.{rank}.json")
    # All but the run that measures alone.
    assert len(found) == len(CASES[engine]) + 1
    for record in found:
        assert (record["engine"], record["stage"]) == ("DeepSpeedEngine", stage)
        assert all(record["parts"]) if stage == 3 else not any(record["parts"])


@pytest.mark.parametrize("engine, share", [("zero2", 1), ("zero3", 2)])
def test_a_process_holds_its_share_of_the_weights(engine, share, folder):
    facts = read_json(folder / engine / "NPO+FT/environment.json")
    record = facts["training"]
    whole = sum(values.numel() * 4 for values in load_file(folder / "model/model.safetensors").values())
    assert record["engine"] == engine and facts["weights"] == whole / 4
    assert record["weight_mb_per_process"] == pytest.approx(whole / share / 2**20, abs=0.001)


@pytest.mark.parametrize("engine", CASES)
def test_it_gives_the_same_figures(engine, folder, tmp_path):
    run_script("unlearn_model", *words(folder / "model", tmp_path, "one", 8, 1, *STEPS, *MEASURED))
    ours, theirs = (
        read_json(root / "metrics.json") for root in (folder / engine / "measured", tmp_path / "one")
    )
    # A gradient for each row needs whole weights.
    refused = {key for key in ours if engine == "zero3" and "gradnorm" in key}
    assert all(ours[key] is None for key in refused)
    assert sum(value is not None for value in ours.values()) > 30
    assert {key: ours[key] for key in ours.keys() - refused} == pytest.approx(
        {key: theirs[key] for key in ours.keys() - refused}, abs=1e-5
    )


@pytest.mark.parametrize("engine", CASES)
def test_it_is_measured_while_it_trains(engine, folder, tmp_path):
    losses(folder / "model", tmp_path, "one", 8, 1, *STEPS, *EVALUATED)
    ours, theirs = (
        read_jsonl(root / "evaluations.jsonl") for root in (folder / engine / "evaluated", tmp_path / "one")
    )
    assert [record["step"] for record in ours] == list(range(0, 21, 2))
    for mine, other in zip(ours, theirs):
        assert mine["metrics"] == pytest.approx(other["metrics"], rel=1e-4)
        assert mine["kl"] == pytest.approx(other["kl"], rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("engine", CASES)
@pytest.mark.parametrize("resumed", ["same", "one"])
def test_a_killed_run_resumes(engine, resumed, folder, small_world, tmp_path):
    argv = [*sized(folder, tmp_path, "NPO+FT", small_world), "--unlearn.save_steps", "6"]
    sharing = ["--overall.engine", engine]
    ended = launch([[*argv, *sharing]], tmp_path, 1, 13, "SIGKILL")
    assert [path.name for path in (tmp_path / "NPO+FT/checkpoints").glob("step-*")] == ["step-12"], (
        ended.stderr
    )
    auto = ["--unlearn.resume_path", "auto"]
    if resumed == "same":
        done = launch([[*argv, *sharing, *auto]], tmp_path)
    else:
        whole = [word.replace("batch_size=4", "batch_size=8") for word in map(str, argv)]
        done = run_script("unlearn_model", *whole, *auto)
    assert done.returncode == 0, done.stderr
    same_weights(tmp_path / "NPO+FT", folder / engine / "NPO+FT")
    assert [record["step"] for record in read_jsonl(tmp_path / "NPO+FT/log.jsonl")] == list(range(1, 21))


@pytest.mark.parametrize("stage", [2, 3])
def test_the_launchers_config_is_met(stage, folder, small_world, tmp_path):
    """What `accelerate launch --config_file configs/accelerate/zero*.yaml` asks for, in its variables."""
    asked = {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage),
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu",
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu" if stage == 3 else "none",
    }
    plan = tmp_path / "runs.json"
    argv = sized(folder, tmp_path, "NPO+FT", small_world)
    plan.write_text(json.dumps([[str(word) for word in argv]]))
    done = run_python(
        *TWO_PROCESSES, "tests/zero_runs.py", plan, OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu", **asked
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (record,) = read_json(tmp_path / "runs.0.json")
    assert (record["engine"], record["stage"], record["offloaded"]) == ("DeepSpeedEngine", stage, True)
    same_weights(tmp_path / "NPO+FT", folder / f"zero{stage}" / "NPO+FT")
