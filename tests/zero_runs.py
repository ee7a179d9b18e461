"""Do several runs of unlearn_model.py one after the other, in each process of a launcher, and write down what
trained the model: PLAN.RANK.json, one record a run.

python tests/zero_runs.py runs.json
"""

import json
import os
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS))

from scripts import run_script  # noqa: E402


def watch(found: list[dict]) -> None:
    """Add a record of each training at its first step."""
    from unlearnkit.unlearn.step.trainer import UnlearnTrainer

    log, loss, dtypes = UnlearnTrainer.log, UnlearnTrainer._loss, set()

    def loss_and_look(self, model, *args, **options):
        block = next(m for name, m in self.model.named_modules() if name.endswith("layers.0.mlp"))
        handle = block.register_forward_hook(lambda module, given, found: dtypes.add(str(found.dtype)))
        try:
            return loss(self, model, *args, **options)
        finally:
            handle.remove()

    def log_and_look(self, logs, start_time=None):
        log(self, logs, start_time)
        seen = sorted(dtypes)
        dtypes.clear()
        if self.state.global_step == 1 and self.zero:
            engine, weights = self.zero.deepspeed, list(self.model.parameters())
            found.append(
                {
                    "engine": type(engine).__name__,
                    "dtypes": seen,
                    "stage": engine.zero_optimization_stage(),
                    "parts": [hasattr(w, "ds_id") and w.numel() == 0 < w.ds_shape.numel() for w in weights],
                    "offloaded": bool(getattr(engine.optimizer, "cpu_offload", False))
                    or bool(getattr(engine.optimizer, "offload_optimizer", False)),
                }
            )

    UnlearnTrainer.log, UnlearnTrainer._loss = log_and_look, loss_and_look


if __name__ == "__main__":
    plan, found = Path(sys.argv[1]), []
    watch(found)
    for words in json.loads(plan.read_text()):
        done = run_script("unlearn_model", *words)
        if done.returncode:
            print(f"{words} ended with {done.returncode}:\n{done.stderr}", file=sys.stderr)
            sys.exit(done.returncode)
    plan.with_suffix(f".{os.environ['RANK']}.json").write_text(json.dumps(found))
