"""Evaluation while a model is trained: it disturbs nothing, stops by its rules and keeps the best step."""

import random

import numpy
import pytest
import torch
from conftest import FICTIONAL
from safetensors.torch import load_file
from scripts import Forked, kill_once, run_script
from tiny import random_llama, save

from unlearnkit.core.encoding import Encoded
from unlearnkit.core.files import UserError, read_json, read_jsonl
from unlearnkit.exec.config.reader import ConfigError, StrictConfig, resolve_settings
from unlearnkit.loggers.json_ import JsonLogger
from unlearnkit.model.run.best_choice import BestRule, first_half, utility
from unlearnkit.model.run.stopping import KlOptions, ReferenceKl, Snapshots, holdout_test
from unlearnkit.model.run.training_evaluation import TrainingEvaluation, undisturbed
from unlearnkit.model.run.training_metrics import check_rows, default_figure
from unlearnkit.model.settings.stop_rules import StopRule
from unlearnkit.unlearn.mask import Sidecar, write_mask

pytestmark = pytest.mark.usefixtures("in_small_world")

EVERY = ["--evaluate.every", "1 epoch"]
DROPOUT = 0.2


def words(model, root, name, *more) -> list:
    """12 forget rows, 8 a step: two steps an epoch, the last one short. A constant rate, so that a shorter
    run is the beginning of a longer one."""
    places = {"overall.model_name": model, "logger.json.root": root, "logger.name": name}
    places["overall.cache_dir"] = root / "cache"
    return [
        *(f"--{key}={value}" for key, value in places.items()),
        *(
            "--unlearn.unlearn_method NPO+FT --unlearn.lr 1e-3 --unlearn.scheduler constant"
            " --unlearn.num_epochs 3 --dataset.forget_ratio 12 --dataset.batch_size 8 --evaluate.before false"
            " --evaluate.metrics forget/prob --evaluate.rows 6 --overall.quiet true"
        ).split(),
        *more,
    ]


def run(model, root, name, *more):
    done = run_script("unlearn_model", *words(model, root, name, *more))
    assert done.returncode == 0, done.stderr
    return root / name


def interrupt(*_):
    raise KeyboardInterrupt


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def equal(one, other) -> bool:
    return all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    """With dropout: a random state that is not put back shows in the weights."""
    dropping = random_llama(tokenizer, attention_dropout=DROPOUT)
    return save(dropping, tokenizer, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def measured(model, tmp_path_factory, small_world):
    """The folder of a run that is measured at each epoch."""
    rules = ["--unlearn.stop", "kl=100", "--evaluate.best_floor", "0.01"]
    root = tmp_path_factory.mktemp("measured")
    return run(model, root, "run", *EVERY, *rules, "--dataset.data_dir", small_world)


VARIANTS = {
    "NPO+FT": [],
    "LoRA": ["--unlearn.use_lora", "true", "--unlearn.lora.dropout", "0.1"],
    "WA": "--unlearn.flatness WA --unlearn.flat.WA.start 2 --unlearn.flat.WA.every 1".split(),
    "GAO-pcgrad": (
        "--unlearn.unlearn_method GAO --unlearn.combiner pcgrad --unlearn.GAO.K 2 --dataset.paraphrases"
        " files/data/fictional/paraphrases.jsonl"
    ).split(),
    "bf16": ["--overall.precision", "bf16"],
    "SAM": ["--unlearn.flatness", "SAM"],
    "Sophia": ["--unlearn.optimizer", "Sophia"],
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in ("SAM", "Sophia", "bf16"))) for name in VARIANTS],
)
def test_the_weights_are_those_of_a_run_without_evaluation_to_the_bit(name, model, tmp_path):
    """Texts are generated too, which draws random numbers where they are sampled."""
    more = [*EVERY, "--evaluate.every_metrics", "auto,forget/rougeL", "--evaluate.max_new_tokens", "4"]
    more += ["--unlearn.stop", "kl=100"]
    plain = run(model, tmp_path, "plain", *VARIANTS[name])
    seen = run(model, tmp_path, "seen", *VARIANTS[name], *more, "--evaluate.temperature", "1")
    assert len(read_jsonl(seen / "evaluations.jsonl")) == 4
    assert equal(plain / "checkpoints", seen / "checkpoints")
    drop = lambda folder: [
        {key: value for key, value in record.items() if key != "tokens_per_second"}
        for record in read_jsonl(folder / "log.jsonl")
    ]
    assert drop(plain) == drop(seen)
    assert read_jsonl(seen / "evaluations.jsonl")[0]["kl"] == 0


def test_what_a_mask_freezes_is_frozen_under_evaluation_too(model, tiny_model, tmp_path):
    """Masked weights of a run with evaluation are those of a run without."""
    mask = tmp_path / "fictional_0.5.pt"
    found = {name: torch.rand(p.shape) < 0.5 for name, p in tiny_model.named_parameters()}
    write_mask(mask, found, Sidecar("random", 0.5, "global", None, 0, 0, 0, "", "", "frozen"))
    plain, seen = (
        run(model, tmp_path, name, "--unlearn.mask_path", mask, *more)
        for name, more in (("plain", []), ("seen", [*EVERY, "--unlearn.stop", "kl=100"]))
    )
    assert equal(plain / "checkpoints", seen / "checkpoints")
    before, after = weights(model), weights(seen / "checkpoints")
    assert all(torch.equal(before[name][~kept], after[name][~kept]) for name, kept in found.items())


def test_modes_flags_and_random_states_are_put_back(tiny_model):
    tiny_model.train()
    tiny_model.model.layers[0].eval()
    tiny_model.lm_head.requires_grad_(False)
    draws = lambda: (random.random(), numpy.random.rand(), torch.rand(1).item())
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    expected = draws()
    random.setstate(states[0]), numpy.random.set_state(states[1]), torch.set_rng_state(states[2])
    with undisturbed(tiny_model):
        tiny_model.eval().requires_grad_(True)
        draws()
    assert draws() == expected
    assert tiny_model.training and tiny_model.model.layers[1].training
    assert not tiny_model.model.layers[0].training
    assert not tiny_model.lm_head.weight.requires_grad and tiny_model.model.norm.weight.requires_grad


def test_the_history_has_every_evaluation_and_the_environment_the_steps(measured):
    history = read_jsonl(measured / "evaluations.jsonl")
    assert [(record["step"], record["epoch"]) for record in history] == [(0, 0), (2, 1), (4, 2), (6, 3)]
    for record in history:
        assert 0 < record["metrics"]["forget/prob"] < 1
        assert record["best"]["chosen_on"] != record["best"]["reported_on"]
        assert record["utility"] > 0
    training = read_json(measured / "environment.json")["training"]
    assert (training["epochs_configured"], training["epochs_done"], training["evaluations"]) == (3, 3, 4)
    assert (training["optimizer_steps_done"], training["micro_steps_done"]) == (6, 6)
    assert (training["rows_per_step"], training["last_window_rows"]) == (8, 4)
    assert training["stopped"] is None
    assert not (measured / "checkpoints/evaluated").exists()


def test_a_saved_model_remembers_nothing_of_how_it_was_measured_while_training(measured):
    """Otherwise evaluate_model.py on it would be refused: it takes no steps."""
    stored = read_json(measured / "checkpoints/unlearning.json")["evaluate"]
    assert "metrics" in stored
    assert not {"every", "every_metrics", "best", "best_floor"} & stored.keys()


def test_the_kl_is_exactly_0_before_the_first_step(measured):
    kl = [record["kl"] for record in read_jsonl(measured / "evaluations.jsonl")]
    assert kl[0] == 0
    assert 0 < kl[1] < kl[2] < kl[3]


def test_the_last_evaluation_is_that_of_the_final_model(measured):
    last = read_jsonl(measured / "evaluations.jsonl")[-1]["metrics"]["forget/prob"]
    assert last == pytest.approx(read_json(measured / "metrics.json")["forget/prob"], rel=1e-6)


def test_the_averaged_weights_are_what_is_measured(model, tmp_path):
    folder = run(model, tmp_path, "run", *VARIANTS["WA"], *EVERY)
    last = read_jsonl(folder / "evaluations.jsonl")[-1]["metrics"]["forget/prob"]
    assert last == pytest.approx(read_json(folder / "metrics.json")["forget/prob"], rel=1e-6)


@pytest.mark.parametrize("name", ["NPO+FT", "LoRA"])
@pytest.mark.slow
def test_a_budget_on_the_kl_puts_the_model_back_to_the_last_step_within_it(name, measured, model, tmp_path):
    more = [*VARIANTS[name], *EVERY]
    if name == "LoRA":
        more += ["--unlearn.lr", "1e-2"]
    free = run(model, tmp_path, "free", *more, "--unlearn.stop", "kl=100")
    kl = [record["kl"] for record in read_jsonl(free / "evaluations.jsonl")]
    budget = f"kl={(kl[1] + kl[2]) / 2}"
    folder = run(model, tmp_path, "run", *more, "--unlearn.stop", budget, "--evaluate.best", "none")
    stopped = read_json(folder / "environment.json")["training"]["stopped"]
    assert (stopped["step"], stopped["kept_step"]) == (4, 2)
    assert "KL to the initial model" in stopped["reason"]
    assert len(read_jsonl(folder / "log.jsonl")) == 4
    assert not (folder / "best.json").exists()
    short = run(model, tmp_path, "short", *VARIANTS[name], *more, "--unlearn.max_steps", "2")
    assert equal(folder / "checkpoints", short / "checkpoints")


def test_the_kl_is_that_of_the_formula(tiny_model, tokenizer):
    rows = [Encoded(str(n), [5, 6, 7, 8 + n][: 3 + n % 2], 2, 0) for n in range(4)]
    kl = ReferenceKl(tiny_model, rows, KlOptions(0, 64, 10**9))
    assert (kl.of(tiny_model), kl.rows, kl.tokens) == (0, 4, 6)
    other = random_llama(tokenizer)
    with torch.no_grad():
        other.lm_head.weight.mul_(1.5)
    terms = []
    for row in rows:
        logits = [model(torch.tensor([row.input_ids])).logits[0].double() for model in (tiny_model, other)]
        p, q = (scores.log_softmax(-1) for scores in logits)
        for place in range(row.prompt_length - 1, len(row.input_ids) - 1):
            terms.append((p[place].exp() * (p[place] - q[place])).sum().item())
    assert kl.of(other) == pytest.approx(sum(terms) / 6, rel=1e-3)


def test_the_kl_takes_as_many_rows_as_their_logits_fit(tiny_model, caplog):
    rows = [Encoded(str(n), [5, 6, 7], 2, 0) for n in range(10)]
    vocabulary = tiny_model.config.vocab_size
    assert ReferenceKl(tiny_model, rows, KlOptions(0, 64, 3 * 4 * vocabulary)).rows == 3
    assert "3 of 10 rows" in caplog.text
    assert ReferenceKl(tiny_model, rows, KlOptions(0, 64, 0)).rows == 1


def test_a_run_stops_when_forget_rows_look_like_holdout_rows(tmp_path):
    more = "--unlearn.unlearn_method GA --unlearn.lr 1e-3 --unlearn.num_epochs 30 --evaluate.rows 40".split()
    rule = ["--unlearn.stop", "holdout=0.01", "--evaluate.every", "1 step", "--evaluate.best", "none"]
    folder = run(FICTIONAL / "target", tmp_path, "run", *more, *rule)
    history = read_jsonl(folder / "evaluations.jsonl")
    assert all(record["holdout"]["p"] <= 0.01 for record in history[:-1])
    assert all(
        record["holdout"]["forget_median"] < record["holdout"]["holdout_median"] for record in history[:-1]
    )
    stopped = read_json(folder / "environment.json")["training"]["stopped"]
    assert stopped["step"] == stopped["kept_step"] == history[-1]["step"] < 60
    assert "holdout rows" in stopped["reason"]


def test_forget_rows_that_the_model_does_not_know_are_refused_before_the_first_step(model, tmp_path):
    done = run_script(
        "unlearn_model", *words(model, tmp_path, "run", *EVERY, "--unlearn.stop", "holdout=0.05")
    )
    assert done.returncode == 1
    assert "to the initial model the forget rows already look like the holdout rows" in done.stderr


def test_the_holdout_test_is_that_of_scipy():
    from scipy.stats import ks_2samp

    forget, holdout = [0.1, 0.4, 0.2], [0.3, 1.0, 2.0, 0.5]
    samples = {
        "forget": [{"id": "a", "mia_loss": value} for value in [*forget, None]],
        "holdout": [{"id": "a", "mia_loss": value} for value in holdout],
    }
    assert holdout_test(samples) == {
        "p": pytest.approx(ks_2samp(forget, holdout).pvalue),
        "forget_median": 0.2,
        "holdout_median": 0.75,
    }
    assert holdout_test({"forget": samples["forget"]})["p"] is None


def test_losses_that_are_not_finite_end_the_training_with_the_reason():
    reason = TrainingEvaluation._holdout_reason
    rule, nothing = StopRule("holdout", 0.05), dict.fromkeys(("p", "forget_median", "holdout_median"))
    with pytest.raises(UserError, match="finite loss"):
        reason(nothing, rule, 0)
    assert "finite loss" in reason(nothing, rule, 2)
    assert "passed" in reason({"p": 0.01, "forget_median": 3.0, "holdout_median": 2.0}, rule, 2)
    assert reason({"p": 0.01, "forget_median": 1.0, "holdout_median": 2.0}, rule, 2) == ""


def record(step: int, forgetting: float | None, utility: float | None) -> dict:
    half = {"forgetting": forgetting, "utility": utility}
    return {"step": step, "epoch": step / 2, "best": {"chosen_on": half, "reported_on": half}}


RULE = BestRule("forget/extraction_strength", 0.9)


@pytest.mark.parametrize(
    "steps, best",
    [
        ([(2, 0.5, 0.95), (4, 0.2, 0.92), (6, 0.1, 0.89)], 4),
        ([(2, 0.2, 0.95), (4, 0.2, 0.96)], 4),
        ([(2, 0.2, 0.95), (4, 0.2, 0.95)], 2),
        ([(2, None, 0.95), (4, 0.3, 0.95)], 4),
        ([(2, 0.2, None), (4, 0.3, 0.9)], 4),
        ([(2, 0.2, 0.5)], None),
    ],
)
def test_the_best_step_forgets_most_above_the_floor(steps, best):
    """Among equals the more useful, then the earlier one; never the initial model."""
    records = [record(0, 0.0, 1.0), *(record(*step) for step in steps)]
    found, reason = RULE.choose(records)
    assert (found["step"] if found else None) == best
    assert bool(reason) == (best is None)
    assert RULE.report(records, steps[-1][0])["last"]["step"] == steps[-1][0]


def test_a_figure_that_goes_up_is_best_at_its_highest():
    records = [record(0, 0.0, 1.0), record(2, 1e-9, 1.0), record(4, 1e-3, 1.0)]
    assert BestRule("forget_quality", 0.9).choose(records)[0]["step"] == 4


def test_without_a_utility_of_the_initial_model_there_is_no_best():
    for nothing in (None, 0.0):
        found, reason = RULE.choose([record(0, 0.1, nothing), record(2, 0.0, 1.0)])
        assert found is None
        assert "no floor" in reason


def test_a_figure_without_a_value_chooses_nothing():
    assert RULE.choose([record(0, 1.0, 1.0), record(2, None, 1.0)]) == (
        None,
        "forget/extraction_strength has no value at any evaluated step",
    )


def test_where_no_later_step_may_be_kept_there_is_no_best():
    assert RULE.choose([record(0, 1.0, 1.0)]) == (
        None,
        "no evaluated step after the initial model is within the rules of unlearn.stop",
    )


def test_a_figure_is_read_from_its_own_column():
    """The column of sampling/rougeL has another name than the figure."""
    rows = [{"id": str(n), "sampled_rougeL": 0.25, "rougeL": 1.0, "prob": 0.5} for n in range(4)]
    found = BestRule("sampling/rougeL", 0.9).figures({"forget": rows, "retain": rows})
    assert [half["forgetting"] for half in found.values()] == [0.25, 0.25]


def test_halves_are_disjoint_of_equal_size_and_the_same_in_every_run():
    ids = [f"row-{n}" for n in range(11)]
    half = first_half(ids, 0)
    assert len(half) == 6
    assert half == first_half(reversed(ids), 0) != first_half(ids, 1)


def test_figures_of_both_halves_are_means_over_their_rows():
    rows = [{"id": str(n), "extraction_strength": n / 10, "prob": n / 20} for n in range(10)]
    figures = RULE.figures({"forget": rows, "retain": rows})
    for name, half in figures.items():
        chosen = [
            n for n in range(10) if (str(n) in first_half(map(str, range(10)), 0)) == (name == "chosen_on")
        ]
        assert half["forgetting"] == pytest.approx(sum(chosen) / 50)
        assert half["utility"] == pytest.approx(sum(chosen) / 100)


def test_forget_quality_of_a_half_compares_the_same_rows_with_the_retain_model():
    from scipy.stats import ks_2samp

    ratios = {str(n): n / 3 for n in range(10)}
    retain = {str(n): {"log_truth_ratio": (7 * n % 10) / 5} for n in range(10)}
    rule = BestRule("forget_quality", 0.9, 3, {"forget": retain})
    rows = [{"id": identity, "log_truth_ratio": value} for identity, value in ratios.items()]
    half = first_half(ratios, 3)
    expected = ks_2samp(
        *([table(i) for i in half] for table in (ratios.get, lambda i: retain[i]["log_truth_ratio"]))
    )
    assert rule.figures({"forget": rows})["chosen_on"]["forgetting"] == pytest.approx(expected.pvalue)


def test_utility_is_the_harmonic_mean_of_the_sets_that_there_are():
    assert utility({"retain": [{"prob": 0.5}], "world": [{"prob": 1.0}, {"prob": None}]}) == pytest.approx(
        2 / 3
    )
    assert utility({"forget": [{"prob": 0.5}]}) is None
    assert utility({"retain": [{"prob": 0.0}], "world": [{"prob": 1.0}]}) == 0


@pytest.mark.parametrize("name", ["NPO+FT", "LoRA"])
def test_the_best_model_is_the_one_of_its_step(name, model, tmp_path):
    """A forget objective of hardly any weight: the retain rows make the forget rows likelier with every step,
    so the first evaluated step forgets most."""
    more = [*VARIANTS[name], "--unlearn.forget_weight", "0.001"]
    rules = ["--evaluate.best", "forget/mia_loss", "--evaluate.best_floor", "0.01"]
    folder = run(model, tmp_path, "run", *more, *EVERY, *rules)
    best = read_json(folder / "best.json")
    losses = [entry["best"]["chosen_on"]["forgetting"] for entry in read_jsonl(folder / "evaluations.jsonl")]
    assert (best["best"]["step"], best["last"]["step"]) == (2, 6)
    assert best["best"]["chosen_on"]["forgetting"] == losses[1] == max(losses[1:])
    short = run(model, tmp_path, "short", *more, "--unlearn.max_steps", "2")
    assert equal(folder / "checkpoints/best", short / "checkpoints")
    assert not equal(folder / "checkpoints/best", folder / "checkpoints")
    kept = run(model, tmp_path, "kept", *more, *EVERY, *rules, "--evaluate.keep", "best")
    assert equal(kept / "checkpoints", short / "checkpoints")
    assert not (kept / "checkpoints/best").exists()
    assert read_json(kept / "metrics.json") == read_json(short / "metrics.json")
    assert read_json(kept / "environment.json")["training"]["kept_step"] == 2


def test_no_best_is_kept_where_no_step_meets_the_floor(model, tmp_path):
    arguments = words(model, tmp_path, "run", *EVERY, "--evaluate.best_floor", "1000")
    arguments[arguments.index("--overall.quiet") + 1] = "false"
    done = run_script("unlearn_model", *arguments)
    assert done.returncode == 0, done.stderr
    best = read_json(tmp_path / "run/best.json")
    assert best["best"] is None
    assert "no evaluated step" in best["reason"]
    assert not (tmp_path / "run/checkpoints/best").exists()
    screen = " ".join(done.stdout.split())
    assert "none (no evaluated step has a utility of 1000 of the initial model's)" in screen
    assert (
        "training: 3 of 3 epochs, 6 of 6 optimizer steps of 8 rows (6 micro-steps per process; the last"
        in screen
    )


def test_a_killed_run_goes_on_with_its_history(model, tmp_path):
    rules = ["--unlearn.stop", "kl=100", "--unlearn.save_steps", "3", "--evaluate.every", "2 steps"]
    rules += ["--evaluate.best_floor", "0.01", "--unlearn.num_epochs", "6"]
    whole = run(model, tmp_path, "whole", *rules)
    arguments, folder = words(model, tmp_path, "killed", *rules), tmp_path / "killed"
    kill_once(
        lambda: any(folder.glob("checkpoints/step-*/complete")),
        Forked("unlearn_model", *arguments, log=folder),
    )
    done = run_script("unlearn_model", *arguments, "--unlearn.resume_path", "auto")
    assert done.returncode == 0, done.stderr
    ours, theirs = (read_jsonl(place / "evaluations.jsonl") for place in (folder, whole))
    drop = lambda records: [{k: v for k, v in entry.items() if k != "seconds"} for entry in records]
    assert drop(ours) == drop(theirs)
    assert [entry["step"] for entry in ours] == list(range(0, 13, 2))
    assert read_json(folder / "best.json") == read_json(whole / "best.json")
    assert equal(folder / "checkpoints", whole / "checkpoints")
    assert (folder / "checkpoints/best").exists() == (whole / "checkpoints/best").exists()


@pytest.mark.parametrize("lost", ["evaluations.jsonl", "checkpoints/evaluated/step-6.pt"])
def test_a_run_that_lost_what_it_decides_by_is_not_resumed(lost, model, tmp_path, monkeypatch):
    rules = [*EVERY, "--unlearn.stop", "kl=100", "--unlearn.save_steps", "6", "--evaluate.best", "none"]
    with monkeypatch.context() as patch:
        patch.setattr(JsonLogger, "evaluation", interrupt)
        assert run_script("unlearn_model", *words(model, tmp_path, "run", *rules)).returncode == 130
    (tmp_path / "run" / lost).unlink()
    arguments = words(model, tmp_path, "run", *rules, "--unlearn.resume_path", "auto")
    done = run_script("unlearn_model", *arguments)
    assert done.returncode == 1
    assert f"{lost.split('/')[-1]} of the interrupted run is not there" in done.stderr


def test_a_stopped_run_that_dies_while_measuring_does_not_train_on(model, tmp_path, monkeypatch):
    rules = [*EVERY, "--unlearn.stop", "kl=1e-9", "--unlearn.save_steps", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(JsonLogger, "evaluation", interrupt)
        assert run_script("unlearn_model", *words(model, tmp_path, "run", *rules)).returncode == 130
    arguments = words(
        model, tmp_path, "run", *rules, "--unlearn.resume_path", "auto", "--overall.quiet", "false"
    )
    done, folder = run_script("unlearn_model", *arguments), tmp_path / "run"
    assert done.returncode == 0, done.stderr
    assert "the model is the initial one" in " ".join(done.stdout.split())
    assert [entry["step"] for entry in read_jsonl(folder / "log.jsonl")] == [1, 2]
    stopped = read_json(folder / "environment.json")["training"]["stopped"]
    assert (stopped["step"], stopped["kept_step"]) == (2, 0)
    assert read_json(folder / "environment.json")["training"]["optimizer_steps_done"] == 2
    assert equal(folder / "checkpoints", model)


def test_snapshots_that_a_step_checkpoint_needs_are_kept_until_the_next(tmp_path):
    snapshots = Snapshots(tmp_path / "evaluated")
    snapshots.begin(-1)
    steps = lambda: sorted(int(path.stem[5:]) for path in snapshots.folder.glob("step-*.pt"))
    for step in (2, 4):
        snapshots.save(step, {"w": torch.tensor([float(step)])})
    snapshots.pin({4})
    assert steps() == [4]
    snapshots.save(6, {"w": torch.tensor([6.0])})
    snapshots.keep({6})
    assert steps() == [4, 6]
    resumed = Snapshots(snapshots.folder)
    resumed.begin(5)
    assert steps() == [4]
    assert torch.equal(resumed.load(4)["w"], torch.tensor([4.0]))


def test_a_run_without_folder_stops_by_its_rules_too(model, tmp_path):
    done = run_script(
        "unlearn_model",
        *words(model, tmp_path, "run", *EVERY, "--unlearn.stop", "kl=1e-9", "--overall.logger", "none"),
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists()


WRONG = {
    "evaluate.every: expected": {"evaluate.every": "5"},
    "evaluate.every: origin takes no training steps": {
        "evaluate.every": "1 epoch",
        "unlearn.unlearn_method": "origin",
    },
    "evaluate.every: TV takes no training steps": {
        "evaluate.every": "1 epoch",
        "unlearn.unlearn_method": "TV",
    },
    "evaluate.every_metrics: unknown metric or family 'forget/porb'": {
        "evaluate.every": "1 epoch",
        "evaluate.every_metrics": "forget/porb",
    },
    "evaluate.every_metrics: reasoning": {"evaluate.every": "1 epoch", "evaluate.every_metrics": "reasoning"},
    "evaluate.best: expected auto, none": {"evaluate.every": "1 epoch", "evaluate.best": "retain/prob"},
    "evaluate.keep best: evaluate.best none": {
        "evaluate.every": "1 epoch",
        "evaluate.best": "none",
        "evaluate.keep": "best",
    },
    "evaluate.best: expected auto": {"evaluate.every": "1 epoch", "evaluate.best": "forget_quality_ks"},
    "evaluate.best sampling/rougeL is of sampled answers: set evaluate.samples": {
        "evaluate.every": "1 epoch",
        "evaluate.best": "sampling/rougeL",
    },
    "evaluate.best forget_quality needs a retain model": {
        "evaluate.every": "1 epoch",
        "evaluate.best": "forget_quality",
    },
    "evaluate.best forget/prob: FT forgets nothing": {
        "evaluate.every": "1 epoch",
        "evaluate.best": "forget/prob",
        "unlearn.unlearn_method": "FT",
    },
    "unlearn.stop is looked at when the model is measured: set evaluate.every": {"unlearn.stop": "kl=0.01"},
    "unlearn.stop: expected": {"evaluate.every": "1 epoch", "unlearn.stop": "kl 0.01"},
    "unlearn.stop: the rule kl is given 2 times": {"evaluate.every": "1 epoch", "unlearn.stop": "kl=1,kl=2"},
    "unlearn.stop: origin takes no training steps": {
        "unlearn.stop": "kl=1",
        "unlearn.unlearn_method": "origin",
    },
    "unlearn.stop holdout=0.05: FT forgets nothing": {
        "evaluate.every": "1 epoch",
        "unlearn.stop": "holdout=0.05",
        "unlearn.unlearn_method": "FT",
    },
    "unlearn.stop kl=1: overall.random_init": {
        "evaluate.every": "1 epoch",
        "unlearn.stop": "kl=1",
        "overall.random_init": "true",
        "unlearn.unlearn_method": "FT",
    },
}


def settings(**flags):
    return resolve_settings(StrictConfig(), [], {"unlearn.unlearn_method": "NPO+FT"} | flags, {})


@pytest.mark.parametrize("told", WRONG)
def test_what_cannot_work_is_refused_in_one_line(told):
    with pytest.raises(ConfigError) as error:
        settings(**WRONG[told])
    lines = str(error.value).splitlines()
    assert len(lines) == 1
    assert lines[0].strip().startswith(told)


ANSWERED = [{"id": str(n), "question": "Who?", "answer": "Orlo."} for n in range(4)]


@pytest.mark.parametrize(
    "flags, rows, told",
    [
        ({"unlearn.stop": "holdout=0.05"}, {"forget": ANSWERED, "retain": ANSWERED}, "no holdout rows"),
        ({"unlearn.stop": "kl=0.01", "evaluate.best": "none"}, {"forget": ANSWERED}, "no retain rows"),
        ({}, {"forget": [{"id": "a", "prompt": "x", "gt": "y"}], "retain": ANSWERED}, "have no 'answer'"),
        ({}, {"forget": ANSWERED[:1], "retain": ANSWERED}, "no two halves"),
        ({}, {"forget": ANSWERED}, "no utility to keep"),
    ],
)
def test_rows_that_lack_what_a_rule_reads_are_refused(flags, rows, told):
    with pytest.raises(UserError, match=told):
        check_rows(settings(**{"evaluate.every": "1 epoch"} | flags), rows, {})


def test_documents_are_measured_for_the_kl_in_training_rows():
    rows = {"forget": ANSWERED, "retain": [{"id": "a", "prompt": "x", "gt": "y"}]}
    chosen = settings(**{"evaluate.every": "1 epoch", "unlearn.stop": "kl=0.01", "evaluate.best": "none"})
    check_rows(chosen, rows, {"retain": [Encoded("a", [1, 2], 0, 0)]})


def test_forget_quality_gives_way_where_rows_have_no_wrong_answers():
    chosen = settings(
        **{"evaluate.every": "1 epoch", "evaluate.retain_results": str(FICTIONAL / "retain/results")}
    )
    assert default_figure(chosen, {"forget": ANSWERED}).evaluate.best == "forget/extraction_strength"
    whole = [row | {"paraphrased_answer": "x", "perturbed_answer": ["y"]} for row in ANSWERED]
    assert default_figure(chosen, {"forget": whole}) is chosen
