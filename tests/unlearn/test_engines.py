"""The engine that spreads a model over processes changes the time of a run and nothing else: 20 steps of two
processes under FSDP2 are those of one process."""

import pytest
import torch
from safetensors.torch import load_file
from scripts import once, run_in_two_processes
from tiny import random_llama, save
from trainings import ACCUMULATED, EVALUATED, LAYERS, MEASURED, losses, words

from unlearnkit.core.files import read_jsonl

pytestmark = [pytest.mark.run, pytest.mark.usefixtures("in_small_world")]

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
    "Sophia": ["--unlearn.optimizer", "Sophia"],
    "checkpointing": ["--unlearn.gradient_checkpointing", "true"],
}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory, tokenizer, small_world):
    """The folder of a model and of a run for each case, made by two processes with half the batch."""

    def fill(root):
        model = random_llama(tokenizer)
        save(model, tokenizer, root / "model")
        generator = torch.Generator().manual_seed(0)
        masks = {name: torch.rand(p.shape, generator=generator) < 0.5 for name, p in model.named_parameters()}
        torch.save(masks, root / "mask.pt")
        common = [*STEPS, "--dataset.data_dir", small_world]
        runs = [
            words(
                root / "model",
                root,
                name,
                *ACCUMULATED.get(name, (4, 1)),
                *common,
                *placed(more, root, small_world),
            )
            for name, more in cases().items()
        ]
        run_in_two_processes([[*run, "--overall.engine", "fsdp2"] for run in runs], root)

    return once(tmp_path_factory, "sharded", fill)


def cases() -> dict[str, list]:
    return METHODS | dict.fromkeys(ACCUMULATED, []) | {"measured": MEASURED, "evaluated": EVALUATED}


def placed(more, root, world) -> list:
    cot = ["--dataset.cot_data_dir", world] if "R2MU" in more else []
    return [root / "mask.pt" if word == "MASK" else word for word in more] + cot


@pytest.mark.parametrize("name", [*METHODS, *ACCUMULATED])
def test_sharded_weights_take_the_same_steps(name, sharded, tmp_path):
    more = placed(METHODS.get(name, []), sharded, sharded)
    one = losses(sharded / "model", tmp_path, "one", 8, 1, *STEPS, *more)
    two = read_jsonl(sharded / name / "log.jsonl")
    assert len(one) == len(two) == 20
    for ours, theirs in zip(two, one):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"tokens_per_second"}:
            assert ours[key] == pytest.approx(theirs[key], rel=2e-3, abs=1e-5), (ours["step"], key)
    weights = [
        load_file(root / "checkpoints/model.safetensors") for root in (sharded / name, tmp_path / "one")
    ]
    assert weights[0].keys() == weights[1].keys()
    for key, values in weights[0].items():
        torch.testing.assert_close(values, weights[1][key], rtol=1e-3, atol=2e-4)
