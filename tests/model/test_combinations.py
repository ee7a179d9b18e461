"""Every method through the whole run on a tiny model, with optimizers, flatness wrappers and LoRA spread over
them so that each meets each."""

import itertools

import pytest
import torch
from conftest import REPO

from unlearnkit.core.files import read_json, write_jsonl
from unlearnkit.dataset import load_rows
from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
from unlearnkit.model.run.unlearn_run import Unlearn
from unlearnkit.unlearn import FORGET, RETAIN, parse_method

RETAINS = tuple(RETAIN)
WRAPPERS = ("none", "SAM", "RS", "GP", "CR", "WA")
OPTIMIZERS = ("AdamW", "Sophia")
HEADS = [name for name in FORGET if name != "origin"]


def combination(number: int, forget: str) -> dict[str, str]:
    """The `number`-th method with its company."""
    kind = FORGET[forget]
    method = forget if kind.owns_retain else f"{forget}+{RETAINS[number % len(RETAINS)]}"
    wrapper = "none" if parse_method(method).edits else WRAPPERS[number % len(WRAPPERS)]
    optimizer = OPTIMIZERS[(number // len(WRAPPERS) + number) % 2]
    return {
        "unlearn.unlearn_method": method,
        "unlearn.flatness": wrapper,
        "unlearn.optimizer": optimizer,
        "unlearn.use_lora": str(bool(number // 3 % 2) and wrapper != "WA").lower(),
        "unlearn.optim.Sophia.every": "2",
        "unlearn.flat.WA.start": "1",
        "unlearn.optim.Sophia.on": "forget" if parse_method(method).edits else "retain",
    }


def name_of(case: dict[str, str]) -> str:
    parts = [case[f"unlearn.{key}"] for key in ("unlearn_method", "flatness", "optimizer")]
    return "-".join([*parts, f"lora={case['unlearn.use_lora']}"])


CASES = {name_of(case): case for case in itertools.starmap(combination, enumerate(HEADS))}
pytestmark = [pytest.mark.run, pytest.mark.usefixtures("in_small_world")]
COMMON = {
    "unlearn.max_steps": "3",
    "unlearn.num_epochs": "1",
    "unlearn.lr": "1e-3",
    "dataset.batch_size": "2",
    "unlearn.gradient_accumulation_steps": "2",
    "dataset.forget_ratio": "12",
    "evaluate.rows": "2",
    "evaluate.before": "false",
    "evaluate.metrics": "forget/prob",
    "evaluate.bootstrap": "0",
    "overall.quiet": "true",
    "logger.name": "run",
}


@pytest.fixture(scope="module")
def alternates(tmp_path_factory):
    path = tmp_path_factory.mktemp("alternates") / "alternates.jsonl"
    rows = load_rows("Fictional_forget10", None)
    write_jsonl(
        path,
        [
            {"id": row["id"], "question": row["question"], "alternates": ["Perhaps a baker.", "A sailor."]}
            for row in rows
        ],
    )
    return str(path)


def run(said: dict, folder, tmp_path, alternates, monkeypatch):
    """The outcome of a run on the tiny model; the settings' `optim`, `flat` and `alternates` keys only where
    they have an effect."""
    monkeypatch.chdir(REPO)
    kinds = {
        "optim.Sophia": said.get("unlearn.optimizer") == "Sophia",
        "flat.WA": said.get("unlearn.flatness") == "WA",
    }
    said = {
        key: value for key, value in said.items() if all(on or word not in key for word, on in kinds.items())
    }
    if "EMBED" in said["unlearn.unlearn_method"]:
        said |= {"unlearn.retain.EMBED.layer": "1"}
    if (head := said["unlearn.unlearn_method"].partition("+")[0]) in ("RMU", "R2MU-v0", "R2MU"):
        said |= {f"unlearn.{head}.layer": "1"}
    if "AltPO" in said["unlearn.unlearn_method"]:
        said |= {"dataset.alternates": alternates}
    places = {
        "overall.model_name": str(folder),
        "logger.json.root": str(tmp_path / "out"),
        "overall.cache_dir": str(tmp_path / "cache"),
    }
    settings = resolve_settings(StrictConfig(), [], COMMON | said | places, {})
    return Unlearn(settings).run()


def test_each_company_meets_each():
    pairs = {(c["unlearn.flatness"], c["unlearn.optimizer"]) for c in CASES.values()}
    assert pairs == set(itertools.product(WRAPPERS, OPTIMIZERS))
    lora = {(c["unlearn.optimizer"], c["unlearn.use_lora"]) for c in CASES.values()}
    assert lora == set(itertools.product(OPTIMIZERS, ("false", "true")))


@pytest.mark.parametrize("name", CASES)
def test_a_combination_runs_to_the_end(name, tiny_model_folder, tmp_path, alternates, monkeypatch):
    from transformers import AutoModelForCausalLM

    outcome = run(CASES[name], tiny_model_folder, tmp_path, alternates, monkeypatch)
    assert outcome.after.metrics["forget/prob"] is not None
    facts = read_json(outcome.folder / "environment.json")
    assert facts["train_seconds"] > 0
    forget = facts["data"].get("forget") or facts["data"]["alternate"]
    assert forget["rows"] > 0 and forget["from"]
    folders = tiny_model_folder, outcome.folder / "checkpoints"
    initial = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    assert facts["weights"] == initial.num_parameters()
    before, after = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in folders)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[k], after[k]) for k in before)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer, wrapper, lora",
    [c for c in itertools.product(OPTIMIZERS, WRAPPERS, ("false", "true")) if c[1:] != ("WA", "true")],
)
@pytest.mark.parametrize("forget", [name for name in HEADS if not parse_method(name).edits])
def test_the_full_grid(
    forget, optimizer, wrapper, lora, tiny_model_folder, tmp_path, alternates, monkeypatch
):
    methods = [forget] if FORGET[forget].owns_retain else [f"{forget}+{retain}" for retain in RETAINS]
    for method in methods:
        said = {
            "unlearn.unlearn_method": method,
            "unlearn.optimizer": optimizer,
            "unlearn.flatness": wrapper,
            "unlearn.use_lora": lora,
            "unlearn.flat.WA.start": "1",
            "unlearn.max_steps": "1",
            "overall.logger": "none",
        }
        assert (
            run(said, tiny_model_folder, tmp_path, alternates, monkeypatch).after.metrics["forget/prob"]
            is not None
        )
