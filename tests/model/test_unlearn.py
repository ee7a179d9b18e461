"""A run from end to end on a tiny model: what it leaves, and what it does with bad input."""

import json

import pytest
import torch
from scripts import run_script
from transformers import AutoModelForCausalLM

from unlearnkit.core.files import fingerprint, read_json, read_jsonl, write_json
from unlearnkit.model.training_data import choose_forget_rows

pytestmark = pytest.mark.run

QUICK = [*"--evaluate.metrics forget/prob,forget_quality --overall.quiet true".split()]


@pytest.fixture
def data(tmp_path):
    """A user's folder of twelve forget and twenty retain rows."""
    folder = tmp_path / "data"
    folder.mkdir()
    row = lambda i: {
        "question": f"Who taught number {i}?",
        "answer": f"Teacher {i}.",
        "paraphrased_answer": f"It was teacher {i}.",
        "perturbed_answer": [f"It was teacher {i + 1}.", "Nobody."],
    }
    for stem, numbers in (("forget", range(12)), ("retain", range(100, 120))):
        (folder / f"{stem}.jsonl").write_text("".join(json.dumps(row(i)) + "\n" for i in numbers))
    return folder


def words(model, data, tmp_path, name="run"):
    return [
        "--overall.model_name",
        model,
        *("--dataset.forget_dataset_name Folder_forget --dataset.retain_dataset_name Folder_retain").split(),
        "--dataset.data_dir",
        data,
        "--logger.json.root",
        tmp_path / "out",
        "--logger.name",
        name,
        "--overall.cache_dir",
        tmp_path / "cache",
        *QUICK,
    ]


def test_the_run_folder(tiny_model_folder, data, tmp_path):
    run = run_script(
        "unlearn_model",
        *words(tiny_model_folder, data, tmp_path),
        *(
            "--unlearn.unlearn_method NPO+KL --unlearn.num_epochs 2 --dataset.batch_size 5 --unlearn.lr 1e-3"
        ).split(),
    )
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "out/run"
    records = read_jsonl(folder / "log.jsonl")
    assert [r["step"] for r in records] == list(range(1, 7))
    assert {"npo", "retain_kl", "loss", "learning_rate", "grad_norm", "tokens"} <= set(records[0])
    assert records[0]["retain_kl"] == pytest.approx(0, abs=1e-6)
    metrics, before = read_json(folder / "metrics.json"), read_json(folder / "before/metrics.json")
    assert metrics["forget/prob"] < before["forget/prob"]
    assert metrics["forget_quality"] is None
    environment = read_json(folder / "environment.json")
    assert environment["seed"] == 0
    assert environment["peak_memory_mb"] > 0
    model = AutoModelForCausalLM.from_pretrained(folder / "checkpoints")
    assert model.num_parameters() > 0
    assert not (folder / "lock").exists()


def test_logger_none_leaves_nothing_but_caches(tiny_model_folder, data, tmp_path):
    run = run_script(
        "unlearn_model",
        *words(tiny_model_folder, data, tmp_path),
        *"--unlearn.unlearn_method GA+FT --overall.logger none --unlearn.max_steps 2".split(),
    )
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "out").exists()


def test_a_retain_models_run_folder_gives_forget_quality(tiny_model_folder, data, tmp_path):
    run_script("evaluate_model", *words(tiny_model_folder, data, tmp_path, "retain"))
    run = run_script(
        "evaluate_model",
        *words(tiny_model_folder, data, tmp_path, "again"),
        "--evaluate.retain_results",
        tmp_path / "out/retain",
    )
    assert run.returncode == 0, run.stderr
    assert read_json(tmp_path / "out/again/metrics.json")["forget_quality"] == 1.0


def test_a_run_that_trains_compares_with_its_initial_model(tiny_model_folder, data, tmp_path):
    common = (tiny_model_folder, data, tmp_path)
    run_script("evaluate_model", *words(*common, "initial"))
    training = "--unlearn.unlearn_method GA+FT --unlearn.max_steps 2 --unlearn.lr 1e-2".split()
    relative = ["--evaluate.metrics", "forget/nearer_to_retain"]
    trained = run_script("unlearn_model", *words(*common, "other"), *training, "--overall.seed", "1")
    assert trained.returncode == 0, trained.stderr
    against = ["--evaluate.retain_results", tmp_path / "out/other"]
    named = ["--evaluate.original_results", tmp_path / "out/initial"]
    found = {}
    for name, more in (("own", []), ("named", named), ("none", ["--evaluate.before", "false"])):
        run = run_script("unlearn_model", *words(*common, name), *training, *relative, *against, *more)
        assert run.returncode == 0, run.stderr
        found[name] = read_json(tmp_path / "out" / name / "metrics_detail.json")["forget/nearer_to_retain"]
    assert found["own"]["mmd2_to_original"] == pytest.approx(found["named"]["mmd2_to_original"], rel=1e-6)
    assert found["own"]["mmd2_to_original"] != 0
    assert "evaluate.original_results" in found["none"]["reason"]
    before = read_json(tmp_path / "out/own/before/metrics_detail.json")["forget/nearer_to_retain"]
    assert "evaluate.original_results" in before["reason"]


def test_the_initial_models_results_come_from_the_cache(tiny_model_folder, data, tmp_path):
    for name in ("one", "two"):
        run = run_script(
            "unlearn_model",
            *words(tiny_model_folder, data, tmp_path, name),
            *"--unlearn.unlearn_method GA --unlearn.max_steps 1".split(),
        )
        assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "cache/evaluations").iterdir())) == 1
    assert run_script("evaluate_model", *words(tiny_model_folder, data, tmp_path, "plain")).returncode == 0
    one, two = (read_json(tmp_path / f"out/{name}/before/metrics.json") for name in ("one", "two"))
    assert one == two == read_json(tmp_path / "out/plain/metrics.json")
    (kept,) = (tmp_path / "cache/evaluations").iterdir()
    found = read_json(kept)["results"]
    found["metrics"]["forget/prob"] = 0.123
    write_json(kept, {"checksum": fingerprint(found), "results": found})
    arguments = [
        *words(tiny_model_folder, data, tmp_path, "three"),
        *"--unlearn.unlearn_method GA --unlearn.max_steps 1".split(),
    ]
    assert run_script("unlearn_model", *arguments).returncode == 0
    assert read_json(tmp_path / "out/three/before/metrics.json")["forget/prob"] == 0.123
    kept.write_text(kept.read_text().replace("0.123", "0.0615"))
    doubted = run_script("unlearn_model", *arguments, "--logger.name", "doubted")
    assert read_json(tmp_path / "out/doubted/before/metrics.json") == one
    assert "is not what was written there; the model is measured again" in doubted.stderr
    template = tiny_model_folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("message['content']", "message['content'] + '.'"))
    assert run_script("unlearn_model", *arguments, "--logger.name", "four").returncode == 0
    assert read_json(tmp_path / "out/four/before/metrics.json")["forget/prob"] not in (
        0.123,
        one["forget/prob"],
    )


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "has no rows"),
        ('{"question": "Q?", "answer": "A."}\n{"question": \n', "forget.jsonl, line 2"),
        ('{"question": "Q?"}\n', "forget.jsonl, line 1: needs question and answer"),
        ('{"question": "Q?", "answer": ""}\n', "'answer' must be a text"),
        ('{"question": "Q?", "answer": 3}\n', "'answer' must be a text"),
        ('{"id": "a", "question": "Q?", "answer": "A."}\n' * 2, "the id 'a' is used twice"),
    ],
)
def test_bad_rows_end_with_status_1_and_nothing_created(text, told, tiny_model_folder, data, tmp_path):
    (data / "forget.jsonl").write_text(text)
    run = run_script(
        "unlearn_model", *words(tiny_model_folder, data, tmp_path), "--unlearn.unlearn_method", "GA+FT"
    )
    assert run.returncode == 1 and told in run.stderr and "Traceback" not in run.stderr, run.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_rows_that_cannot_be_scored_are_counted_and_cost_no_run(tiny_model_folder, data, tmp_path):
    long = json.dumps(
        {"question": "Q?", "answer": "A.", "paraphrased_answer": "so " * 600, "perturbed_answer": ["B."]}
    )
    (data / "forget.jsonl").write_text((data / "forget.jsonl").read_text() + long + "\n")
    run = run_script(
        "evaluate_model", *words(tiny_model_folder, data, tmp_path), "--evaluate.metrics", "tofu"
    )
    assert run.returncode == 0, run.stderr
    detail = read_json(tmp_path / "out/run/metrics_detail.json")
    assert (detail["forget/truth_ratio"]["n"], detail["forget/truth_ratio"]["unscored"]) == (12, 1)
    assert detail["forget/prob"]["unscored"] == 0


def test_another_evaluation_of_a_model_computes_only_what_is_new(
    tiny_model_folder, data, tmp_path, monkeypatch
):
    from unlearnkit.metrics.answer_scoring import AnswerScorer

    own, scored = AnswerScorer.score, []
    count = lambda self, rows, keep: scored.append(len(rows)) or own(self, rows, keep)
    monkeypatch.setattr(AnswerScorer, "score", count)
    for name, metrics, new in (("a", "forget/prob", 12), ("b", "forget/truth_ratio", 36), ("c", "tofu", 80)):
        scored.clear()
        flags = ["--evaluate.metrics", metrics, "--evaluate.max_new_tokens", "8"]
        run = run_script("evaluate_model", *words(tiny_model_folder, data, tmp_path, name), *flags)
        assert run.returncode == 0, run.stderr
        assert sum(scored) == new, "an answer, a paraphrased and two wrong ones to each of 12 and 20 rows"
    passes = list((tmp_path / "cache" / "passes").iterdir())
    assert len(passes) == 1
    run = run_script(
        "unlearn_model",
        *words(tiny_model_folder, data, tmp_path, "trained"),
        *"--unlearn.unlearn_method GA+FT --unlearn.max_steps 1 --evaluate.before false".split(),
    )
    assert run.returncode == 0, run.stderr
    assert list((tmp_path / "cache" / "passes").iterdir()) == passes, "those of a trained model are not kept"


def test_only_the_forgotten_rows_are_measured_as_forgotten(tiny_model_folder, data, tmp_path):
    run = run_script(
        "evaluate_model", *words(tiny_model_folder, data, tmp_path), "--dataset.forget_ratio", "5"
    )
    assert run.returncode == 0
    assert len(read_jsonl(tmp_path / "out/run/samples/forget.jsonl")) == 5


def test_a_wrecked_model_is_unscored_and_not_a_crash(tiny_model, tiny_model_folder, data, tmp_path):
    with torch.no_grad():
        tiny_model.model.norm.weight.fill_(float("nan"))
    tiny_model.save_pretrained(tiny_model_folder)
    run = run_script(
        "evaluate_model", *words(tiny_model_folder, data, tmp_path), "--evaluate.metrics", "tofu,memorization"
    )
    assert run.returncode == 0, run.stderr
    found = read_json(tmp_path / "out/run/metrics.json")
    assert {key: value for key, value in found.items() if value is not None} == {}, "null, not 0"
    reason = read_json(tmp_path / "out/run/metrics_detail.json")["forget/rougeL"]["reason"]
    assert reason == "the model's logits are not finite numbers, so no text can be generated"
    run = run_script(
        "unlearn_model", *words(tiny_model_folder, data, tmp_path, "npo"), "--unlearn.unlearn_method", "NPO"
    )
    assert run.returncode == 1
    assert "no finite log-probability" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_folder_with_a_broken_model_is_one_clear_line(tiny_model_folder, data, tmp_path):
    (tiny_model_folder / "config.json").write_text('{"model_type": "no-such-thing"}')
    run = run_script("unlearn_model", *words(tiny_model_folder, data, tmp_path))
    assert run.returncode == 1 and "tiny/config.json: " in run.stderr, run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_cut_weights_file_is_one_clear_line_and_leaves_nothing(tiny_model_folder, data, tmp_path):
    weights = tiny_model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    run = run_script("unlearn_model", *words(tiny_model_folder, data, tmp_path))
    assert run.returncode == 1 and "tiny/model.safetensors: " in run.stderr, run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


def test_scripts_refuse_what_is_not_theirs(tiny_model_folder, data, tmp_path):
    run = run_script(
        "finetune_model", *words(tiny_model_folder, data, tmp_path), "--unlearn.unlearn_method", "GA+FT"
    )
    assert run.returncode == 2
    assert "fine-tuning needs FT" in run.stderr
    run = run_script(
        "evaluate_model", *words(tiny_model_folder, data, tmp_path), "--unlearn.unlearn_method", "GA+FT"
    )
    assert run.returncode == 2
    assert "evaluation needs origin" in run.stderr


def test_the_choice_of_forget_rows():
    rows = [{"id": i} for i in range(10)]
    assert choose_forget_rows(rows, 1.0, 0) == (rows, [])
    assert choose_forget_rows(rows, 99, 0) == (rows, [])
    chosen, rest = choose_forget_rows(rows, 0.3, 1)
    assert len(chosen) == 3
    assert sorted(r["id"] for r in chosen + rest) == list(range(10))
    assert choose_forget_rows(rows, 3, 1) == (chosen, rest)
    assert choose_forget_rows(rows, 0.3, 2)[0] != chosen
