"""One optimizer step is the same however it is split: into micro-batches, or over processes."""

import pytest
import torch
from conftest import REPO
from safetensors.torch import load_file
from scripts import once, run_in_two_processes, run_script
from tiny import random_llama, save
from trainings import ACCUMULATED, COMMON, EVALUATED, LAYERS, MEASURED, losses, same, words

from unlearnkit.core.files import read_json, read_jsonl
from unlearnkit.optim.sharpness import GP

pytestmark = [pytest.mark.run, pytest.mark.usefixtures("in_small_world")]


def test_micro_batches_do_not_matter(tiny_model_folder, tmp_path):
    """Six steps over 20 rows, 8 a step: the last window of an epoch has 4 rows, which are 1, 1, 2 or 4
    micro-batches."""
    for method in ("NPO+FT", "R2MU", "GAO"):
        words = ["--unlearn.unlearn_method", method, *LAYERS.get(method, [])]
        whole = losses(tiny_model_folder, tmp_path, f"{method}-8x1", 8, 1, *words)
        assert whole[-1]["loss"] < whole[0]["loss"]
        splits = ((4, 2), (2, 4), (1, 8)) if method == "NPO+FT" else ((2, 4),)
        for batch, accumulate in splits:
            same(
                losses(
                    tiny_model_folder, tmp_path, f"{method}-{batch}x{accumulate}", batch, accumulate, *words
                ),
                whole,
            )
            record = read_json(tmp_path / f"{method}-{batch}x{accumulate}" / "environment.json")["training"]
            if method == "NPO+FT":
                assert record["optimizer_steps_done"] == 6
                assert record["epochs_done"] == 2
                assert record["micro_steps_done"] == 2 * 20 // batch
                assert (record["last_window_rows"], record["last_window_share"]) == (4, 0.5)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, tokenizer, small_world) -> list[dict]:
    """The log of a run without combiner."""

    def fill(root):
        save(random_llama(tokenizer), tokenizer, root / "model")
        losses(root / "model", root, "plain", 8, 1, "--dataset.data_dir", small_world)

    return read_jsonl(once(tmp_path_factory, "plain-trainer-run", fill) / "plain/log.jsonl")


@pytest.mark.parametrize(
    "combiner",
    ["pcgrad", "gru", "blur", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sago", "ngdiff"))],
)
def test_gradients_are_combined_once_per_step_of_the_whole_step(combiner, plain, tiny_model_folder, tmp_path):
    words = ["--unlearn.combiner", combiner]
    whole = losses(tiny_model_folder, tmp_path, "8x1", 8, 1, *words)
    same(losses(tiny_model_folder, tmp_path, "2x4", 2, 4, *words), whole, rel=1e-4)
    # BLUR promises nothing about the retain side; GRU's promise is about a moving average, which is the
    # retain gradient itself in the first step alone.
    promised = {"blur": [], "gru": whole[:1]}.get(combiner, whole)
    assert all(record["along_retain"] >= -1e-5 for record in promised)
    assert [r["loss"] for r in plain] != [r["loss"] for r in whole]


def test_the_sum_taken_apart_is_the_joint_backward(tiny_model_folder, tmp_path, monkeypatch):
    from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
    from unlearnkit.model.run.unlearn_run import Unlearn

    def run(name):
        said = dict(zip(COMMON[::2], COMMON[1::2])) | {
            "--overall.model_name": str(tiny_model_folder),
            "--logger.json.root": str(tmp_path),
            "--logger.name": name,
            "--unlearn.forget_weight": "0.3",
            "--unlearn.gamma": "2",
        }
        Unlearn(
            resolve_settings(StrictConfig(), [], {key[2:]: value for key, value in said.items()}, {})
        ).run()
        return read_jsonl(tmp_path / name / "log.jsonl")

    monkeypatch.chdir(REPO)
    joint = run("joint")
    monkeypatch.setattr(
        "unlearnkit.model.run.training.Sum", type("Nobody", (), {})
    )  # what is no Sum is taken apart
    apart = run("apart")
    assert "cosine" in apart[0]
    assert "cosine" not in joint[0]
    same(joint, apart)


def in_process(folder, root, name, monkeypatch, **said):
    """A run in this process, so that what it does can be watched."""
    from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
    from unlearnkit.model.run.unlearn_run import Unlearn

    monkeypatch.chdir(REPO)
    flags = dict(zip([word[2:] for word in COMMON[::2]], COMMON[1::2])) | {
        "overall.model_name": str(folder),
        "logger.json.root": str(root),
        "logger.name": name,
        "unlearn.max_steps": "2",
    }
    Unlearn(
        resolve_settings(
            StrictConfig(), [], flags | {key.replace("__", "."): value for key, value in said.items()}, {}
        )
    ).run()
    return read_jsonl(root / name / "log.jsonl")


def test_gao_of_weight_0_is_the_base_run_to_the_bit(plain, tiny_model_folder, tmp_path):
    off = losses(
        tiny_model_folder, tmp_path, "off", 8, 1, *"--unlearn.unlearn_method GAO --unlearn.GAO.rho 0".split()
    )
    drop = lambda records: [{k: v for k, v in r.items() if k != "tokens_per_second"} for r in records]
    assert drop(off) == drop(plain)


@pytest.mark.parametrize("scope", ["sample", "window"])
@pytest.mark.slow
def test_gao_is_the_same_however_a_step_is_split(scope, tiny_model_folder, tmp_path):
    words = ["--unlearn.unlearn_method", "SimNPO+FT+GAO", "--unlearn.GAO.scope", scope, *LAYERS["GAO"]]
    whole = losses(tiny_model_folder, tmp_path, "8x1", 8, 1, *words)
    same(losses(tiny_model_folder, tmp_path, "2x4", 2, 4, *words), whole, rel=1e-4)
    assert all(record["gao_density"] > record["gao_null"] > 0 and record["gao_norm"] > 0 for record in whole)


@pytest.mark.slow
def test_the_agreed_direction_joins_the_forget_side_before_combining(
    tiny_model_folder, tmp_path, monkeypatch
):
    from unlearnkit.unlearn.gradients.combiners import SAGO

    seen, combine = [], SAGO.combine
    monkeypatch.setattr(
        SAGO, "combine", lambda self, f, r, *rest: seen.append((f, r)) or combine(self, f, r, *rest)
    )
    run = lambda name, rho: in_process(
        tiny_model_folder,
        tmp_path,
        name,
        monkeypatch,
        unlearn__unlearn_method="GAO",
        unlearn__GAO__rho=rho,
        unlearn__combiner="sago",
        unlearn__forget_weight="0.5",
        unlearn__max_steps="1",
        dataset__paraphrases=LAYERS["GAO"][1],
    )
    record, _ = run("with", "2")[0], run("without", "0")
    (f, r), (bare, r_bare) = seen
    added = torch.sqrt(sum(((x - y) ** 2).sum() for x, y in zip(f, bare)))
    assert added.item() == pytest.approx(2 * record["gao_norm"] / 0.5, rel=1e-4)
    assert all(torch.equal(x, y) for x, y in zip(r, r_bare))
    assert record["along_retain"] >= 0


@pytest.mark.parametrize(
    "said",
    [
        {"unlearn__unlearn_method": "FT+GAO"},
        {"unlearn__unlearn_method": "GAO", "unlearn__forget_weight": "0"},
    ],
)
@pytest.mark.slow
def test_gao_alone_is_a_forget_side_for_combiners(said, tiny_model_folder, tmp_path, monkeypatch):
    record = in_process(
        tiny_model_folder,
        tmp_path,
        "run",
        monkeypatch,
        unlearn__combiner="sago",
        dataset__paraphrases=LAYERS["GAO"][1],
        **said,
    )[0]
    assert record["forget_norm"] == pytest.approx(0.5 * record["gao_norm"], rel=1e-4)
    assert record["retain_norm"] > 0
    assert "npo" not in record


def test_gao_verbatim_counts_prompts_and_padding(tiny_model_folder, tmp_path, monkeypatch):
    seen = []
    from unlearnkit.unlearn.objectives.gao import GAO

    extra_gradient = GAO.extra_gradient
    monkeypatch.setattr(
        GAO, "extra_gradient", lambda self, step: seen.append((self, step)) or extra_gradient(self, step)
    )
    record = in_process(
        tiny_model_folder,
        tmp_path,
        "run",
        monkeypatch,
        unlearn__unlearn_method="GAO",
        unlearn__published="gao_verbatim",
        unlearn__max_steps="1",
        dataset__batch_size="2",
        dataset__paraphrases=LAYERS["GAO"][1],
    )[0]
    gao, step = seen[0]
    part = step.batches[0]["paraphrases"]
    assert record["npo"] == pytest.approx(2 * torch.log(torch.tensor(2.0)).item(), rel=1e-4)
    assert (gao.K, gao.tau, gao.rho, gao.choice) == (6, 0.1, 0.5, "shortest")
    assert part["input_ids"].shape == (12, 512)
    assert (part["labels"] == part["input_ids"]).all()
    lengths = part["attention_mask"].sum(1)
    assert all(row[:n].all() and not row[n:].any() for row, n in zip(part["attention_mask"], lengths))
    assert lengths.max() < 64


def test_gao_trains_adapters_alone(tiny_model_folder, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    record = in_process(
        tiny_model_folder,
        tmp_path,
        "lora",
        monkeypatch,
        unlearn__unlearn_method="GAO",
        unlearn__use_lora="true",
        unlearn__lora__targets="q_proj",
        dataset__paraphrases=LAYERS["GAO"][1],
    )
    assert record[-1]["gao_norm"] > 0
    start, after = (
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (tiny_model_folder, tmp_path / "lora/checkpoints")
    )
    moved = {name for name in start if not torch.equal(start[name], after[name])}
    assert moved == {name for name in start if "q_proj" in name}


def test_a_side_without_a_gradient_counts_as_zero(tiny_model_folder, tmp_path):
    words = [
        *(
            "--unlearn.unlearn_method PDU --unlearn.PDU.dual 0 --unlearn.PDU.warmup_epochs 99 "
            "--unlearn.combiner pcgrad"
        ).split(),
    ]
    records = losses(tiny_model_folder, tmp_path, "pdu", 8, 1, *words)
    assert all(
        record["retain_norm"] == 0 and record["along_forget"] == pytest.approx(1.0) for record in records
    )


SPLIT = {
    "NPO+FT": [],
    "R2MU": ["--unlearn.unlearn_method", "R2MU", *LAYERS["R2MU"]],
    "NPO+FT-gru": ["--unlearn.combiner", "gru"],
    "GAO": ["--unlearn.unlearn_method", "GAO", *LAYERS["GAO"]],
}
"""Runs of two processes by DDP; tests/unlearn/test_engines.py has many more."""
SHARDED = {"fsdp2": [], "fsdp2-gru": ["--unlearn.combiner", "gru"]}
"""Runs of sharded weights; tests/unlearn/test_engines.py has many more."""
PUT_BACK = [*EVALUATED[:2], "--unlearn.stop", "kl=1e-9", *MEASURED[2:]]
"""Every process measures the weights that the first has kept."""
RAGGED = ["--dataset.forget_ratio", "20", "--unlearn.num_epochs", "4"]
"""More than an epoch of 20 rows, whose last step is short: no row may count twice."""


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory, tokenizer, small_world):
    """The folder of a model and of a run for each of SPLIT, made by two processes with half the batch."""

    def fill(root):
        save(random_llama(tokenizer), tokenizer, root / "model")
        places = {"R2MU": ["--dataset.cot_data_dir", small_world]}
        common = [*RAGGED, "--dataset.data_dir", small_world]
        runs = [
            words(root / "model", root, name, 4, 1, *common, *places.get(name, []), *more)
            for name, more in SPLIT.items()
        ]
        runs.append(words(root / "model", root, "measured", 4, 1, *common, *MEASURED))
        runs += [
            words(root / "model", root, name, batch, accumulate, *common)
            for name, (batch, accumulate) in ACCUMULATED.items()
        ]
        runs += [
            words(root / "model", root, name, 4, 1, *common, "--overall.engine", "fsdp2", *more)
            for name, more in SHARDED.items()
        ]
        runs.append(words(root / "model", root, "evaluated", 4, 1, *common, *EVALUATED))
        runs.append(words(root / "model", root, "put-back", 4, 1, *common, *PUT_BACK))
        run_in_two_processes(runs, root)

    return once(tmp_path_factory, "two-processes", fill)


@pytest.mark.parametrize("name", SPLIT)
def test_two_processes_take_the_same_steps(name, in_two_processes, tmp_path):
    whole = losses(in_two_processes / "model", tmp_path, "one", 8, 1, *RAGGED, *SPLIT[name])
    same(read_jsonl(in_two_processes / name / "log.jsonl"), whole)
    assert read_json(in_two_processes / name / "environment.json")["effective_batch_size"] == 8


@pytest.mark.parametrize("name", SHARDED)
def test_sharded_weights_take_the_same_steps(name, in_two_processes, tmp_path):
    whole = losses(in_two_processes / "model", tmp_path, "one", 8, 1, *RAGGED, *SHARDED[name])
    same(read_jsonl(in_two_processes / name / "log.jsonl"), whole)
    record = read_json(in_two_processes / name / "environment.json")["training"]
    plain = read_json(tmp_path / "one/environment.json")["training"]
    assert (record["engine"], plain["engine"]) == ("fsdp2", "ddp")
    assert record["weight_mb_per_process"] == pytest.approx(plain["weight_mb_per_process"] / 2, abs=0.001)


def test_two_processes_measure_the_same_figures(in_two_processes, small_world, tmp_path):
    common = [*RAGGED, "--dataset.data_dir", small_world]
    for batch, budget in (("all", "9999"), ("one", "1")):
        more = [*MEASURED, "--evaluate.score_tokens", budget]
        place = in_two_processes / "model", tmp_path / batch
        run_script("unlearn_model", *words(*place, "run", 4, 1, *common, *more))
    shared, *own = (
        read_json(folder / "metrics.json")
        for folder in (in_two_processes / "measured", tmp_path / "all/run", tmp_path / "one/run")
    )
    assert sum(value is not None for value in shared.values()) > 30
    for one in own:
        assert one == pytest.approx(shared, abs=1e-5)


def test_two_processes_measure_the_weights_that_were_put_back(in_two_processes, tmp_path):
    losses(in_two_processes / "model", tmp_path, "one", 8, 1, *RAGGED, *PUT_BACK)
    places = in_two_processes / "put-back", tmp_path / "one"
    ours, theirs = (read_json(place / "metrics.json") for place in places)
    assert ours == pytest.approx(theirs, abs=1e-5)
    stopped = [read_json(place / "environment.json")["training"]["stopped"] for place in places]
    assert [record["kept_step"] for record in stopped] == [0, 0]


@pytest.mark.parametrize("name", ACCUMULATED)
def test_two_processes_and_micro_batches_take_the_same_steps(name, in_two_processes, tmp_path):
    """With a short last window, on which processes and micro-batches do not divide."""
    whole = losses(in_two_processes / "model", tmp_path, "one", 8, 1, *RAGGED)
    same(read_jsonl(in_two_processes / name / "log.jsonl"), whole)
    batch, accumulate = ACCUMULATED[name]
    record = read_json(in_two_processes / name / "environment.json")["training"]
    assert (record["rows_per_step"], record["last_window_rows"]) == (8, 4)
    assert record["micro_steps_done"] == 2 * 20 // (2 * batch)
    assert (record["processes"], record["micro_steps_per_step"]) == (2, accumulate)
    weights = (
        load_file(root / "checkpoints/model.safetensors")
        for root in (in_two_processes / name, tmp_path / "one")
    )
    for ours, theirs in zip(*(kept.values() for kept in weights)):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_two_processes_evaluate_while_training_and_train_on_as_before(in_two_processes, tmp_path):
    plain, measured = in_two_processes / "NPO+FT", in_two_processes / "evaluated"
    weights = [load_file(root / "checkpoints/model.safetensors") for root in (plain, measured)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    losses(in_two_processes / "model", tmp_path, "one", 8, 1, *RAGGED, *EVALUATED)
    ours, theirs = (read_jsonl(root / "evaluations.jsonl") for root in (measured, tmp_path / "one"))
    assert [record["step"] for record in ours] == [0, 2, 4, 6]
    for mine, other in zip(ours, theirs):
        assert mine["metrics"] == pytest.approx(other["metrics"], rel=1e-4)
        assert mine["kl"] == pytest.approx(other["kl"], rel=1e-3, abs=1e-9)
    assert ours[0]["kl"] == 0
    assert ours[-1]["kl"] > 0
    assert read_json(measured / "best.json")["last"]["step"] == 6


def test_a_wrapper_of_radius_0_is_the_base_run_and_one_above_is_not(plain, tiny_model_folder, tmp_path):
    still = losses(
        tiny_model_folder, tmp_path, "still", 8, 1, *"--unlearn.flatness SAM --unlearn.flat.SAM.rho 0".split()
    )
    moved = losses(
        tiny_model_folder,
        tmp_path,
        "moved",
        8,
        1,
        *"--unlearn.unlearn_method NPO+FT+SAM --unlearn.flat.SAM.rho 0.05".split(),
    )
    drop = lambda records: [{k: v for k, v in r.items() if k != "tokens_per_second"} for r in records]
    assert drop(still) == drop(plain)
    assert moved[0]["npo"] == pytest.approx(plain[0]["npo"], rel=1e-6)
    assert moved[-1]["npo"] != pytest.approx(plain[-1]["npo"], rel=1e-4)


@pytest.mark.slow
def test_smoothing_does_not_depend_on_micro_batches(tiny_model_folder, tmp_path):
    words = [*"--unlearn.flatness RS --unlearn.flat.RS.rho 0.01".split()]
    whole = losses(tiny_model_folder, tmp_path, "8x1", 8, 1, *words)
    same(losses(tiny_model_folder, tmp_path, "2x4", 2, 4, *words), whole, rel=1e-4)


def test_the_same_seed_gives_the_same_run_and_another_does_not(tiny_model_folder, tmp_path):
    first = losses(tiny_model_folder, tmp_path, "a", 4, 1)
    config = tmp_path / "a" / "config.json"
    again = losses(tiny_model_folder, tmp_path, "b", 4, 1, "--config_file", config)
    assert [r["loss"] for r in first] == [r["loss"] for r in again]
    other = losses(tiny_model_folder, tmp_path, "other", 4, 1, "--overall.seed", "7")
    assert [r["loss"] for r in first] != [r["loss"] for r in other]


def test_a_loss_that_is_no_number_stops_with_step_terms_and_rows(tiny_model_folder, tiny_model, tmp_path):
    with torch.no_grad():
        tiny_model.model.norm.weight.fill_(float("inf"))
    tiny_model.save_pretrained(tiny_model_folder)
    run = run_script(
        "unlearn_model",
        "--overall.model_name",
        tiny_model_folder,
        "--logger.json.root",
        tmp_path,
        *"--logger.name nan --dataset.batch_size 2".split(),
        *COMMON,
        "--unlearn.unlearn_method",
        "GA+FT",
    )
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    for told in ("step 1: the loss is not a finite number", "ga = nan", "retain_nll = nan", "'p1"):
        assert told in run.stderr
    assert not (tmp_path / "nan/checkpoints/config.json").exists()
    assert not (tmp_path / "nan/metrics.json").exists()


def test_a_wrapper_compares_gradients_under_the_same_dropout(tokenizer, tmp_path, monkeypatch):
    folder = save(random_llama(tokenizer, attention_dropout=0.5), tokenizer, tmp_path / "dropping")
    seen, gradient = [], GP.gradient
    watch = lambda self, landscape: (
        seen.append((landscape.gradient(), landscape.gradient())) or gradient(self, landscape)
    )
    monkeypatch.setattr(GP, "gradient", watch)
    in_process(folder, tmp_path, "run", monkeypatch, unlearn__flatness="GP", dataset__batch_size="2")
    assert len(seen) == 2
    for once_more, again in seen:
        assert all(torch.equal(a, b) for a, b in zip(once_more, again))
    assert not all(torch.equal(a, b) for a, b in zip(seen[0][0], seen[1][0]))
