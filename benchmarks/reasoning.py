"""R2MU's step against a plain implementation of the released recipe, on a random Llama of 32 blocks hooked at
block 7.

    OMP_NUM_THREADS=2 python benchmarks/reasoning.py            the steady state and the whole run
    python benchmarks/reasoning.py --device cuda --dtype bfloat16 --hidden 4096 --intermediate 14336 \\
        --heads 32 --vocabulary 128256

Plain: two whole models, twelve forwards through all blocks per step (four that carry the loss, two of the
frozen model, six that the released code runs to log cosines), gradients for every parameter the loss reaches,
AdamW on three tensors. Ours: the objective of src/unlearn with the reference of src/model. Both see the same
batches. The rows come again after `--distinct` steps, as in a run of several epochs; `--distinct` as large as
`--steps` is a run in which no row comes twice.
"""

import argparse
import copy
import statistics
import subprocess
import sys
from pathlib import Path

if "unlearnkit" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "exec"))
    import checkout  # noqa: F401

import torch
from shapes import clock, make_model, resident_mb, shaped

from unlearnkit.model.load.loading import reference_model, train_only
from unlearnkit.model.reference import ReferenceModel
from unlearnkit.unlearn import (
    compose,
    parse_method,
)
from unlearnkit.unlearn.blocks import blocks
from unlearnkit.unlearn.objectives.representation import R2MU, unit_vector

LAYER, COEFF, GAMMA, LR = 7, 6.5, 1.4, 7.5e-5
LENGTHS = {"forget": 512, "retain": 512, "traces": 100, "cot": 150}
"""Tokens of the rows of each part in the published run."""


def make_batch(options, step: int) -> dict:
    """The batch of a step; the same again after `options.distinct` steps."""
    number = step % options.distinct
    generator = torch.Generator().manual_seed(number)
    batch = {}
    for part, length in LENGTHS.items():
        ids = torch.randint(
            options.vocabulary, (options.batch, max(8, int(length * options.scale))), generator=generator
        )
        batch[part] = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": ids,
            "index": torch.arange(number * options.batch, (number + 1) * options.batch),
        }
    return {
        part: {key: value.to(options.device) for key, value in values.items()}
        for part, values in batch.items()
    }


class Plain:
    """The released recipe, written down without our library; with or without the forwards that it runs to log
    cosines."""

    def __init__(self, options, logs: bool = True):
        self.logs = logs
        self.model = make_model(options)
        self.frozen = copy.deepcopy(self.model)
        tuned = [
            self.model.get_parameter(f"model.layers.{n}.mlp.down_proj.weight")
            for n in range(LAYER - 2, LAYER + 1)
        ]
        self.optimizer = torch.optim.AdamW(tuned, lr=LR)
        self.target = COEFF * unit_vector("uniform", options.hidden, 0).to(
            options.device, getattr(torch, options.dtype)
        )

    def states(self, model, part):
        caught = []
        keep = lambda _, __, out: caught.append(out[0] if isinstance(out, tuple) else out)
        handle = blocks(model)[LAYER].register_forward_hook(keep)
        model(input_ids=part["input_ids"], attention_mask=part["attention_mask"])
        handle.remove()
        return caught[0]

    def step(self, batch) -> float:
        mse = torch.nn.functional.mse_loss
        ours = {name: self.states(self.model, batch[name]) for name in LENGTHS}
        with torch.no_grad():
            theirs = {name: self.states(self.frozen, batch[name]) for name in ("retain", "cot")}
        loss = (
            mse(ours["forget"], self.target.expand_as(ours["forget"]))
            + GAMMA * mse(ours["retain"], theirs["retain"])
            + mse(ours["traces"], self.target.expand_as(ours["traces"]))
            + mse(ours["cot"], theirs["cot"])
        )
        for name in ("forget", "retain", "traces") if self.logs else ():
            logged = [self.states(model, batch[name]) for model in (self.model, self.frozen)]
            torch.nn.functional.cosine_similarity(*logged, dim=-1).mean()
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()


class Ours:
    """The objective and the reference of this library."""

    def __init__(self, options):
        self.model = make_model(options).eval()
        objective = R2MU(layer=LAYER, steering_coeff=COEFF, direction="uniform")
        parsed = parse_method("R2MU")
        self.composition = compose(parsed, {"unlearn.R2MU": objective}, gamma=GAMMA)
        train_only(self.model, self.composition.trained(self.model))
        self.reference = ReferenceModel(
            {}, *reference_model(self.model, LAYER), budget=int(options.cache_gb * 1e9)
        )
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=LR)

    def step(self, batch) -> float:
        counts = self.composition.counts(batch)
        terms = self.composition.terms(self.model, batch, self.reference)
        loss = sum(t.weight * t.term.total / counts[t.term.part][t.term.over] for t in terms.values())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def timed(trainer, options, steps: range) -> tuple[list[float], list[float]]:
    """Seconds and losses of each step."""
    seconds, losses = [], []
    for step in steps:
        batch = make_batch(options, step)
        start = clock(options)
        losses.append(trainer.step(batch))
        seconds.append(clock(options) - start)
    return seconds, losses


def peak_mb(options) -> float:
    if options.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resident_mb("VmHWM")


def alone(options) -> None:
    """Peak memory of one way, in a process of its own: `name megabytes`."""
    base = peak_mb(options)
    timed(
        {"plain": Plain, "ours": Ours}[options.alone](options),
        options,
        range(3 if options.alone == "plain" else options.distinct + 1),
    )
    print(f"{base:.1f} {peak_mb(options):.1f}")


def compare(options) -> None:
    plain, ours = Plain(options), Ours(options)
    first, losses = timed(plain, options, range(options.plain_steps))
    building, same = timed(ours, options, range(options.distinct))
    again, _ = timed(ours, options, range(options.distinct, 2 * options.distinct))
    later, _ = timed(plain, options, range(options.plain_steps))
    plain.logs = False
    bare, _ = timed(plain, options, range(options.plain_steps))
    lengths = [max(8, int(length * options.scale)) for length in LENGTHS.values()]
    print(
        f"{options.device}, {options.dtype}, {torch.get_num_threads()} threads; {options.layers} blocks of"
        f" {options.hidden}, hooked at {LAYER}; batch {options.batch}; tokens {lengths}; losses of steps 1"
        f" and 2: plain {losses[0]:.6g}, {losses[1]:.6g}, ours {same[0]:.6g}, {same[1]:.6g}"
    )
    whole, quiet, build, late = (statistics.median(times) for times in (first + later, bare, building, again))
    run = sum(building) + max(0, options.steps - options.distinct) * late
    print(
        f"step: plain {whole:.3f} s ({quiet:.3f} s without logging), ours {build:.3f} s at a row's first"
        f" visit, {late:.3f} s after it"
    )
    print(
        f"times as fast as plain (as plain without logging): no row comes again {whole / build:.2f}"
        f" ({quiet / build:.2f}), steady state {whole / late:.2f} ({quiet / late:.2f}), {options.steps} steps"
        f" with rows again after {options.distinct} {options.steps * whole / run:.2f}"
        f" ({options.steps * quiet / run:.2f})"
    )
    del plain, ours
    torch.cuda.empty_cache()  # what follows needs the room; without a GPU it does nothing
    words = [sys.executable, __file__, *sys.argv[1:], "--alone"]
    measure = lambda name: subprocess.run(
        [*words, name], capture_output=True, text=True, check=True
    ).stdout.split()
    memory = {name: list(map(float, measure(name))) for name in ("plain", "ours")}
    extra = {name: peak - base for name, (base, peak) in memory.items()}
    whole = {name: peak for name, (_, peak) in memory.items()}
    print(
        f"peak memory: plain {whole['plain']:.0f} MB, ours {whole['ours']:.0f} MB"
        f" ({whole['ours'] / whole['plain']:.2f}); beyond the bare interpreter {extra['plain']:.0f} and"
        f" {extra['ours']:.0f} MB ({extra['ours'] / extra['plain']:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shaped(parser, layers=32, hidden=256, intermediate=688, heads=4, vocabulary=4096, batch=4)
    parser.add_argument("--scale", type=float, default=0.25, help="of the published lengths")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--distinct", type=int, default=50, help="steps after which rows come again")
    parser.add_argument("--plain-steps", type=int, default=8)
    parser.add_argument("--cache-gb", type=float, default=8.0)
    parser.add_argument("--alone", choices=("plain", "ours"))
    options = parser.parse_args()
    (alone if options.alone else compare)(options)


if __name__ == "__main__":
    main()
