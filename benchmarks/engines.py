"""Memory of a run by engine: the weights that a process holds, and the peak of the first process.

    OMP_NUM_THREADS=1 python benchmarks/engines.py [--processes 2]

The same NPO+FT run of three steps on a random Llama (by default of SmolLM2-135M's widths and depth): one
process, DDP, FSDP2, and DeepSpeed's ZeRO-2 and ZeRO-3 where it is installed. The peak is resident memory
above that of the same run on the fictional model of one million weights, which is nearly all libraries.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from shapes import make_model, shaped
from transformers import AutoTokenizer

REPO = Path(__file__).resolve().parents[1]
FICTIONAL = REPO / "files/models/fictional/target"
RUN = (
    "--unlearn.unlearn_method NPO+FT --unlearn.max_steps 3 --evaluate.before false"
    " --evaluate.metrics forget/prob --evaluate.rows 2 --dataset.forget_ratio 16"
    " --dataset.forget_dataset_name Fictional_forget10"
    " --overall.quiet true --logger.overwrite true"
).split()


def measured(model: Path, engine: str, processes: int, root: Path) -> dict[str, float]:
    """Weights of a process and peak memory of the first one, MB."""
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    launcher += "--rdzv_backend c10d --rdzv_endpoint 127.0.0.1:0 --local_addr 127.0.0.1".split()
    run = [*(launcher if processes > 1 else []), str(REPO / "src/exec/unlearn_model.py"), *RUN]
    place = ["--overall.model_name", str(model), "--overall.engine", engine, "--logger.json.root", str(root)]
    sizes = ["--dataset.batch_size", str(4 // processes), "--logger.name", engine]
    done = subprocess.run(
        [sys.executable, *run, *place, *sizes, "--overall.cache_dir", str(root / "cache")],
        cwd=REPO,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    facts = json.loads((root / engine / "environment.json").read_text())
    return {"weights": facts["training"]["weight_mb_per_process"], "peak": facts["peak_memory_mb"]}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    options = shaped(parser, 30, 576, 1536, 9, 49152, 4).parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_model(options).save_pretrained(root / "model")
        AutoTokenizer.from_pretrained(FICTIONAL).save_pretrained(root / "model")
        engines = {"DDP": "ddp", "FSDP2": "fsdp2"}
        if importlib.util.find_spec("deepspeed"):
            engines |= {"ZeRO-2": "zero2", "ZeRO-3": "zero3"}
        several = [
            (f"{name}, {options.processes} processes", engine, options.processes)
            for name, engine in engines.items()
        ]
        for title, engine, processes in [("one process", "auto", 1), *several]:
            found = measured(root / "model", engine, processes, root)
            libraries = measured(FICTIONAL, engine, processes, root / "small")["peak"]
            print(
                f"{title}: weights {found['weights']:,.1f} MB in each process, peak"
                f" {found['peak'] - libraries:,.0f} MB above {libraries:,.0f} MB of libraries",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
