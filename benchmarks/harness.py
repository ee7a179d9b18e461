"""run_benchmarks.py against the harness's own command line: the same model, rows and tasks.

    python benchmarks/harness.py --tasks fictional_retain_choices fictional_arithmetic --limit 200
    python benchmarks/harness.py --model files/models/smollm2-135m-instruct --data_dir ../shared/data \\
        --tasks mmlu_astronomy truthfulqa_mc1 --limit 50 --batch_size 16

Prints, for each task, the figures and the seconds of both. Seconds are those of the whole command less those
of the same command on one row, so that starting Python and loading the model do not count. The command line
has batches of a fixed number of rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if "unlearnkit" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "exec"))
    import checkout  # noqa: F401


from unlearnkit.metrics.lm_eval import Tasks
from unlearnkit.model.benchmarks.suites import TASKS

REPO = Path(__file__).resolve().parents[1]

HARNESS = Tasks(TASKS, {})


def declare(name: str, folder: Path) -> None:
    """A task file for the command line that reads the rows we read."""
    base = TASKS / f"{name}.yaml"
    if not base.is_file():
        base = HARNESS.manager_of(name).task_index[name].yaml_path
    rows = "" if base.parent == TASKS else "custom_dataset: !function common.builtin_rows\n"
    text = f"include: {base}\ntask: {name}\n{rows}"
    (folder / f"{name}.yaml").write_text(text)


def timed(words: list[str], env: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(words, cwd=REPO, env=env, check=True, stdout=subprocess.DEVNULL, stderr=None)
    return time.perf_counter() - start


def ours(arguments, task: str, limit: int, out: Path) -> tuple[float, dict]:
    words = [sys.executable, "src/exec/run_benchmarks.py", "--overall.model_name", arguments.model]
    words += ["--tasks", task, "--limit", str(limit), "--logger.json.root", str(out), "--logger.name", "ours"]
    words += ["--benchmarks.fewshot", "0", "--evaluate.decoding", arguments.mode, "--evaluate.bootstrap", "0"]
    words += ["--overall.precision", "fp32", "--overall.device", arguments.device]
    words += ["--data_dir", arguments.data_dir] if arguments.data_dir else []
    words += ["--benchmarks.gen_kwargs", arguments.gen_kwargs] if arguments.gen_kwargs else []
    seconds = timed(words, dict(os.environ))
    scores = json.loads((out / "ours/lm_eval/summary.json").read_text())["scores"]
    return seconds, {key.partition("/")[2]: value for key, value in scores.items()}


def theirs(arguments, task: str, limit: int, out: Path, declared: Path) -> tuple[float, dict]:
    folder = arguments.data_dir and str(Path(arguments.data_dir).resolve())
    metadata = {"data_dir": folder, "mode": arguments.mode}
    words = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", task]
    words += ["--model_args", f"pretrained={arguments.model},dtype=float32", "--device", arguments.device]
    words += ["--include_path", str(declared), "--metadata", json.dumps(metadata), "--limit", str(limit)]
    words += ["--batch_size", str(arguments.batch_size), "--num_fewshot", "0"]
    words += ["--output_path", str(out / "theirs")]
    words += ["--apply_chat_template"] if arguments.chat else []
    words += ["--gen_kwargs", arguments.gen_kwargs] if arguments.gen_kwargs else []
    seconds = timed(words, os.environ | {"PYTHONPATH": str(TASKS)})
    newest = max((out / "theirs").rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
    figures = json.loads(newest.read_text())["results"][task]
    kept = {k: v for k, v in figures.items() if "," in k and "stderr" not in k}
    return seconds, {"{}[{}]".format(*key.split(",")): value for key, value in kept.items()}


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--model", default="files/models/fictional/target")
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--data_dir")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--gen_kwargs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mode", default="direct")
    parser.add_argument("--chat", action="store_true", help="the command line uses the chat template")
    arguments = parser.parse_args()
    for task in arguments.tasks:
        with tempfile.TemporaryDirectory() as folder:
            out, declared = Path(folder), Path(folder) / "tasks"
            declared.mkdir()
            declare(task, declared)
            mine = [ours(arguments, task, limit, out) for limit in (1, arguments.limit)]
            cli = [theirs(arguments, task, limit, out, declared) for limit in (1, arguments.limit)]
        (one, _), (whole, figures) = mine
        (cli_one, _), (cli_whole, cli_figures) = cli
        print(f"{task}, {arguments.limit} rows, {arguments.model}, {arguments.device}")
        print(f"  ours     {whole - one:7.1f} s (whole command {whole:.1f}) {figures}")
        print(f"  lm_eval  {cli_whole - cli_one:7.1f} s (whole command {cli_whole:.1f}) {cli_figures}")
        print(f"  theirs / ours: {(cli_whole - cli_one) / (whole - one):.2f}", flush=True)


if __name__ == "__main__":
    main()
