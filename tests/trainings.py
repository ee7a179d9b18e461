"""Short trainings of the tiny model for tests, and what is compared of them."""

import pytest
import torch
from safetensors.torch import load_file
from scripts import run_script
from tiny import random_llama, save

from unlearnkit.core.files import read_jsonl

COMMON = (
    "--unlearn.unlearn_method NPO+FT --unlearn.lr 1e-3 --unlearn.max_steps 6 "
    "--evaluate.before false --evaluate.metrics forget/prob --overall.quiet true "
    "--unlearn.weight_decay 0.01"
).split()


TERMS = {
    "loss",
    "npo",
    "retain_nll",
    "retain_embed",
    "steering",
    "unthink",
    "cot",
    "grad_norm",
    "cosine",
    "conflict",
    "direction_norm",
    "gao_density",
    "gao_null",
    "gao_norm",
    "gao_rows_left_out",
}
LAYERS = {
    "EMBED": ["--unlearn.retain.EMBED.layer", "0"],
    "R2MU": ["--unlearn.R2MU.layer", "1"],
    "GAO": ["--dataset.paraphrases", "files/data/fictional/paraphrases.jsonl", "--unlearn.GAO.K", "2"],
}
"""The tiny model has two blocks."""
STEPS = ["--dataset.forget_ratio", "20", "--unlearn.num_epochs", "7", "--unlearn.max_steps", "20"]
"""Seven epochs of 20 rows, 8 rows a step: the last window of an epoch is short."""
METHODS = {
    "NPO+FT": [],
    "NPO+KL": ["--unlearn.unlearn_method", "NPO+KL"],
    "EMBED": ["--unlearn.unlearn_method", "EMBED", *LAYERS["EMBED"]],
    "R2MU": ["--unlearn.unlearn_method", "R2MU", *LAYERS["R2MU"]],
    "GAO": ["--unlearn.unlearn_method", "GAO", *LAYERS["GAO"]],
    "GAO-window": ["--unlearn.unlearn_method", "GAO", "--unlearn.GAO.scope", "window", *LAYERS["GAO"]],
    "pcgrad": ["--unlearn.combiner", "pcgrad"],
    "gru": ["--unlearn.combiner", "gru"],
    "blur": ["--unlearn.combiner", "blur"],
    "sago": ["--unlearn.combiner", "sago"],
    "ngdiff": ["--unlearn.combiner", "ngdiff"],
    "mask": ["--unlearn.mask_path", "MASK"],
    "gru-mask": ["--unlearn.mask_path", "MASK", "--unlearn.combiner", "gru"],
    "lora": ["--unlearn.use_lora", "true"],
    "lora-gru": ["--unlearn.use_lora", "true", "--unlearn.combiner", "gru"],
    "SAM": ["--unlearn.flatness", "SAM"],
    "RS": ["--unlearn.flatness", "RS"],
    "GP": ["--unlearn.flatness", "GP"],
    "WA": ["--unlearn.flatness", "WA", "--unlearn.flat.WA.start", "5"],
    "Sophia": ["--unlearn.optimizer", "Sophia", "--unlearn.optim.Sophia.hessian", "squared_grad"],
    "checkpointing": ["--unlearn.gradient_checkpointing", "true"],
}
"""Name -> flags of what several engines must do as one process does."""


def save_model_and_mask(root, tokenizer) -> None:
    """`root/model`, and `root/mask.pt` with half of its weights."""
    model = random_llama(tokenizer)
    save(model, tokenizer, root / "model")
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(p.shape, generator=generator) < 0.5 for name, p in model.named_parameters()}
    torch.save(masks, root / "mask.pt")


def masked_weights_stay(root, run) -> None:
    """What the mask of `root` holds back is to the bit what it was, and every matrix moved elsewhere."""
    masks = torch.load(root / "mask.pt", weights_only=True)
    before, after = (
        load_file(place / "model.safetensors") for place in (root / "model", run / "checkpoints")
    )
    assert all(torch.equal(after[key][~masks[key]], before[key][~masks[key]]) for key in before)
    assert not any(torch.equal(after[key], before[key]) for key in before if "proj" in key)


def placed(more, root, world) -> list:
    cot = ["--dataset.cot_data_dir", world] if "R2MU" in more else []
    return [root / "mask.pt" if word == "MASK" else word for word in more] + cot


def words(model, root, name, batch, accumulate, *more) -> list:
    places = {"overall.model_name": model, "logger.json.root": root, "overall.cache_dir": root / "c"}
    sizes = {"dataset.batch_size": batch, "unlearn.gradient_accumulation_steps": accumulate}
    said = places | sizes | {"logger.name": name}
    return [*(f"--{key}={value}" for key, value in said.items()), *COMMON, *more]


def losses(model, root, name, batch, accumulate, *more) -> list[dict]:
    run = run_script("unlearn_model", *words(model, root, name, batch, accumulate, *more))
    assert run.returncode == 0, run.stderr
    return read_jsonl(root / name / "log.jsonl")


def same(ours: list[dict], theirs: list[dict], rel: float = 1e-5) -> None:
    assert len(ours) == len(theirs) == 6
    for a, b in zip(ours, theirs):
        for key in TERMS & set(a):
            assert a[key] == pytest.approx(b[key], rel=rel), (a["step"], key)
        assert a["tokens"] == b["tokens"]


def same_weights(ours, theirs, atol: float = 2e-4) -> None:
    """The final models of two run folders are equal up to rounding."""
    mine, other = (load_file(root / "checkpoints/model.safetensors") for root in (ours, theirs))
    assert mine.keys() == other.keys()
    for key, values in mine.items():
        torch.testing.assert_close(values, other[key], rtol=1e-3, atol=atol)


MEASURED = [
    *("--unlearn.unlearn_method", "origin", "--evaluate.metrics", "tofu", "privacy"),
    *("--evaluate.max_new_tokens", "8", "--evaluate.batch_tokens", "600", "--evaluate.rows", "9"),
]
"""All that is measured without training."""
ACCUMULATED = {"2x2": (2, 2), "1x4": (1, 4)}
"""Name -> rows per micro-batch and process, and micro-batches per step: 8 rows a step of two processes."""
EVALUATED = ["--evaluate.every", "2 steps", *"--unlearn.stop kl=100 --evaluate.rows 8".split()]
