"""The plan of a run: rows, steps, memory, computation and disk, before weights are loaded."""

import copy
import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from scripts import REPO, run_script
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from unlearnkit.core.files import UserError
from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
from unlearnkit.exec.plan_flags import memory_size
from unlearnkit.model.plan.memory_axes import MemoryAxes, PassMemory
from unlearnkit.model.plan.run_plan import NF4_BYTES, fitting, make_plan, prepare, trained_composition
from unlearnkit.model.plan.shape_model import Pass, ShapeModel

TARGET = REPO / "files/models/fictional/target"
CONFIG = REPO / "configs/fictional/npo+ft.json"


def settings_of(**options):
    flags = {key.replace("__", "."): str(value) for key, value in options.items()}
    return resolve_settings(StrictConfig(), [str(CONFIG)], flags, {})


def plan_of(**options):
    settings = settings_of(**options)
    return make_plan(settings, prepare(settings))


@pytest.fixture(scope="module")
def plan():
    return plan_of()


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(TARGET)


def saved_bytes(model, rows: int, width: int) -> int:
    """Activations that a real pass of the real model keeps."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    ids = torch.zeros(rows, width, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    owned = {p.untyped_storage()._cdata for p in model.parameters()}
    return sum(storage.nbytes() for key, storage in kept.items() if key not in owned)


def test_parameters_rows_and_steps_are_those_of_the_run(plan, model):
    assert plan.parameters == plan.trained == sum(p.numel() for p in model.parameters())
    assert plan.rows == {"forget": 100, "retain": 900}
    assert (plan.steps.steps, plan.steps.rows_per_step) == (40 * 7, 16)
    assert plan.disk["model"] == plan.memory.weights


def test_weights_gradients_and_optimizer_are_four_copies(plan):
    memory = plan.memory
    size = 4 * plan.parameters
    assert (memory.gradients, memory.optimizer) == (size, 2 * size)
    assert size <= memory.weights <= 1.01 * size  # buffers


def test_activations_are_those_of_a_real_pass(model):
    settings = settings_of()
    shapes = ShapeModel(settings, trained_composition(settings))
    found = shapes.cost(Pass(3, 20))
    assert found.saved == pytest.approx(saved_bytes(model.train(), 3, 20), rel=0.02)
    with FlopCounterMode(display=False) as counter:
        ids = torch.zeros(3, 20, dtype=torch.long)
        model(
            input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1
        ).logits.sum().backward()
    assert found.flops == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_no_weight_takes_memory():
    settings = settings_of()
    shapes = ShapeModel(settings, trained_composition(settings))
    assert all(p.fake_mode is shapes.mode for p in shapes.model.parameters())


def test_lora_is_counted_by_peft(model):
    import peft

    found = plan_of(unlearn__use_lora="true", unlearn__lora__r=4)
    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(TARGET),
        peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert found.trained == trained
    assert found.memory.optimizer == 8 * trained
    assert found.parameters == trained + sum(p.numel() for p in model.parameters())


def test_four_bits_shrink_the_linear_layers_alone(model):
    lora = plan_of(unlearn__use_lora="true").memory.weights
    quantized = plan_of(
        unlearn__use_lora="true", unlearn__lora__quantize="nf4", unlearn__save_adapter="only"
    ).memory.weights
    linear = sum(
        layer.weight.numel() for layer in model.model.layers.modules() if isinstance(layer, torch.nn.Linear)
    )
    assert lora - quantized == pytest.approx(linear * (4 - NF4_BYTES), abs=2)


def test_eight_bits_spare_the_embedding(model):
    found = plan_of(unlearn__optimizer="AdamW8bit").memory.optimizer
    embedding = model.get_input_embeddings().weight.numel()
    small = sum(p.numel() for p in model.parameters() if p.numel() < 4096)
    rest = sum(p.numel() for p in model.parameters()) - embedding - small
    assert found == pytest.approx(8 * (embedding + small) + rest * (2 + 8 / 256), rel=1e-6)


def test_the_height_of_a_step_is_its_largest_moment():
    axes = {"weights": 100, "gradients": 100, "optimizer": 200}
    small = MemoryAxes(**axes, passes=(PassMemory(10), PassMemory(20)), embedding=30)
    assert small.training == 300 + 100 + 30  # the end of the backward pass
    large = MemoryAxes(**axes, passes=(PassMemory(400, 5), PassMemory(300, 10)))
    assert large.training == 300 + 700 + 15 + 2 * 10  # the end of the forward passes
    apart = MemoryAxes(**axes, gradient_sets=2, passes=(PassMemory(400), PassMemory(300)), together=False)
    assert apart.training == 300 + 400 + 300
    assert small.peak(on_gpu=False) == 300 + 100 + 10 + 20 + 30
    assert large.peak(on_gpu=False) == 300 + 100 + 700 + 15 + 2 * 10
    assert MemoryAxes(100, evaluation=900, gradients=10).peak(True) == 1000
    assert MemoryAxes(100, caches=50).peak(on_gpu=False) - MemoryAxes(100, caches=50).peak(on_gpu=True) == 50


def test_a_frozen_reference_is_a_second_model_and_lora_needs_none():
    full = plan_of(unlearn__unlearn_method="GA+KL")
    assert full.memory.reference == 4 * full.parameters and full.memory.caches
    assert plan_of(unlearn__unlearn_method="GA+KL", unlearn__use_lora="true").memory.reference == 0


def test_weights_that_stay_in_their_file_are_no_peak_of_a_cpu(tmp_path):
    rmu = {"unlearn__unlearn_method": "RMU", "unlearn__RMU__layer": 2}
    found = plan_of(**rmu)
    frozen = 4 * (found.parameters - found.trained)
    assert 0 < found.memory.mapped == frozen and found.needed == found.peak + frozen
    assert found.memory.parts()["weights"] == found.memory.weights - frozen < frozen
    drawn = {"unlearn__unlearn_method": "GA+FT", "unlearn__use_lora": "true", "overall__random_init": "true"}
    assert plan_of(**drawn).memory.mapped == 0
    # Weights that are saved in another precision are converted when they are loaded.
    other = shutil.copytree(TARGET, tmp_path / "bf16")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    assert plan_of(**rmu, overall__model_name=other).memory.mapped == 0
    assert plan_of().memory.mapped == 0 and plan_of().needed == plan_of().peak


def test_merging_writes_to_the_adapted_weights_alone(model):
    found = plan_of(unlearn__use_lora="true").memory
    linear = sum(m.weight.nbytes for m in model.model.layers.modules() if isinstance(m, torch.nn.Linear))
    assert (found.merged, found.mapped) == (linear, sum(p.nbytes for p in model.parameters()))
    quantized = plan_of(
        unlearn__use_lora="true", unlearn__lora__quantize="nf4", unlearn__save_adapter="only"
    ).memory
    assert (quantized.merged, quantized.mapped) == (0, found.mapped - linear)
    end = MemoryAxes(100, mapped=100, merged=70, evaluation=20, comparison=5)
    assert end.peak(on_gpu=False) == 70 + 20 + 5 and end.peak(on_gpu=True) == 120


def test_adapters_leave_holes_and_whole_weights_do_not():
    lora = plan_of(unlearn__use_lora="true").memory
    assert lora.holes == lora.activations > 0 and plan_of().memory.holes == 0
    large = MemoryAxes(0, passes=(PassMemory(saved=90, on_heap=40),), small_updates=True)
    assert large.peak(on_gpu=False) == 90 + 40 and large.peak(on_gpu=True) == 90


def test_bitsandbytes_computes_with_copies_on_a_cpu(model):
    embedding = model.get_input_embeddings().weight.nbytes
    assert plan_of(unlearn__optimizer="AdamW8bit").memory.updating == 3 * embedding
    assert plan_of().memory.updating == 0
    without = MemoryAxes(10, gradients=10, embedding=4)
    assert replace(without, updating=30).peak(False) - without.peak(False) == 30 - 4


def test_checkpointing_keeps_one_input_for_each_block():
    plain, again = plan_of(), plan_of(unlearn__gradient_checkpointing="true")
    assert again.memory.activations < 0.6 * plain.memory.activations
    assert again.flops > 1.2 * plain.flops


def test_tricks_are_those_that_the_run_can_take():
    settings = settings_of(unlearn__unlearn_method="NPO+FT+L1", unlearn__gradient_checkpointing="true")
    prepared = prepare(settings)
    names = [trick.name for trick, _ in fitting(make_plan(settings, prepared), prepared)]
    assert names and not [name for name in names if "LoRA" in name]
    assert "gradient checkpointing" not in names


def test_shards_share_what_is_not_activations(plan):
    half = plan.memory.sharded(2)
    assert half.weights == plan.memory.weights // 2
    assert half.activations == plan.memory.activations


@pytest.mark.parametrize(
    "text, size", [("40GB", 40e9), ("80GiB", 80 * 2**30), ("512 mb", 512e6), ("1.5G", 1.5e9), ("7", 7)]
)
def test_sizes(text, size):
    assert memory_size(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-4GB", "0GB", "4XB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UserError, match="--memory: expected a size such as 40GB"):
        memory_size(text)


def test_the_flags_show_the_plan_and_write_nothing(tmp_path, monkeypatch):
    import unlearnkit.model.load.loading as loading

    def no_weights(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", no_weights)
    where = f"--logger.json.root {tmp_path}/runs --overall.cache_dir {tmp_path}/cache".split()
    ended = run_script("unlearn_model", "--config_file", CONFIG, *where, "--plan", "--memory", "30MB")
    assert ended.returncode == 0, ended.stderr
    assert "280 of 16 rows" in ended.stdout and re.search(r"training time +about", ended.stdout)
    assert "as configured" in ended.stdout and "NF4 + LoRA" in ended.stdout
    assert not list(tmp_path.iterdir())


def test_memory_without_plan_and_a_wrong_size_end_with_one_line():
    for words in (("--memory", "40GB"), ("--plan", "--memory", "much")):
        ended = run_script("finetune_model", "--config_file", CONFIG, *words)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith("error: --memory") and ended.stderr.count("\n") == 1


def test_the_calibration_leaves_out_what_it_cannot_build():
    from unlearnkit.model.plan.device_rate import calibrate

    settings = settings_of()
    shapes = ShapeModel(settings, trained_composition(settings))
    rate = calibrate(settings, shapes, Pass(2, 8))
    assert rate.flops > 0 and rate.seconds(10 * int(rate.flops), 0, 1) == pytest.approx(10, rel=1e-3)
    config = copy.deepcopy(shapes.config)
    config.num_key_value_heads = 3  # does not divide the heads
    assert calibrate(settings, SimpleNamespace(config=config, precision="fp32"), Pass(2, 8)) is None
