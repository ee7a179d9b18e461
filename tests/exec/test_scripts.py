"""Every script as a user starts it: in a process of its own, from another folder than the checkout.

What each of them does is tested in the tests' own process; here it must start, find its code, and end with
the right exit code. So most are given something that they refuse, which they do before they load a model.
"""

import shutil

import pytest
from conftest import FICTIONAL, REPO
from scripts import path_of, run_forked, run_python

from unlearnkit.exec.make_docs import PAGES

pytestmark = pytest.mark.run

FILES = sorted((REPO / "src/exec").glob("*.py"))
SCRIPTS = [
    path.stem
    for path in FILES
    # child_process.py is started by other scripts alone; tests/exec/test_sweep.py is about its runs.
    if "\n    __package__ = runpy.run_path(" in path.read_text() and path.stem != "child_process"
]
REFUSED = ["--overall.seed", "x"], 2, "overall.seed: expected a whole number"
RUN = (
    "--dataset.forget_dataset_name Fictional_forget01 --unlearn.max_steps 1 --evaluate.before false "
    "--evaluate.metrics forget/prob --overall.quiet true --overall.cache_dir cache "
    "--logger.json.root . --logger.name run"
).split()
GRID = (
    "--name grid --root . --jobs 2 --seeds 0 1 --metrics forget/prob --set unlearn.max_steps=1 "
    "evaluate.metrics=forget/prob evaluate.before=false evaluate.retain_results=null"
).split()


def case(script: str, model) -> tuple[list, int, str]:
    """What the script is told, its exit code, and something that it prints."""
    return {
        "unlearn_model": ([*RUN, "--overall.model_name", model], 0, ""),
        "run_grid": (
            [*GRID, f"overall.model_name={model}", "--configs", REPO / "configs/fictional/ga+ft.json"],
            0,
            "2/2 ga+ft",
        ),
        "run_requests": (
            [
                "--name",
                "r",
                "--config",
                REPO / "configs/fictional/ga+ft.json",
                "--requests",
                "Fictional_none",
            ],
            2,
            "has no split 'none'",
        ),
        "compare_runs": ([FICTIONAL / "target/results", FICTIONAL / "retain/results"], 0, "model_utility"),
        "forget": (["none.jsonl", "--model", model], 2, "none.jsonl"),
        "sweep": (["--name", "s", "--configs", "none.json"], 2, "none.json"),
        "import_log": (["none.json"], 1, "error: none.json: no such file"),
        "convert_gguf": (["none.gguf", "out"], 1, "error: none.gguf"),
        "download_mask": (["fictional", "0.8", "--source", REPO / "mask"], 0, "wrote mask/fictional_0.8.pt"),
        "make_docs": (["--repo", "."], 0, ""),
        "make_fictional": (["--blank"], 2, "expected one argument"),
    }.get(script, REFUSED)


@pytest.fixture
def folder(tmp_path):
    """Where the scripts are started; it has the pages that make_docs.py writes anew."""
    (tmp_path / "docs").mkdir()
    for page in PAGES:
        shutil.copy(REPO / page, tmp_path / page)
    return tmp_path


@pytest.mark.parametrize(
    "script",
    # Its runs are processes too; how they start and end is what test_grid.py is about.
    [pytest.param(name, marks=pytest.mark.slow) if name == "run_grid" else name for name in SCRIPTS],
)
def test_a_script_works_from_any_folder(script, tiny_model_folder, folder):
    words, status, printed = case(script, tiny_model_folder)
    done = run_forked(script, *words, cwd=folder)
    assert done.returncode == status, done.stderr
    assert printed in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for result in {"unlearn_model": ["run/metrics.json"], "run_grid": ["grid/table.csv"]}.get(script, []):
        assert (folder / result).exists()
    for page in PAGES:
        assert (folder / page).read_text() == (REPO / page).read_text()


@pytest.mark.slow
def test_measuring_waits_for_nothing_that_only_training_needs(tiny_model_folder, tmp_path):
    """Loading the Trainer, peft and datasets takes a second of every start."""
    late = ["transformers.trainer", "peft", "datasets", "sentence_transformers", "wandb", "matplotlib"]
    code = (
        "import atexit, runpy, sys\n"
        f"atexit.register(lambda: print('loaded:', [name for name in {late} if name in sys.modules]))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = [word for word in RUN if word not in ("--unlearn.max_steps", "1")] + ["--evaluate.rows", "3"]
    script = path_of("evaluate_model")
    done = run_python("-c", code, script, *words, "--overall.model_name", tiny_model_folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stdout
    assert (tmp_path / "run/metrics.json").exists()
