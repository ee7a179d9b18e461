"""The engine that spreads a model over processes changes the time of a run and nothing else: 20 steps of two
processes, by DDP and by FSDP2, are those of one process."""

import pytest
from safetensors.torch import load_file
from scripts import once, run_in_two_processes, run_script
from trainings import (
    ACCUMULATED,
    EVALUATED,
    MEASURED,
    METHODS,
    STEPS,
    losses,
    masked_weights_stay,
    placed,
    same_weights,
    save_model_and_mask,
    words,
)

from unlearnkit.core.files import read_json, read_jsonl

pytestmark = [pytest.mark.slow, pytest.mark.run, pytest.mark.usefixtures("in_small_world")]

ENGINES = ("ddp", "fsdp2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer, small_world):
    """The folder of a model, and for each engine of a run for each case, made by two processes with half the
    batch."""

    def fill(root):
        save_model_and_mask(root, tokenizer)
        runs = [
            [*sized(root, root / engine, name, small_world, more), "--overall.engine", engine]
            for engine in ENGINES
            for name, more in cases().items()
        ]
        run_in_two_processes(runs, root)

    return once(tmp_path_factory, "engines", fill)


def sized(root, place, name, world, more) -> list:
    """A run of 8 rows a step in two processes."""
    sizes = ACCUMULATED.get(name, (4, 1))
    common = [*STEPS, "--dataset.data_dir", world, *placed(more, root, world)]
    return words(root / "model", place, name, *sizes, *common)


def cases() -> dict[str, list]:
    return METHODS | dict.fromkeys(ACCUMULATED, []) | {"measured": MEASURED, "evaluated": EVALUATED}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [*METHODS, *ACCUMULATED])
def test_two_processes_take_the_steps_of_one(name, engine, folder, small_world, tmp_path):
    more = placed(METHODS.get(name, []), folder, small_world)
    one = losses(folder / "model", tmp_path, "one", 8, 1, *STEPS, *more)
    two = read_jsonl(folder / engine / name / "log.jsonl")
    assert len(one) == len(two) == 20
    for ours, theirs in zip(two, one):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"tokens_per_second", "epoch"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-5), (ours["step"], key)
    # A sign that rounding turns is a step of twice the learning rate.
    same_weights(folder / engine / name, tmp_path / "one", atol=2e-3 if name == "Sophia" else 2e-4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["mask", "gru-mask"])
def test_masked_weights_stay_what_they_were_to_the_bit(name, engine, folder):
    masked_weights_stay(folder, folder / engine / name)


def test_each_process_holds_half_of_every_weight(folder):
    facts = read_json(folder / "fsdp2/NPO+FT/environment.json")
    record = facts["training"]
    whole = sum(values.numel() * 4 for values in load_file(folder / "model/model.safetensors").values())
    assert facts["weights"] == whole / 4
    assert record["engine"] == "fsdp2"
    assert record["weight_mb_per_process"] == pytest.approx(whole / 2 / 2**20, abs=0.001)


def test_sharded_weights_give_the_same_figures(folder, tmp_path):
    run_script("unlearn_model", *words(folder / "model", tmp_path, "one", 8, 1, *STEPS, *MEASURED))
    ours, theirs = (
        read_json(root / "metrics.json") for root in (folder / "fsdp2/measured", tmp_path / "one")
    )
    reasons = read_json(folder / "fsdp2/measured/metrics_detail.json")
    refused = {key for key in ours if "FSDP2" in reasons[key]["reason"]}
    assert refused == {key for key in ours if "gradnorm" in key}
    assert sum(value is not None for value in ours.values()) > 30
    assert {key: ours[key] for key in ours.keys() - refused} == pytest.approx(
        {key: theirs[key] for key in ours.keys() - refused}, abs=1e-5
    )


def test_sharded_weights_are_measured_while_they_are_trained(folder, tmp_path):
    losses(folder / "model", tmp_path, "one", 8, 1, *STEPS, *EVALUATED)
    ours, theirs = (
        read_jsonl(root / "evaluations.jsonl") for root in (folder / "fsdp2/evaluated", tmp_path / "one")
    )
    assert [record["step"] for record in ours] == list(range(0, 21, 2))
    for mine, other in zip(ours, theirs):
        assert mine["metrics"] == pytest.approx(other["metrics"], rel=1e-4)
        assert mine["kl"] == pytest.approx(other["kl"], rel=1e-3, abs=1e-9)
    assert ours[0]["kl"] == 0
