"""The plan of a run against what the run takes: expected and measured peak memory on several settings.

    OMP_NUM_THREADS=1 python benchmarks/plan.py

Each setting is one short training (few rows, two steps) of a model of 135 million random weights in the shape
of SmolLM2, in a process of its own. Measured is the peak of that process's anonymous memory above what it
holds once the libraries are imported and a run of a small model has been done (on a GPU: what CUDA allocates
at most). Mapped files do not count: their pages are taken away where room is needed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

if "unlearnkit" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "exec"))
    import checkout  # noqa: F401

from shapes import SMOLLM2, AnonymousPeak

REPO = Path(__file__).resolve().parents[1]
SETTINGS = {
    "NPO+FT": "--unlearn.unlearn_method NPO+FT",
    "GA+KL, a frozen reference": "--unlearn.unlearn_method GA+KL",
    "NPO+FT, LoRA": "--unlearn.unlearn_method NPO+FT --unlearn.use_lora true",
    "NPO+FT, 8-bit AdamW, checkpointing": "--unlearn.unlearn_method NPO+FT --unlearn.optimizer AdamW8bit"
    " --unlearn.gradient_checkpointing true --dataset.batch_size 16",
    "RMU of three blocks": "--unlearn.unlearn_method RMU --unlearn.RMU.layer 7",
    "NPO+FT, pcgrad": "--unlearn.unlearn_method NPO+FT --unlearn.combiner pcgrad",
    "NPO+FT, NF4 + LoRA": "--unlearn.unlearn_method NPO+FT --unlearn.use_lora true"
    " --unlearn.lora.quantize nf4 --unlearn.save_adapter only",
}
SHORT = (
    "--dataset.forget_dataset_name Fictional_forget10 --dataset.batch_size 8 --dataset.forget_ratio 24"
    " --unlearn.max_steps 2 --evaluate.before false"
    " --evaluate.metrics forget/prob --evaluate.rows 8 --evaluate.bootstrap 0 --overall.quiet true"
    " --logger.overwrite true --overall.reference_cache_gb 0.5"
)


def write_model(folder: Path, shape: dict) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(REPO / "files/models/fictional/target")
    torch.manual_seed(0)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0, "bos_token_id": None}
    LlamaForCausalLM(LlamaConfig(**shape, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(words: list[str]) -> None:
    """In a process of its own: plan the run, do it, and print both peaks in MB."""
    import gc

    import torch
    from accelerate.state import AcceleratorState, GradientState

    import unlearnkit.model.run.training
    import unlearnkit.model.run.unlearn_run  # noqa: F401
    from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
    from unlearnkit.exec.unlearn_model import main

    flags = {key.removeprefix("--"): value for key, value in zip(words[::2], words[1::2])}
    settings = resolve_settings(StrictConfig(), [], flags, {})
    # The same run of a small model first: it loads what is loaded late.
    small = [*words, "--overall.model_name", str(REPO / "files/models/fictional/target")]
    if "RMU" in words:
        small += ["--unlearn.RMU.layer", "2"]  # that model has four blocks
    if main(small):
        raise SystemExit(1)
    for state in (AcceleratorState, GradientState):
        state._reset_state(**({"reset_partial_state": True} if state is AcceleratorState else {}))
    gc.collect()
    with AnonymousPeak() as held:
        if main(words):
            raise SystemExit(1)
    on_gpu = torch.cuda.is_available()
    measured = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else held.mb
    from unlearnkit.model.plan.run_plan import make_plan, prepare

    plan = make_plan(settings, prepare(settings))
    print(json.dumps({"measured": measured, "planned": plan.peak / 2**20, "parts": plan.memory.parts()}))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="settings whose name holds this text")
    parser.add_argument("--run", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.run:
        measure(options.run)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        write_model(Path(temporary) / "model", SMOLLM2)
        print("| setting | planned MB | measured MB | planned / measured |\n|---|---|---|---|", flush=True)
        for name, words in SETTINGS.items():
            if options.only not in name:
                continue
            where = f"--overall.model_name {temporary}/model --logger.json.root {temporary}/runs"
            where += f" --logger.name run --overall.cache_dir {temporary}/cache"
            chosen = dict(zip(*[iter(f"{SHORT} {where} {words}".split())] * 2))
            flat = [word for pair in chosen.items() for word in pair]
            done = subprocess.run(
                [sys.executable, __file__, "--run", *flat], capture_output=True, text=True, cwd=REPO
            )
            if done.returncode:
                print(f"| {name} | failed: {done.stderr.strip().splitlines()[-1:]} | | |", flush=True)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            ratio = found["planned"] / found["measured"]
            print(
                f"| {name} | {found['planned']:,.0f} | {found['measured']:,.0f} | {ratio:.2f} |", flush=True
            )
            shown = {axis: round(size / 2**20) for axis, size in found["parts"].items() if size}
            print(f"  {shown}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
