"""Training under a mask: what it freezes stays to the bit, what it selects trains as without it."""

import itertools
import json
import signal
from dataclasses import replace

import pytest
import torch
from conftest import FICTIONAL, GOLDEN, REPO
from scripts import Forked, die_at_change, mounted, run_script
from tiny import random_other, save

from unlearnkit.core.encoding import Template, pad_rows
from unlearnkit.core.files import UserError, lock, read_json, read_jsonl
from unlearnkit.core.likelihood import shifted
from unlearnkit.exec.config.reader import ConfigError, StrictConfig, resolve_settings
from unlearnkit.exec.config.rules.data_rules import missing_files
from unlearnkit.loggers.json_ import JsonLogger
from unlearnkit.model.masks.mask_making import (
    GradientNeeds,
    _attended_inputs,
    _gradient_statistics,
    load_mask,
    make_masks,
)
from unlearnkit.model.run.unlearn_run import Unlearn
from unlearnkit.unlearn.mask import SCORES, Sidecar, WeightMask, read_mask, write_mask
from unlearnkit.unlearn.mask.mask_file import content_of, load_tensors, read_sidecar

STEPS = 20
SIDECAR = Sidecar("random", 0.5, "global", None, 0, 0, 0, "", "", "frozen")
pytestmark = [pytest.mark.run, pytest.mark.usefixtures("in_small_world")]
COMMON = {
    "unlearn.unlearn_method": "NPO+FT",
    "unlearn.lr": "1e-2",
    "unlearn.weight_decay": "0.1",
    "unlearn.max_steps": str(STEPS),
    "unlearn.num_epochs": "100",
    "dataset.forget_ratio": "8",
    "dataset.batch_size": "2",
    "unlearn.gradient_accumulation_steps": "2",
    "evaluate.before": "false",
    "evaluate.metrics": "forget/prob",
    "evaluate.rows": "2",
    "evaluate.bootstrap": "0",
    "overall.quiet": "true",
}


def weights(folder):
    from transformers import AutoModelForCausalLM

    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype="auto").named_parameters())


@pytest.fixture
def masks(tiny_model, tmp_path):
    found = {name: torch.rand(p.shape) < 0.5 for name, p in tiny_model.named_parameters()}
    write_mask(tmp_path / "m_0.5.pt", found, SIDECAR)
    return found


def train(folder, tmp_path, name, monkeypatch, **flags):
    monkeypatch.chdir(REPO)
    places = {
        "overall.model_name": str(folder),
        "logger.json.root": str(tmp_path),
        "logger.name": name,
        "overall.cache_dir": str(tmp_path / "cache"),
    }
    settings = resolve_settings(
        StrictConfig(),
        [],
        COMMON | {key.replace("__", "."): value for key, value in flags.items()} | places,
        {},
    )
    Unlearn(settings).run()
    return weights(tmp_path / name / "checkpoints")


def changed_outside(before, after, masks) -> int:
    return sum(int((before[name] != after[name])[~masks[name]].sum()) for name in masks)


OPTIMIZERS = {
    "AdamW": {},
    "Sophia": {"unlearn__optimizer": "Sophia"},
    "SAM": {"unlearn__flatness": "SAM", "unlearn__flat__SAM__rho": "0.1"},
    "RS": {"unlearn__flatness": "RS", "unlearn__flat__RS__rho": "0.05", "unlearn__max_steps": "10"},
    "WA": {"unlearn__flatness": "WA", "unlearn__flat__WA__start": "2", "unlearn__max_steps": "10"},
    "GRU": {"unlearn__combiner": "gru"},
    "R2MU": {"unlearn__unlearn_method": "R2MU", "unlearn__R2MU__layer": "1"},
    "GAO": {
        "unlearn__unlearn_method": "GAO",
        "unlearn__max_steps": "10",
        "dataset__paraphrases": "files/data/fictional/paraphrases.jsonl",
    },
}


@pytest.mark.parametrize(
    "kind, precision",
    [
        *itertools.product(("AdamW", "SAM"), ("fp32",)),
        *itertools.product(("AdamW", "Sophia"), ("bf16_pure",)),
        pytest.param("Sophia", "fp32", marks=pytest.mark.slow),
        pytest.param("SAM", "bf16_pure", marks=pytest.mark.slow),
        pytest.param("AdamW", "bf16", marks=pytest.mark.slow),
        ("RS", "fp32"),
        ("WA", "bf16_pure"),
    ],
)
def test_frozen_weights_stay_to_the_bit(kind, precision, masks, tiny_model_folder, tmp_path, monkeypatch):
    """Weight decay 0.1, accumulation of two: the number of changed weights outside the mask is exactly 0."""
    after = train(
        tiny_model_folder,
        tmp_path,
        "run",
        monkeypatch,
        unlearn__mask_path=str(tmp_path / "m_0.5.pt"),
        overall__precision=precision,
        **OPTIMIZERS[kind],
    )
    kept = {name: p.to(after[name].dtype) for name, p in weights(tiny_model_folder).items()}
    assert changed_outside(kept, after, masks) == 0
    moved = sum(int((kept[name] != after[name])[masks[name]].sum()) for name in masks)
    assert moved > 0.5 * sum(int(mask.sum()) for mask in masks.values())


@pytest.mark.slow
def test_r2mu_under_a_mask_moves_what_both_select(masks, tiny_model_folder, tmp_path, monkeypatch):
    after = train(
        tiny_model_folder,
        tmp_path,
        "run",
        monkeypatch,
        unlearn__mask_path=str(tmp_path / "m_0.5.pt"),
        unlearn__max_steps="10",
        **OPTIMIZERS["R2MU"],
    )
    before = weights(tiny_model_folder)
    assert changed_outside(before, after, masks) == 0
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1)
    }


@pytest.mark.parametrize(
    "kind",
    ["AdamW", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("R2MU", "GRU", "Sophia", "SAM"))],
)
@pytest.mark.slow
def test_frozen_weights_stay_after_a_resume(kind, masks, tiny_model_folder, tmp_path, monkeypatch):
    flags = {
        "unlearn__mask_path": str(tmp_path / "m_0.5.pt"),
        "unlearn__save_steps": "4",
        "unlearn__max_steps": "12",
        **OPTIMIZERS[kind],
    }
    whole = train(tiny_model_folder, tmp_path, "whole", monkeypatch, **flags)
    with monkeypatch.context() as patch:
        step = JsonLogger.step
        patch.setattr(
            JsonLogger,
            "step",
            lambda self, record: interrupt() if record["step"] == 10 else step(self, record),
        )
        with pytest.raises(KeyboardInterrupt):
            train(tiny_model_folder, tmp_path, "broken", patch, **flags)
    write_mask(tmp_path / "m_0.5.pt", {name: ~mask for name, mask in masks.items()}, SIDECAR)
    with pytest.raises(UserError, match="not the one of the interrupted run"):
        train(tiny_model_folder, tmp_path, "broken", monkeypatch, **flags, unlearn__resume_path="auto")
    write_mask(tmp_path / "m_0.5.pt", masks, SIDECAR)
    resumed = train(tiny_model_folder, tmp_path, "broken", monkeypatch, **flags, unlearn__resume_path="auto")
    assert len(read_jsonl(tmp_path / "broken/log.jsonl")) == 12
    before = weights(tiny_model_folder)
    assert changed_outside(before, resumed, masks) == 0
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.slow
def test_the_dense_mask_is_no_mask_and_the_empty_one_no_training(
    tiny_model, tiny_model_folder, tmp_path, monkeypatch
):
    for name, value in (("dense", True), ("empty", False)):
        torch.save(
            {n: torch.full(p.shape, value) for n, p in tiny_model.named_parameters()}, tmp_path / f"{name}.pt"
        )
    plain = train(tiny_model_folder, tmp_path, "plain", monkeypatch, unlearn__max_steps="10")
    dense = train(
        tiny_model_folder,
        tmp_path,
        "d",
        monkeypatch,
        unlearn__max_steps="10",
        unlearn__mask_path=str(tmp_path / "dense.pt"),
    )
    empty = train(
        tiny_model_folder,
        tmp_path,
        "e",
        monkeypatch,
        unlearn__max_steps="10",
        unlearn__mask_path=str(tmp_path / "empty.pt"),
    )
    start = weights(tiny_model_folder)
    assert all(
        torch.equal(plain[name], dense[name]) and torch.equal(empty[name], start[name]) for name in start
    )


def test_the_norm_that_is_clipped_is_the_masked_one(masks, tiny_model_folder, tmp_path, monkeypatch):
    train(
        tiny_model_folder,
        tmp_path,
        "masked",
        monkeypatch,
        unlearn__mask_path=str(tmp_path / "m_0.5.pt"),
        unlearn__max_steps="1",
    )
    train(tiny_model_folder, tmp_path, "plain", monkeypatch, unlearn__max_steps="1")
    masked, plain = (
        read_jsonl(tmp_path / name / "log.jsonl")[0]["grad_norm"] for name in ("masked", "plain")
    )
    assert 0.5 * plain < masked < 0.95 * plain


def test_golden_masked_adamw():
    """Decay is the mask's, the rest PyTorch's."""
    inputs = json.loads((GOLDEN / "objectives/inputs/optimizer_inputs.json").read_text())
    expected = json.loads((GOLDEN / "objectives/expected/optimizers.json").read_text())["expected"][
        "masked_adamw"
    ]
    given = inputs["adamw"]
    model = torch.nn.ParameterDict(
        {name: torch.tensor(value, dtype=torch.float64) for name, value in inputs["params"].items()}
    )
    start = {name: p.detach().clone() for name, p in model.items()}
    mask = WeightMask({name: torch.tensor(value) for name, value in inputs["mask"].items()}, model)
    optimizer = torch.optim.AdamW(
        model.values(),
        lr=given["lr"],
        betas=(given["beta1"], given["beta2"]),
        eps=given["eps"],
        weight_decay=given["weight_decay"],
    )
    mask.mask_decay(optimizer)
    for gradients, wanted in zip(inputs["grads"], expected):
        for name, p in model.items():
            p.grad = torch.tensor(gradients[name], dtype=torch.float64)
        mask.apply_to_gradients(list(model.values()))
        optimizer.step()
        for name, p in model.items():
            theirs = torch.tensor(wanted[name], dtype=torch.float64)
            torch.testing.assert_close(p.detach(), theirs, rtol=1e-9, atol=1e-12)
            frozen = ~torch.tensor(inputs["mask"][name])
            assert torch.equal(p.detach()[frozen], start[name][frozen])


@pytest.mark.parametrize(
    "changed, expected",
    [
        ({"unlearn.use_lora": "true"}, "unlearn.mask_path and unlearn.use_lora"),
        ({"unlearn.unlearn_method": "TV"}, "edits all weights and takes no mask"),
        (
            {"unlearn.mask_path": "mask/tofu_0.31.pt"},
            "download_mask.py tofu 0.31 --out mask, or make it: src/exec/make_mask.py",
        ),
    ],
)
def test_what_a_mask_cannot_go_with(changed, expected, masks, tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(REPO)
    flags = (
        COMMON
        | {"overall.model_name": str(tiny_model_folder), "unlearn.mask_path": str(tmp_path / "m_0.5.pt")}
        | changed
    )
    with pytest.raises(ConfigError, match=expected):
        resolve_settings(StrictConfig(), [], flags, {}, rules=missing_files)


@pytest.mark.parametrize("score", SCORES)
def test_every_score_makes_a_mask_that_its_model_takes(
    score, tiny_model, tiny_model_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(REPO)
    flags = {
        "overall.model_name": str(tiny_model_folder),
        "dataset.forget_ratio": "10",
        "mask.score": score,
        "mask.ratios": "0.3",
        "mask.out": str(tmp_path),
        "overall.quiet": "true",
    }
    (path,) = make_masks(resolve_settings(StrictConfig(), [], flags, {}))
    masks, sidecar = read_mask(path, tiny_model), read_json(tmp_path / "fictional_0.3.pt.json")
    assert sidecar["selected"] == sum(int(mask.sum()) for mask in masks.values())
    if score == "wanda":
        kept = masks["model.layers.0.mlp.up_proj.weight"].sum(1)
        assert kept.tolist() == [32 - int(32 * 0.7 + 1e-9)] * 48
        assert masks["lm_head.weight"].all()
    else:
        assert sidecar["selected"] == int(sidecar["weights"] * 0.3 + 1e-9)


def wanda_settings(folder, tmp_path, **more):
    flags = {
        "overall.model_name": str(folder),
        "dataset.forget_ratio": "4",
        "mask.score": "wanda",
        "mask.ratios": "0.5",
        "mask.out": str(tmp_path),
        "overall.quiet": "true",
    }
    return resolve_settings(StrictConfig(), [], flags | more, {})


@pytest.mark.parametrize("kind, scored", [("mixtral", 4), ("qwen2_moe", 8), ("llama4_text", 8)])
def test_wanda_scores_the_linear_layers_of_a_mixture_and_names_what_it_leaves_out(
    kind, scored, tokenizer, tmp_path, caplog
):
    model = random_other(kind, tokenizer)
    folder = save(model, tokenizer, tmp_path / "model")
    (path,) = make_masks(wanda_settings(folder, tmp_path))
    halved = [name for name, mask in read_mask(path, model).items() if not mask.all()]
    assert len(halved) == 2 * scored
    assert "experts.gate_up_proj" in caplog.text or "mlp.gate.weight" in caplog.text
    assert "are not scored and stay dense" in caplog.text
    with pytest.raises(UserError, match="'experts.gate' in its name; there are model.layers.0.self_attn"):
        make_masks(wanda_settings(folder, tmp_path, **{"mask.parameters": "experts.gate"}))


def test_wanda_names_the_layers_of_a_model_without_linear_ones(tokenizer, tmp_path):
    folder = save(random_other("gpt2", tokenizer), tokenizer, tmp_path / "model")
    match = (
        r"mask.score wanda: .*transformer.h.0.attn.c_attn.weight belongs to a Conv1D.*choose another score"
    )
    with pytest.raises(UserError, match=match):
        make_masks(wanda_settings(folder, tmp_path))


def test_wanda_counts_attended_positions_in_every_shape():
    """A mixture hands [B x T, width] to its shared expert, and some positions to each of the others."""
    inputs, attended = torch.rand(2, 3, 4), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    flat = inputs.reshape(6, 4)
    for given in (inputs, flat):
        assert torch.equal(_attended_inputs("up", given, attended), flat[[0, 1, 3, 4, 5]])
    assert torch.equal(_attended_inputs("up", flat[:2], torch.ones(2, 3).bool()), flat[:2])
    with pytest.raises(UserError, match="up reads 2 of the 6 positions .* dataset.batch_size 1"):
        _attended_inputs("up", flat[:2], attended)


def test_scores_are_means_so_that_rows_twice_change_nothing(tiny_model, tokenizer):
    template = Template(tokenizer)
    rows = [
        template.encode({"id": str(n), "question": f"Who is {n}?", "answer": "A miller " * (n + 1)})
        for n in range(3)
    ]
    parts = [pad_rows([(0, row)], 0) for row in rows]
    weights = dict(tiny_model.named_parameters())
    once, twice = (
        _gradient_statistics(tiny_model, weights, given, GradientNeeds("forget", {"forget"}), lambda n: None)
        for given in (parts, parts * 2)
    )
    together = pad_rows(list(enumerate(rows)), 0)
    scores = tiny_model(together["input_ids"], together["attention_mask"]).logits
    loss = torch.nn.functional.cross_entropy(*shifted(scores, together["labels"]))
    wanted = torch.autograd.grad(loss, list(weights.values()))
    for name, gradient in zip(weights, wanted):
        torch.testing.assert_close(once["forget"][name], gradient, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(twice["forget"][name], gradient, rtol=1e-4, atol=1e-7)


def test_a_mask_is_made_used_and_reported(tiny_model_folder, tmp_path):
    words = [
        "--overall.model_name",
        tiny_model_folder,
        *"--dataset.forget_ratio 10 --mask.ratios 0.1,0.6".split(),
        "--mask.out",
        tmp_path,
        "--overall.quiet",
        "true",
        "--overall.cache_dir",
        tmp_path / "cache",
    ]
    made = run_script("make_mask", *words)
    assert made.returncode == 0, made.stderr
    sidecar = read_json(tmp_path / "fictional_0.6.pt.json")
    assert sidecar["score"] == "wagle"
    assert sidecar["selected"] == int(sidecar["weights"] * 0.6)
    first = (tmp_path / "fictional_0.1.pt").read_bytes()
    refused = run_script("make_mask", *words)
    assert refused.returncode == 2
    assert "mask.out: already has" in refused.stderr
    assert run_script("make_mask", *words, "--mask.overwrite", "true").returncode == 0
    assert (tmp_path / "fictional_0.1.pt").read_bytes() == first
    shown = run_script("make_mask", "--report", tmp_path / "fictional_0.1.pt", tmp_path / "fictional_0.6.pt")
    assert shown.returncode == 0
    assert "self_attn.q_proj" in shown.stdout
    assert "by chance" in shown.stdout
    assert (tmp_path / "fictional_0.1_report.png").read_bytes().startswith(b"\x89PNG")
    none = run_script("make_mask", *words, *"--mask.parameters no_such_name --mask.overwrite true".split())
    assert none.returncode == 1
    assert "mask.parameters" in none.stderr
    (tmp_path / "fictional_0.9.pt").write_bytes(first)
    done = run_script(
        "unlearn_model",
        "--overall.model_name",
        tiny_model_folder,
        "--unlearn.unlearn_method",
        "NPO+FT",
        "--unlearn.mask_path",
        tmp_path / "fictional_0.9.pt",
        *"--unlearn.max_steps 1 --evaluate.metrics forget/prob --evaluate.before false".split(),
        "--logger.json.root",
        tmp_path,
        "--logger.name",
        "run",
    )
    assert done.returncode == 1
    assert "states 0.9 of the weights as updated, it selects 0.1000" in done.stderr
    assert not (tmp_path / "run").exists()


def mask_words(folder, out) -> list:
    """A command that makes a mask in no time."""
    return [
        *("--overall.model_name", folder, "--mask.out", out),
        *"--mask.score magnitude --mask.ratios 0.5 --mask.overwrite true".split(),
        *"--dataset.forget_ratio 1 --overall.quiet true".split(),
    ]


def states_its_model(path) -> bool:
    """Is there no mask, or one with the sidecar that was written for it?"""
    return not path.exists() or read_sidecar(path).get("content") == content_of(load_tensors(path))


@pytest.mark.parametrize("there", [pytest.param("nothing there", marks=pytest.mark.slow), "another there"])
@pytest.mark.parametrize("number", range(1, 11))
def test_a_mask_killed_at_any_change_never_passes_for_anothers(
    number, there, masks, tiny_model_folder, tmp_path
):
    out, words = tmp_path / "out", mask_words(tiny_model_folder, tmp_path / "out")
    path = out / "fictional_0.5.pt"
    if there == "another there":
        write_mask(path, masks, replace(SIDECAR, model="another"))
    killed = Forked("make_mask", *words, log=tmp_path / "killed", before=die_at_change(number, out))
    assert killed.ended.returncode == -signal.SIGKILL, killed.ended
    assert states_its_model(path)
    again = run_script("make_mask", *words)
    assert again.returncode == 0, again.stderr
    assert states_its_model(path)
    assert read_sidecar(path)["score"] == "magnitude"
    assert sorted(file.name for file in out.iterdir()) == [path.name, f"{path.name}.json"]


@pytest.mark.parametrize("size", ["60k", "300k"])
def test_a_mask_on_a_full_disk_is_one_clear_line_and_leaves_nothing(size, tiny_model_folder, tmp_path):
    """torch reports a full disk in two ways, by where it ends."""
    with mounted(tmp_path / "small", f"size={size}"):
        out = tmp_path / "small/out"
        words = [*mask_words(FICTIONAL / "target", out)]
        done = run_script("make_mask", *words)
        assert done.returncode == 1
        line = f"error: {out}/fictional_0.5.pt: cannot be written (No space left on device); choose another"
        assert done.stderr.startswith(line)
        assert done.stderr.count("\n") == 1
        assert not list(out.iterdir())


@pytest.mark.parametrize("place, status", [("file/out", 1), ("x" * 300, 2)])
def test_a_place_that_takes_no_mask_is_named_before_anything_is_scored(
    place, status, tiny_model_folder, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setattr("unlearnkit.model.masks.mask_making.score_weights", None)
    done = run_script("make_mask", *mask_words(tiny_model_folder, tmp_path / place))
    assert done.returncode == status
    assert "mask.out" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_processes_never_make_the_same_mask(tiny_model_folder, tmp_path):
    with lock(tmp_path / "fictional_0.5.lock"):
        done = run_script("make_mask", *mask_words(tiny_model_folder, tmp_path))
    assert done.returncode == 1
    assert "another run is writing here; wait for it or choose another mask.out" in done.stderr


def test_a_mask_that_may_not_be_the_one_that_was_meant(
    masks, tiny_model, tiny_model_folder, tmp_path, caplog
):
    write_mask(
        tmp_path / "other_0.5.pt",
        masks,
        Sidecar("random", 0.5, "global", None, 0, 0, 0, "another", "", "frozen"),
    )
    done = run_script(
        "unlearn_model",
        "--overall.model_name",
        tiny_model_folder,
        "--unlearn.unlearn_method",
        "NPO+FT",
        "--unlearn.mask_path",
        tmp_path / "other_0.5.pt",
        *"--unlearn.max_steps 1 --evaluate.metrics forget/prob --evaluate.before false".split(),
        "--logger.json.root",
        tmp_path,
        "--logger.name",
        "run",
    )
    assert done.returncode == 1
    assert "made for other weights" in done.stderr
    assert "unlearn.mask_force" in done.stderr
    write_mask(
        tmp_path / "other_0.5.pt",
        {name: ~mask for name, mask in masks.items()},
        Sidecar("random", 0.5, "global", None, 0, 0, 0, "", "", "frozen"),
    )
    sidecar = (tmp_path / "other_0.5.pt.json").read_text()
    write_mask(
        tmp_path / "other_0.5.pt", masks, Sidecar("random", 0.5, "global", None, 0, 0, 0, "", "", "frozen")
    )
    (tmp_path / "other_0.5.pt.json").write_text(sidecar)
    with pytest.raises(UserError, match="other bits"):
        load_mask(_settings(tiny_model_folder, tmp_path / "other_0.5.pt"), tiny_model)
    with caplog.at_level("WARNING"):
        assert load_mask(_settings(tiny_model_folder, tmp_path / "other_0.5.pt", force="true"), tiny_model)
    assert "other bits" in caplog.text


def _settings(folder, path, force="false"):
    flags = {
        "overall.model_name": str(folder),
        "unlearn.unlearn_method": "NPO+FT",
        "unlearn.mask_path": str(path),
        "unlearn.mask_force": force,
    }
    return resolve_settings(StrictConfig(), [], flags, {})
