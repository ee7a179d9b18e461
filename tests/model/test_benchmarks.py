"""Benchmarks are run one task at a time, kept, and run again where something changed."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import FICTIONAL, SHARED_DATA
from scripts import TWO_PROCESSES, path_of, run_python, run_script
from servers import serving, transformers_serve
from tiny import random_llama, save

from unlearnkit.core.files import UserError, read_json, read_jsonl, write_jsonl
from unlearnkit.dataset import ForgetSet, load_evaluation
from unlearnkit.exec.config.reader import ConfigError, StrictConfig, resolve_settings
from unlearnkit.exec.run_benchmarks import SHORT
from unlearnkit.metrics.lm_eval import Score, TaskOptions, TaskResult
from unlearnkit.model.benchmarks import benchmark_runner as module
from unlearnkit.model.benchmarks.benchmark_runner import BenchmarkRun, Benchmarks, run_in_memory, to_results
from unlearnkit.model.benchmarks.suites import TASKS, tasks_of
from unlearnkit.model.evaluation import Occasion, evaluate
from unlearnkit.model.load.loading import load_model

CHOICES, SUMS = "fictional_forget10_choices", "fictional_arithmetic"


def settings_for(tasks: str, **options):
    flags = {"benchmarks.tasks": tasks, "benchmarks.limit": "3", "overall.quiet": "true"}
    flags["dataset.forget_dataset_name"] = "Fictional_forget10"
    flags |= {"benchmarks.gen_kwargs": "max_gen_toks=8", "overall.precision": "fp32"}
    flags |= {key.replace("__", "."): str(value) for key, value in options.items()}
    return resolve_settings(StrictConfig(), [], flags, {})


@pytest.fixture
def model(tokenizer):
    return random_llama(tokenizer)


def run(model, tokenizer, folder, tasks=f"{CHOICES},{SUMS}", **options):
    return run_in_memory(model, tokenizer, settings_for(tasks, **options), BenchmarkRun("test", folder))


def test_a_task_leaves_its_figures_rows_and_facts(model, tokenizer, tmp_path):
    done = run(model, tokenizer, tmp_path)
    assert [d.status for d in done] == ["ok", "ok"]
    folder = tmp_path / f"lm_eval/{SUMS}@3"
    results, meta = read_json(folder / "results.json"), read_json(folder / "meta.json")
    assert results["scores"][f"{SUMS}@3/closed[every]"]["n"] == 3
    assert (meta["status"], meta["mode"], meta["conduct"]["limit"]) == ("ok", "thinking", 3)
    rows = read_jsonl(folder / "samples.jsonl")
    assert [row["doc"]["id"] for row in rows] == ["sum-4000", "sum-4001", "sum-4002"]
    assert isinstance(rows[0]["resps"][0][0], str)
    text = (tmp_path / "lm_eval/summary.json").read_text()
    assert "N/A" not in text and json.loads(text)["failed"] == {}


@pytest.mark.slow
def test_scores_of_choices_and_sums_are_those_of_the_projects_own_metrics(tokenizer):
    target = load_model(str(FICTIONAL / "retain"))
    metrics = {"evaluate__metrics": "forget/choice_accuracy,arithmetic/accuracy"}
    settings = settings_for(SUMS, evaluate__max_new_tokens=64, **metrics)
    sets = load_evaluation(ForgetSet("Fictional_forget10"))
    sets["arithmetic"] = sets["arithmetic"][:40]
    native = evaluate(target, tokenizer, sets, settings, Occasion("test")).metrics
    every = settings_for(CHOICES, benchmarks__limit=0)
    (choices,) = run_in_memory(target, tokenizer, every, BenchmarkRun("test"))
    limited = settings_for(SUMS, benchmarks__limit=40, benchmarks__gen_kwargs="max_gen_toks=64")
    (sums,) = run_in_memory(target, tokenizer, limited, BenchmarkRun("test"))
    assert choices.scores[f"{CHOICES}/acc[none]"]["value"] == native["forget/choice_accuracy"]
    assert sums.scores[f"{SUMS}@40/acc[every]"]["value"] == native["arithmetic/accuracy"]


@pytest.mark.slow
def test_what_is_unchanged_is_kept_and_what_changed_runs_again(model, tokenizer, tmp_path, monkeypatch):
    copied = tmp_path / "tasks"
    shutil.copytree(TASKS, copied)
    common = (copied / "common.py").read_text()
    (copied / "rows.csv").write_text("prompt,label\nOne?,safe\nTwo?,safe\n")
    (copied / "own.yaml").write_text("include: _requests\ntask: own\ndataset_kwargs: {source: own}\n")
    (copied / "common.py").write_text(
        common.replace(
            "TABLES = {", 'TABLES = {"own": Table(None, None, "rows", str(HERE), _request("prompt")),'
        )
    )
    monkeypatch.setattr(module, "TASKS", copied)
    again = lambda **options: [
        d.cached for d in run(model, tokenizer, tmp_path, "own,fictional_retain", **options)
    ]
    assert again() == [False, False]
    assert again() == [True, True]
    with (copied / "rows.csv").open("a") as file:
        csv.writer(file).writerow(["Three?", "safe"])
    assert again() == [False, True], "one more row of its data"
    with (copied / "own.yaml").open("a") as file:
        file.write("#")
    assert again() == [False, True], "one byte of its YAML file"
    assert again(benchmarks__gen_kwargs="max_gen_toks=9") == [False, False]
    assert again(benchmarks__gen_kwargs="max_gen_toks=9") == [True, True]
    with torch.no_grad():
        model.lm_head.weight[7, 3] += 1e-3
    assert again(benchmarks__gen_kwargs="max_gen_toks=9") == [False, False], "one weight"


def test_figures_that_were_changed_by_hand_are_not_believed(model, tokenizer, tmp_path):
    run(model, tokenizer, tmp_path, CHOICES)
    path = tmp_path / f"lm_eval/{CHOICES}@3/results.json"
    path.write_text(path.read_text().replace('"n": 3', '"n": 300'))
    (done,) = run(model, tokenizer, tmp_path, CHOICES)
    assert not done.cached and done.scores[f"{CHOICES}@3/acc[none]"]["n"] == 3


def test_a_task_that_fails_is_recorded_and_the_others_go_on(model, tokenizer, tmp_path):
    done = run(model, tokenizer, tmp_path, f"strongreject,mmlu_astronomy,{CHOICES}")
    assert [d.status for d in done] == ["error", "error", "ok"]
    assert "this task needs your own rows" in done[0].message
    assert "Couldn't reach 'cais/mmlu'" in done[1].message
    results = to_results(done)
    assert results.metrics["lm_eval/strongreject@3"] is None
    assert "needs your own rows" in results.detail["lm_eval/strongreject@3"]["reason"]
    meta = read_json(tmp_path / "lm_eval/strongreject@3/meta.json")
    assert meta["status"] == "error"


def test_hazardous_texts_can_be_left_unkept(model, tokenizer, tmp_path):
    run(model, tokenizer, tmp_path, SUMS, benchmarks__samples="false")
    assert not list(tmp_path.rglob("samples.jsonl"))


def test_safety_tasks_read_the_layouts_of_their_authors(model, tokenizer, tmp_path):
    tables = {
        "strongreject/strongreject_dataset.csv": "category,source,forbidden_prompt\nx,y,Do A\n",
        "JailbreakBench/JBB-Behaviors/data/harmful-behaviors.csv": "Index,Goal,Category\n0,Do B,x\n",
        "allenai/wildjailbreak/eval/eval.tsv": "adversarial\tlabel\tdata_type\nDo C\t0\tadversarial_benign\n",
        "xstest/xstest_prompts.csv": "id,prompt,type,label,focus,note\n7,Do D,homonyms,safe,x,y\n",
    }
    for name, text in tables.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    settings = settings_for(",".join(tasks_of(["safety"])), benchmarks__data_dir=tmp_path)
    found = Benchmarks(settings, "thinking")
    docs = [next(iter(found.load(name)["tasks"].values())).eval_docs[0] for name in tasks_of(["safety"])]
    assert [(doc["prompt"], doc["target"]) for doc in docs] == [
        ("Do A", "unsafe"),
        ("Do B", "unsafe"),
        ("Do C", "safe"),
        ("Do D", "safe"),
    ]


def test_a_judge_says_whether_answers_and_traces_help(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", "k")
    replies = {"answer": "no", "trace": "yes"}
    texts = [[["<think>pick the lock</think>I will not say."]]]
    with serving(lambda prompt, _: replies["trace" if "pick the lock" in prompt else "answer"]) as (
        url,
        talk,
    ):
        judge = {
            "judge__kind": "lm",
            "judge__base_url": url,
            "judge__model": "small",
            "judge__key_env": "KEY",
        }
        settings = settings_for("smoke_requests", overall__cache_dir=tmp_path, **judge)
        rows = [{"doc": request("How?"), "doc_id": 0, "resps": texts[0], "filter": "every"}]
        result = TaskResult({"smoke_requests/refused[every]": Score(0.0, 1)}, {}, rows)
        judged = Benchmarks(settings, "thinking")._with_verdicts(result, TaskOptions())
    values = {key.partition("/")[2]: score.value for key, score in judged.scores.items()}
    assert values["judged_harmful[every]"] == 0 and values["judged_harmful_trace[every]"] == 1
    assert len(talk.prompts) == 2


def request(prompt: str) -> dict:
    return {"prompt": prompt, "kind": "request", "mode": "thinking", "tags": ["<think>", "</think>"]}


def test_suites_are_checked_before_anything_is_loaded():
    with pytest.raises(ConfigError, match="did you mean smoke"):
        settings_for(SUMS, benchmarks__suite="smok")
    with pytest.raises(ConfigError, match="benchmarks.backend server needs the address"):
        settings_for(SUMS, benchmarks__backend="server")
    with pytest.raises(ConfigError, match="'temprature' is unknown; did you mean temperature"):
        settings_for(SUMS, benchmarks__gen_kwargs="temprature=1")


def test_a_missing_package_is_one_line_that_names_the_requirement(monkeypatch):
    from unlearnkit.exec.config.rules import evaluation_rules as rules

    own = rules.find_spec
    monkeypatch.setattr(rules, "find_spec", lambda name: None if name == "lm_eval" else own(name))
    with pytest.raises(ConfigError, match="pip install lm-eval\\[hf\\]==0.4.13"):
        settings_for(SUMS)


def test_the_suite_of_a_run_goes_by_its_task():
    auto = lambda **options: resolve_settings(StrictConfig(), [], options, {}).benchmark_tasks
    assert auto() == []
    assert auto(**{"unlearn.task_name": "wmdp"}) == tasks_of(["wmdp"])
    assert auto(**{"unlearn.task_name": "wmdp", "benchmarks.suite": "none"}) == []


def test_published_figures_are_asked_for_without_template_and_thought(model, tokenizer, tmp_path):
    run(model, tokenizer, tmp_path, SUMS, benchmarks__published="true")
    (row,) = read_jsonl(tmp_path / f"lm_eval/{SUMS}@3/samples.jsonl")[:1]
    assert row["arguments"][0][0] == row["doc"]["prompt"]
    assert row["doc"]["mode"] == "direct"


@pytest.mark.run
def test_the_script_runs_a_suite_and_resumes(tokenizer, tmp_path):
    folder = save(random_llama(tokenizer), tokenizer, tmp_path / "model")
    words = ["--overall.model_name", folder, "--suite", "smoke", "--limit", 2, "--logger.json.root", tmp_path]
    words += ["--logger.name", "b", "--benchmarks.gen_kwargs", "max_gen_toks=8"]
    first = run_script("run_benchmarks", *words)
    assert first.returncode == 0, first.stderr
    assert "closed[every] ↑" in first.stdout
    metrics = read_json(tmp_path / "b/metrics.json")
    assert metrics["lm_eval/fictional_arithmetic@2/closed[every]"] is not None
    assert (tmp_path / "b/environment.json").is_file()
    second = run_script("run_benchmarks", *words)
    assert second.stdout.count("(cached)") == 4
    failing = run_script("run_benchmarks", *words, "--tasks", "strongreject", "--logger.overwrite", "true")
    assert failing.returncode == 1 and "strongreject@2" in failing.stderr
    allowed = run_script("run_benchmarks", *words, "--tasks", "strongreject", "--allow-failed")
    assert allowed.returncode == 0
    beside = run_script("compare_runs", tmp_path / "b", FICTIONAL / "target/results", COLUMNS="150")
    assert "lm_eval/smoke_requests@2/refused[every]" in beside.stdout, beside.stderr
    other = run_script("run_benchmarks", *words[:-4], "--logger.name", "model")
    assert other.returncode == 1 and "which benchmarks do not write" in other.stderr


@pytest.mark.run
def test_a_second_command_adds_its_tasks_and_leaves_out_those_of_another_model(tokenizer, tmp_path):
    folder = save(random_llama(tokenizer), tokenizer, tmp_path / "model")
    words = [
        "--overall.model_name",
        folder,
        "--limit",
        2,
        "--logger.json.root",
        tmp_path,
        "--logger.name",
        "b",
    ]
    words += ["--benchmarks.gen_kwargs", "max_gen_toks=8", "--overall.quiet", "true"]
    tasks = lambda: {key.split("/")[1] for key in read_json(tmp_path / "b/metrics.json")}
    assert run_script("run_benchmarks", *words, "--tasks", CHOICES).returncode == 0
    assert run_script("run_benchmarks", *words, "--tasks", SUMS).returncode == 0
    assert tasks() == {f"{CHOICES}@2", f"{SUMS}@2"}
    assert set(read_json(tmp_path / "b/lm_eval/summary.json")["scores"]) == {
        key.removeprefix("lm_eval/") for key in read_json(tmp_path / "b/metrics.json")
    }
    torch.manual_seed(7)
    save(random_llama(tokenizer, initializer_range=0.1), tokenizer, folder)
    assert run_script("run_benchmarks", *words, "--tasks", SUMS).returncode == 0
    assert tasks() == {f"{SUMS}@2"}


@pytest.mark.run
def test_the_plan_loads_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "unlearnkit.model.benchmarks.benchmark_folder.load_initial",
        lambda *_: pytest.fail("a model was loaded"),
    )
    plan = run_script("run_benchmarks", "--suite", "smoke,safety", "--plan", "--logger.json.root", tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert "needs your own rows" in plan.stdout and "76,800" in plan.stdout
    assert not list(tmp_path.iterdir())


def test_nothing_to_run_is_an_error(tmp_path):
    bare = run_script("run_benchmarks", "--logger.json.root", tmp_path)
    assert bare.returncode == 2 and "set --suite" in bare.stderr
    assert set(SHORT) >= {"--suite", "--tasks", "--plan", "--limit", "--data_dir"}


@pytest.mark.run
def test_a_run_measures_its_benchmarks_before_and_after(in_small_world, tokenizer, tmp_path):
    folder = save(random_llama(tokenizer), tokenizer, tmp_path / "model")
    words = [
        "--overall.model_name",
        folder,
        "--logger.json.root",
        tmp_path,
        "--overall.cache_dir",
        tmp_path / "c",
    ]
    words += "--unlearn.unlearn_method GA --unlearn.max_steps 2 --unlearn.lr 1e-2".split()
    words += (
        f"--evaluate.metrics forget/prob --benchmarks.tasks {CHOICES},{SUMS} --benchmarks.limit 2".split()
    )
    words += ["--benchmarks.gen_kwargs", "max_gen_toks=8"]
    run = run_script("unlearn_model", *words, "--logger.name", "both")
    assert run.returncode == 0, run.stderr
    key = f"lm_eval/{CHOICES}@2/acc[none]"
    assert key in run.stdout
    assert read_json(tmp_path / "both/metrics.json")[key] is not None
    assert read_json(tmp_path / "both/before/metrics.json")[key] is not None
    logps = [
        read_jsonl(path)[0]["resps"]
        for path in (
            tmp_path / f"both/lm_eval/{CHOICES}@2/samples.jsonl",
            next((tmp_path / "c/benchmarks").glob(f"*/lm_eval/{CHOICES}@2/samples.jsonl")),
        )
    ]
    assert logps[0] != logps[1], "the trained model answered, not the initial model again"
    refused = run_script("unlearn_model", *words, "--logger.name", "other", "--benchmarks.suite", "safety")
    assert refused.returncode == 1 and "4 of 6 benchmark tasks cannot be run" in refused.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs ../shared/data")
def test_real_rows_are_read_from_the_files_of_their_authors():
    names = [
        "gsm8k_thinking",
        "mmlu_astronomy",
        "truthfulqa_mc1",
        "strategyqa_thinking",
        "xstest",
        "tofu_forget10",
    ]
    found = Benchmarks(settings_for(",".join(names), benchmarks__data_dir=SHARED_DATA), "thinking")
    rows = {name: next(iter(found.load(name)["tasks"].values())).eval_docs for name in names}
    assert {name: len(table) for name, table in rows.items()} == {
        "gsm8k_thinking": 1319,
        "mmlu_astronomy": 152,
        "truthfulqa_mc1": 790,
        "strategyqa_thinking": 229,
        "xstest": 250,
        "tofu_forget10": 400,
    }
    assert rows["gsm8k_thinking"][0]["target"] == "18"


def test_robust_and_cloze_questions_of_wmdp_are_asked_in_their_forms(model, tokenizer, tmp_path):
    rows = [
        {"question": f" Which is {n}? ", "choices": ["a key", "a lock", "a door", "a wall"], "answer": n % 4}
        for n in range(3)
    ]
    data = tmp_path / "data"
    for folder, split in (
        ("wmdp_bio_robust", "robust"),
        ("wmdp_bio_robust", "shortcut"),
        ("wmdp_bio_cloze", "cloze_compatible"),
    ):
        write_jsonl(data / folder / f"{split}.jsonl", rows)
    names = tasks_of(["wmdp_robust"])
    found = Benchmarks(settings_for(",".join(names), benchmarks__data_dir=data), "thinking")
    asked = {name: next(iter(found.load(name)["tasks"].values())).eval_docs[1] for name in names}
    robust, cloze = asked["wmdp_bio_robust"], asked["wmdp_bio_cloze_verified"]
    assert robust["prompt"] == (
        "The following are multiple choice questions (with answers) about biology.\n\nWhich is 1?"
        "\nA. a key\nB. a lock\nC. a door\nD. a wall\nAnswer:"
    )
    assert (robust["letters"], robust["target"]) == (["A", "B", "C", "D"], 1)
    assert cloze["prompt"].endswith("answer.\n\nQuestion: Which is 1?\nAnswer:")
    assert cloze["letters"] == rows[1]["choices"]
    outcomes = run(model, tokenizer, tmp_path / "run", ",".join(names), benchmarks__data_dir=data)
    scores = {key.partition("[")[0] for outcome in outcomes for key in outcome.scores}
    assert scores == {
        "wmdp_bio_robust@3/acc",
        "wmdp_bio_shortcut@3/acc",
        "wmdp_bio_cloze_verified@3/acc_norm",
    }
    write_jsonl(data / "wmdp_bio_cloze/cloze_compatible.jsonl", [{**rows[0], "answer": 4}])
    with pytest.raises(UserError, match="row 1 of wmdp_bio_cloze .* answer 4 of 4 choices"):
        found.load("wmdp_bio_cloze_verified")


def test_rows_that_are_nowhere_are_said_with_both_ways_to_get_them(tmp_path):
    found = Benchmarks(settings_for("mmlu_astronomy", benchmarks__data_dir=tmp_path), "thinking")
    with pytest.raises(UserError, match=f"put its files into {tmp_path}/cais/mmlu"):
        found.load("mmlu_astronomy")


def chat_reply(content: str, thought: str | None = None) -> tuple[int, bytes, float]:
    message = {"role": "assistant", "content": content, "reasoning_content": thought}
    return 200, json.dumps({"choices": [{"index": 0, "message": message}]}).encode(), 0.0


@pytest.mark.parametrize("thought, closed", [(None, 0.0), ("41 + 54 is 95", 1.0)])
def test_a_server_that_keeps_the_thought_apart_is_read_as_one_text(tmp_path, thought, closed):
    from unlearnkit.model.benchmarks.served_models import served_model

    with serving(lambda prompt, _: chat_reply("83", thought), model="own/small") as (url, talk):
        settings = settings_for(
            SUMS,
            benchmarks__backend="server",
            benchmarks__base_url=url,
            overall__model_name="own/small",
            benchmarks__limit=2,
        )
        (done,) = Benchmarks(settings, "thinking").run(served_model(settings), tmp_path, "test")
    scores = {key.partition("/")[2]: score["value"] for key, score in done.scores.items()}
    assert scores["closed[every]"] == closed
    assert scores["acc[every]"] == closed / 2, "83 is right for the first of the two sums"
    assert scores["acc_as_published[every]"] == 0.5
    assert talk.prompts[0] == "Hi", "whether it takes the switch for thinking"
    assert len(talk.prompts) == 3
    (row,) = read_jsonl(tmp_path / f"lm_eval/{SUMS}@2/samples.jsonl")[:1]
    assert row["resps"][0][0] == (f"<think>{thought}</think>83" if thought else "83")


def test_the_key_of_a_server_that_fails_is_shown_nowhere(tmp_path, monkeypatch, caplog, capfd):
    from unlearnkit.model.benchmarks.served_models import served_model

    monkeypatch.setenv("OWN_KEY", "sk-secret-77")
    monkeypatch.setattr("unlearnkit.model.benchmarks.served_models.RETRIES", 1)
    with serving(lambda prompt, _: (500, b"{}", 0.0), model="own/small") as (url, _):
        settings = settings_for(
            SUMS,
            benchmarks__backend="server",
            benchmarks__base_url=url,
            benchmarks__key_env="OWN_KEY",
            overall__model_name="own/small",
        )
        (done,) = Benchmarks(settings, "thinking").run(served_model(settings), tmp_path, "test")
    assert done.status == "error"
    shown = caplog.text + "".join(capfd.readouterr())
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "sk-secret-77" not in shown + kept + done.message


def test_a_server_without_log_probabilities_scores_nothing(tmp_path):
    from unlearnkit.model.benchmarks.served_models import served_model

    with serving(lambda prompt, _: "83") as (url, _):
        settings = settings_for(
            CHOICES, benchmarks__backend="server", benchmarks__base_url=url, overall__model_name="own/small"
        )
        (done,) = Benchmarks(settings, "thinking").run(served_model(settings), tmp_path, "test")
    assert done.status == "error" and "sends back no log-probabilities" in done.message
    settings = settings_for(SUMS, benchmarks__backend="server", benchmarks__base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="http://127.0.0.1:9/v1 cannot be reached"):
        served_model(settings)


@pytest.mark.slow
def test_transformers_serve_answers_benchmarks(tmp_path):
    """A server that is not ours, with the fictional model, which thinks."""
    from unlearnkit.model.benchmarks.served_models import served_model

    with transformers_serve(FICTIONAL / "target") as url:
        settings = settings_for(
            f"{SUMS},{CHOICES}",
            benchmarks__backend="server",
            benchmarks__base_url=url,
            benchmarks__gen_kwargs="max_gen_toks=96",
            benchmarks__concurrency=2,
            overall__model_name=FICTIONAL / "target",
        )
        written, scored = Benchmarks(settings, "thinking").run(served_model(settings), tmp_path, "test")
    assert written.status == "ok"
    assert written.scores[f"{SUMS}@3/closed[every]"]["value"] == 1.0, "it takes the switch for thinking"
    assert written.scores[f"{SUMS}@3/acc_as_published[every]"]["value"] == 1.0
    assert scored.status == "error" and "log-probabilities" in scored.message


@pytest.mark.slow
def test_two_processes_share_the_rows_and_find_the_same(tokenizer, tmp_path):
    folder = save(random_llama(tokenizer), tokenizer, tmp_path / "model")
    words = ["--overall.model_name", folder, "--suite", "smoke", "--limit", 5, "--logger.json.root", tmp_path]
    words += ["--benchmarks.gen_kwargs", "max_gen_toks=16", "--overall.device", "cpu"]
    alone = run_script("run_benchmarks", *words, "--logger.name", "one")
    assert alone.returncode == 0, alone.stderr
    script = path_of("run_benchmarks")
    shared = run_python(*TWO_PROCESSES, script, *words, "--logger.name", "two", OMP_NUM_THREADS="1")
    assert shared.returncode == 0, shared.stderr
    assert read_json(tmp_path / "two/metrics.json") == read_json(tmp_path / "one/metrics.json")
    rows = [read_jsonl(tmp_path / f"{name}/lm_eval/{SUMS}@5/samples.jsonl") for name in ("one", "two")]
    assert [[row["doc_id"] for row in table] for table in rows] == [list(range(5))] * 2
    assert [row["resps"] for row in rows[0]] == [row["resps"] for row in rows[1]]


@pytest.mark.slow  # 57 tasks with their rows
def test_whole_mmlu_is_read_from_a_folder(tmp_path):
    """A group of groups: all subjects, each with its own rows."""
    subjects = [name.removeprefix("mmlu_") for name in mmlu_subjects()]
    for part in ("test", "dev"):
        (tmp_path / "mmlu" / part).mkdir(parents=True)
        for subject in subjects:
            lines = [
                f"{part} question {n} of {subject}?,one,two,three,four,{'ABCD'[n % 4]}" for n in range(5)
            ]
            (tmp_path / f"mmlu/{part}/{subject}_{part}.csv").write_text("\n".join(lines) + "\n")
    settings = settings_for("mmlu", benchmarks__data_dir=tmp_path)
    tasks = Benchmarks(settings, settings.evaluate.decoding).load("mmlu")["tasks"]
    assert len(tasks) == len(subjects) == 57
    for subject in subjects:
        doc = next(iter(tasks[f"mmlu_{subject}"].eval_docs))
        assert doc["question"] == f"test question 0 of {subject}?" and doc["answer"] == 0


def mmlu_subjects() -> list[str]:
    """The names of MMLU's tasks, from the harness's own files."""
    from lm_eval import tasks

    files = sorted((Path(tasks.__file__).parent / "mmlu/default").glob("mmlu_*.yaml"))
    return [path.stem for path in files]
