"""Every script once as a user starts it: in a process of its own, from another folder than the checkout."""

import shutil

import pytest
from conftest import FICTIONAL, REPO
from scripts import run_child

SCRIPTS = sorted(path.stem for path in (REPO / "src/exec").glob("[a-z]*_*.py")) + ["prefetch"]
ROWS = (
    "--dataset.forget_dataset_name Fictional_forget01 --overall.quiet true --overall.cache_dir cache".split()
)
RUN = "--evaluate.metrics forget/prob --logger.json.root . --logger.name run".split()
STEP = "--unlearn.max_steps 1 --evaluate.before false".split()


def words_and_result(script: str, model) -> tuple[list, str]:
    """What the script is told, and the file that it must leave in the folder."""
    common = ["--overall.model_name", model, *ROWS]
    written = ["--overall.model_name", FICTIONAL / "target", *ROWS]
    alternates = (
        "--generation.prompt {question} --generation.count 1 --generation.max_new_tokens 30 "
        "--generation.temperature 2 --generation.attempts 40 --dataset.alternates a.jsonl"
    ).split()
    paraphrases = (
        "--paraphrases.prompts pool.txt --paraphrases.count 2 --paraphrases.max_new_tokens 40 "
        "--paraphrases.temperature 1.5 --paraphrases.similarity -1 --paraphrases.attempts 30 "
        "--dataset.paraphrases p.jsonl"
    ).split()
    grid = [
        *("--configs", REPO / "configs/fictional/ga+ft.json", "--set", f"overall.model_name={model}"),
        *"evaluate.metrics=forget/prob evaluate.before=false evaluate.retain_results=null".split(),
        *"unlearn.max_steps=1 --name grid --root . --jobs 2 --seeds 0 1 --metrics forget/prob".split(),
    ]
    return {
        "unlearn_model": ([*common, *RUN, *STEP], "run/metrics.json"),
        "finetune_model": ([*common, *RUN, *STEP], "run/checkpoints/config.json"),
        "evaluate_model": ([*common, *RUN], "run/metrics.json"),
        "make_mask": ([*common, *"--mask.ratios 0.5 --mask.out .".split()], "fictional_0.5.pt"),
        "make_traces": ([*common, *"--traces.max_new_tokens 4 --dataset.traces t.jsonl".split()], "t.jsonl"),
        "make_alternates": ([*written, *alternates], "a.jsonl"),
        "make_paraphrases": ([*written, *paraphrases], "p.jsonl"),
        "make_docs": (["--repo", "."], "docs/metrics.md"),
        "make_fictional": (["--data", "data", "--blank", "blank"], "data/full.jsonl"),
        "download_mask": (["fictional", "0.8", "--source", REPO / "mask"], "mask/fictional_0.8.pt"),
        "prefetch": (common, "."),
        "run_grid": (grid, "grid/table.csv"),
        "compare_runs": ([FICTIONAL / "target/results", FICTIONAL / "retain/results"], "."),
        "convert_gguf": (["--help"], "."),
    }[script]


@pytest.fixture
def folder(tmp_path):
    """Where the scripts are started: with two pages to write anew and a pool of prompts."""
    (tmp_path / "docs").mkdir()
    for page in ("README.md", "docs/metrics.md"):
        shutil.copy(REPO / page, tmp_path / page)
    (tmp_path / "pool.txt").write_text("{question} ({answer})\nSay this: {answer}\n")
    return tmp_path


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_works_from_any_folder(script, tiny_model_folder, folder):
    words, result = words_and_result(script, tiny_model_folder)
    done = run_child(script, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / result).exists()
