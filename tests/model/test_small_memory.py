"""What saves memory: 8-bit optimizer state, a 4-bit base under LoRA, recomputed activations, caches on the
host."""

import pytest
import torch
import trainings
from safetensors.torch import load_file
from scripts import run_script
from tiny import few_steps, random_llama, save

from unlearnkit.core.files import read_json, read_jsonl
from unlearnkit.exec.config.reader import ConfigError, StrictConfig, resolve_settings
from unlearnkit.model.reference import RowCache
from unlearnkit.unlearn.mask.application import WeightMask

WIDE = {"hidden_size": 128, "intermediate_size": 96}
"""Matrices of at least 4,096 elements, whose optimizer state is quantised."""
NF4 = {
    "unlearn.use_lora": "true",
    "unlearn.lora.quantize": "nf4",
    "unlearn.save_adapter": "only",
}


@pytest.mark.parametrize("optimizer", ["AdamW8bit", "PagedAdamW8bit"])
@pytest.mark.filterwarnings("ignore:Paged optimizers")
def test_eight_bit_state_takes_nearly_the_same_steps(optimizer, tokenizer, tmp_path):
    pytest.importorskip("bitsandbytes")
    options = {"unlearn__unlearn_method": "GA+FT", "unlearn__num_epochs": 3}
    exact = few_steps(random_llama(tokenizer, **WIDE), tokenizer, tmp_path / "a", **options)
    found = few_steps(
        random_llama(tokenizer, **WIDE), tokenizer, tmp_path / "b", unlearn__optimizer=optimizer, **options
    )
    first = found.weights[0]
    moved = sum(float((a - b).norm() ** 2) for a, b in zip(exact.weights[-1], first)) ** 0.5
    apart = sum(float((a - b).norm() ** 2) for a, b in zip(exact.weights[-1], found.weights[-1])) ** 0.5
    assert 0 < apart < 0.15 * moved
    states = [state for state in found.optimizer.state.values() if "state1" in state]
    dtypes = {state["state1"].dtype for state in states}
    assert dtypes == {torch.uint8, torch.float32}
    vocabulary = len(tokenizer)
    embeddings = [state["state1"].dtype for state in states if state["state1"].shape[:1] == (vocabulary,)]
    assert embeddings[0] == torch.float32


def test_a_mask_freezes_weights_to_the_bit_under_eight_bits(tokenizer, tmp_path):
    pytest.importorskip("bitsandbytes")
    model = random_llama(tokenizer, **WIDE)
    torch.manual_seed(3)
    masks = {name: torch.rand_like(p) < 0.5 for name, p in model.named_parameters()}
    options = {"unlearn__optimizer": "AdamW8bit", "unlearn__unlearn_method": "GA+FT"}
    seen = few_steps(model, tokenizer, tmp_path, WeightMask(masks, model), **options)
    for before, after, mask in zip(seen.weights[0], seen.weights[-1], masks.values()):
        assert torch.equal(before[~mask], after[~mask])
        assert not torch.equal(before[mask], after[mask])


@pytest.mark.parametrize("method", ["NPO+FT", "RMU"])
def test_recomputed_activations_train_adapters_with_the_same_steps(method, tokenizer, tmp_path):
    options = {"unlearn__unlearn_method": method, "unlearn__use_lora": "true", "unlearn__num_epochs": 2}
    options |= {"unlearn__RMU__layer": 1} if method == "RMU" else {}
    plain, again = (
        few_steps(
            random_llama(tokenizer).requires_grad_(False),
            tokenizer,
            tmp_path / kind,
            unlearn__gradient_checkpointing=kind,
            **options,
        ).records
        for kind in ("false", "true")
    )
    assert plain[0]["grad_norm"] > 0 or plain[1]["grad_norm"] > 0
    for ours, theirs in zip(again, plain, strict=True):
        for key in ("loss", "grad_norm"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5, abs=1e-8)


def words(model, folder, name, **more):
    keys = {
        "overall.model_name": model,
        "unlearn.unlearn_method": "NPO+FT",
        "unlearn.lr": "3e-2",
        "unlearn.max_steps": 3,
        "dataset.forget_ratio": 4,
        "dataset.batch_size": 4,
        "evaluate.metrics": "forget/prob,forget/rougeL",
        "evaluate.rows": 2,
        "evaluate.max_new_tokens": 4,
        "overall.quiet": "true",
        "overall.cache_dir": folder / "cache",
        "logger.json.root": folder,
        "logger.name": name,
    }
    return [word for key, value in (keys | more).items() for word in (f"--{key}", value)]


def test_adapters_are_trained_over_four_bits_and_kept_alone(tokenizer, tmp_path):
    pytest.importorskip("bitsandbytes")
    model = save(random_llama(tokenizer, **WIDE), tokenizer, tmp_path / "model")
    done = run_script("unlearn_model", *words(model, tmp_path, "run", **NF4))
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "run/checkpoints"
    assert not (kept / "model.safetensors").exists()
    adapter = load_file(kept / "adapter_model.safetensors")
    grown = [value for name, value in adapter.items() if "lora_B" in name]
    assert grown and all(value.abs().max() > 0 for value in grown)
    before, after = (read_json(tmp_path / "run" / name / "metrics.json") for name in ("before", "."))
    assert before["forget/prob"] != after["forget/prob"]
    losses = [record["loss"] for record in read_jsonl(tmp_path / "run/log.jsonl")]
    assert losses[-1] < losses[0]
    weights = read_json(tmp_path / "run/environment.json")["weights"]
    assert weights == sum(values.numel() for values in load_file(model / "model.safetensors").values())
    # The base is the rounded model: near the whole one, and not it.
    whole = run_script("unlearn_model", *words(model, tmp_path, "whole", **{"unlearn.max_steps": 1}))
    assert whole.returncode == 0, whole.stderr
    exact = read_json(tmp_path / "whole/before/metrics.json")["forget/prob"]
    assert before["forget/prob"] != exact and before["forget/prob"] == pytest.approx(exact, rel=0.2)
    # The adapter fits on the whole base too.
    again = words(kept, tmp_path, "again", **{"unlearn.unlearn_method": "origin"})
    measured = run_script("evaluate_model", *again)
    assert measured.returncode == 0, measured.stderr


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"unlearn.use_lora": "false", "unlearn.save_adapter": "none"}, "set unlearn.use_lora true"),
        ({"unlearn.save_adapter": "none"}, "set unlearn.save_adapter only"),
        ({"unlearn.unlearn_method": "FT", "overall.random_init": "true"}, "overall.random_init draws"),
        ({"unlearn.unlearn_method": "WHP"}, "edits the weights themselves"),
    ],
)
def test_what_four_bits_cannot_do_is_refused_with_the_key(changed, told):
    with pytest.raises(ConfigError, match="unlearn.lora.quantize nf4: .*") as refused:
        resolve_settings(StrictConfig(), [], {"unlearn.unlearn_method": "NPO+FT"} | NF4 | changed, {})
    assert told in str(refused.value)


def test_a_package_that_is_missing_is_named_with_its_key(monkeypatch):
    from unlearnkit.exec.config.rules import model_rules

    monkeypatch.setattr(model_rules, "find_spec", lambda name: None if name == "bitsandbytes" else object())
    with pytest.raises(ConfigError, match="unlearn.optimizer AdamW8bit: the package bitsandbytes is not"):
        resolve_settings(
            StrictConfig(), [], {"unlearn.unlearn_method": "NPO+FT", "unlearn.optimizer": "AdamW8bit"}, {}
        )


class OnGpu(torch.Tensor):
    """A tensor that passes for one of a GPU."""

    @property
    def device(self):
        return torch.device("cuda")

    def cpu(self):
        return self.as_subclass(torch.Tensor).clone()


def test_kept_values_of_a_gpu_lie_in_the_hosts_memory():
    values = torch.arange(15.0).view(5, 3)
    part = {"input_ids": torch.zeros(2, 4, dtype=torch.long), "index": torch.tensor([0, 1])}
    cache = RowCache(lambda rows: values.as_subclass(OnGpu), lambda rows: torch.tensor([2, 3]), budget=10**6)
    assert torch.equal(cache.get("forget", part).as_subclass(torch.Tensor), values)
    assert [type(kept) for kept in cache.kept.values()] == [torch.Tensor, torch.Tensor]
    assert torch.equal(cache.get("forget", part), values)


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has none.")


@pytest.mark.run
@pytest.mark.parametrize(
    ("place", "told"),
    [
        (
            "unlearn.step.trainer.UnlearnTrainer.training_step",
            "in training; lower dataset.batch_size",
        ),
        (
            "model.run.training.make_reference",
            "(CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0",
        ),
    ],
)
def test_a_lack_of_memory_is_one_line_with_the_remedy(place, told, tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(f"unlearnkit.{place}", out_of_memory)
    done = run_script("unlearn_model", *trainings.words(tiny_model_folder, tmp_path, "run", 8, 1))
    assert done.returncode == 1
    assert told in done.stderr and "--plan --memory" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
