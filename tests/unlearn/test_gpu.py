"""A GPU changes the time of a run and nothing else: in fp32 its steps and figures are those of the CPU, bf16
comes near them, and memory that does not suffice is one clear line. Skipped where no GPU is visible."""

import contextlib

import pytest
import torch
from safetensors.torch import load_file
from scripts import run_script
from tiny import random_llama, save
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

pytestmark = [
    pytest.mark.run,
    pytest.mark.usefixtures("in_small_world"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible"),
]

EXACT = {device: ["--overall.device", device, "--overall.precision", "fp32"] for device in ("cpu", "cuda")}
WIDE = {"hidden_size": 128, "intermediate_size": 96}
"""Matrices of at least 4,096 elements, whose optimizer state is quantised."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """The folder of a model and of a mask for it."""
    root = tmp_path_factory.mktemp("gpu")
    save_model_and_mask(root, tokenizer)
    return root


@pytest.mark.parametrize("name", [*METHODS, *ACCUMULATED])
def test_a_gpu_takes_the_steps_of_the_cpu(name, folder, small_world, tmp_path):
    more = [*STEPS, *placed(METHODS.get(name, []), folder, small_world)]
    sizes = ACCUMULATED.get(name, (8, 1))
    cpu, gpu = (losses(folder / "model", tmp_path, device, *sizes, *more, *EXACT[device]) for device in EXACT)
    assert len(cpu) == len(gpu) == 20
    for ours, theirs in zip(gpu, cpu):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"tokens_per_second", "epoch"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-5), (ours["step"], key)
    assert moved_apart(folder / "model", tmp_path) < (0.1 if name == "Sophia" else 0.02)
    assert read_json(tmp_path / "cuda/environment.json")["peak_gpu_memory_mb"] > 0


def moved_apart(model, root) -> float:
    """How far the weights of both runs end apart, as a share of how far the CPU's have moved. (A sign that
    rounding turns is a step of twice the learning rate, so single weights may differ by more.)"""
    places = model, root / "cpu/checkpoints", root / "cuda/checkpoints"
    before, cpu, gpu = (load_file(place / "model.safetensors") for place in places)
    length = lambda a, b: sum(float((a[key] - b[key]).double().norm() ** 2) for key in before) ** 0.5
    return length(cpu, gpu) / length(cpu, before)


@pytest.mark.parametrize("name", ["mask", "gru-mask"])
def test_masked_weights_stay_what_they_were_to_the_bit(name, folder, small_world, tmp_path):
    more = placed(METHODS[name], folder, small_world)
    losses(folder / "model", tmp_path, name, 8, 1, *STEPS, *more, "--overall.device", "cuda")
    masked_weights_stay(folder, tmp_path / name)


def test_a_gpu_measures_what_the_cpu_measures(folder, tmp_path):
    for device in EXACT:
        done = run_script(
            "unlearn_model", *words(folder / "model", tmp_path, device, 8, 1, *MEASURED, *EXACT[device])
        )
        assert done.returncode == 0, done.stderr
    cpu, gpu = (read_json(tmp_path / device / "metrics.json") for device in EXACT)
    assert sum(value is not None for value in gpu.values()) > 30
    assert gpu == pytest.approx(cpu, abs=1e-4)


def test_a_gpu_measures_while_it_trains(folder, tmp_path):
    for device in EXACT:
        losses(folder / "model", tmp_path, device, 8, 1, *STEPS, *EVALUATED, *EXACT[device])
    cpu, gpu = (read_jsonl(tmp_path / device / "evaluations.jsonl") for device in EXACT)
    for ours, theirs in zip(gpu, cpu, strict=True):
        assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=1e-3)
        assert ours["kl"] == pytest.approx(theirs["kl"], rel=1e-2, abs=1e-7)


@pytest.mark.parametrize("name", METHODS)
def test_bf16_comes_near(name, folder, small_world, tmp_path):
    more = [*STEPS, *placed(METHODS[name], folder, small_world)]
    exact = losses(folder / "model", tmp_path, "exact", 8, 1, *more, *EXACT["cpu"])
    found = losses(folder / "model", tmp_path, "bf16", 8, 1, *more, "--overall.device", "cuda")
    assert read_json(tmp_path / "bf16/environment.json")["precision"] == "bf16"
    assert len(found) == len(exact) == 20
    assert found[-1]["loss"] == pytest.approx(exact[-1]["loss"], rel=0.05, abs=0.05)
    figures = [read_json(tmp_path / run / "metrics.json")["forget/prob"] for run in ("exact", "bf16")]
    assert figures[1] == pytest.approx(figures[0], rel=0.2)


@pytest.mark.parametrize(
    "more",
    [
        ["--unlearn.optimizer", "AdamW8bit"],
        ["--unlearn.optimizer", "PagedAdamW8bit"],
        ["--unlearn.use_lora", "true", "--unlearn.lora.quantize", "nf4", "--unlearn.save_adapter", "only"],
    ],
    ids=["8bit", "paged", "nf4"],
)
def test_few_bits_take_nearly_the_steps_of_the_cpu(more, tokenizer, tmp_path):
    pytest.importorskip("bitsandbytes")
    save(random_llama(tokenizer, **WIDE), tokenizer, tmp_path / "model")
    cpu, gpu = (
        losses(tmp_path / "model", tmp_path, device, 8, 1, *STEPS, *more, *EXACT[device]) for device in EXACT
    )
    assert gpu[0]["loss"] == pytest.approx(cpu[0]["loss"], rel=1e-2)
    assert gpu[-1]["loss"] == pytest.approx(cpu[-1]["loss"], rel=0.05)


def test_interrupted_and_resumed_equals_never_interrupted(folder, tmp_path, monkeypatch):
    from unlearnkit.unlearn.step.trainer import UnlearnTrainer

    more = [*STEPS, "--unlearn.save_steps", "3", *EXACT["cuda"]]
    whole = losses(folder / "model", tmp_path, "whole", 8, 1, *more)
    log = UnlearnTrainer.log

    def log_and_stop(self, logs, start_time=None):
        log(self, logs, start_time)
        if self.state.global_step == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(UnlearnTrainer, "log", log_and_stop)
        stopped = run_script("unlearn_model", *words(folder / "model", tmp_path, "parts", 8, 1, *more))
    assert stopped.returncode == 130
    parts = losses(folder / "model", tmp_path, "parts", 8, 1, *more, "--unlearn.resume_path", "auto")
    assert [record["step"] for record in parts] == [record["step"] for record in whole]
    assert parts[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=1e-4)
    same_weights(tmp_path / "parts", tmp_path / "whole")


@contextlib.contextmanager
def little_memory(mb: int):
    """At most so many MB of the GPU for this process."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(mb * 2**20 / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_step_that_does_not_fit_is_one_line_with_the_remedy(tokenizer, tmp_path):
    save(random_llama(tokenizer, num_hidden_layers=24, hidden_size=512), tokenizer, tmp_path / "model")
    with little_memory(600):
        done = run_script(
            "unlearn_model", *words(tmp_path / "model", tmp_path, "run", 200, 1, *EXACT["cuda"])
        )
    assert done.returncode == 1
    assert "memory" in done.stderr and "dataset.batch_size" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_evaluation_that_does_not_fit_is_halved(tokenizer, tmp_path):
    save(random_llama(tokenizer, hidden_size=512, intermediate_size=8192), tokenizer, tmp_path / "model")
    more = [*"--unlearn.unlearn_method origin --evaluate.metrics tofu".split(), *EXACT["cuda"]]
    for name, memory in (("much", 20000), ("little", 220)):
        budget = ["--evaluate.batch_tokens", "65536", "--evaluate.max_new_tokens", "8"]
        with little_memory(memory):
            done = run_script(
                "unlearn_model", *words(tmp_path / "model", tmp_path, name, 8, 1, *more, *budget)
            )
        assert done.returncode == 0, done.stderr
    much, little = (read_json(tmp_path / name / "metrics.json") for name in ("much", "little"))
    assert little == pytest.approx(much, abs=1e-5)
