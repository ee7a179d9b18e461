"""GAO's step: streaming against K kept gradients, against the released recipe, scope window against sample;
the combiners' overhead.

    OMP_NUM_THREADS=2 python benchmarks/gao.py
    python benchmarks/gao.py --device cuda --dtype bfloat16 --hidden 2048 --intermediate 6144 --layers 28 \\
        --heads 16 --vocabulary 151936

All on one random Llama, the same batches and weights; a step is NPO + FT + the agreed gradient + AdamW.
"stacked" keeps the K gradients of a row and combines them at the end. "released" is the recipe of the
released code written down without this library: every paraphrase padded to 512 tokens that all count, K
gradients kept by name for each row and stacked, a frozen second model asked in every step. Peak memory is the
resident peak of one agreed gradient beyond what was there before (weights, and a first backward's leavings),
activations included, each in a process of its own; on a GPU what CUDA says.
"""

import argparse
import contextlib
import copy
import gc
import statistics
import subprocess
import sys
from pathlib import Path

if "unlearnkit" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "exec"))
    import checkout  # noqa: F401

import torch
from shapes import clock, make_model, resident_mb, shaped

from unlearnkit.core.likelihood import row_nll
from unlearnkit.unlearn import (
    compose,
    parse_method,
)
from unlearnkit.unlearn.base import Step
from unlearnkit.unlearn.gradients import COMBINERS, diagnosis
from unlearnkit.unlearn.objectives.gao import GAO, _by_row
from unlearnkit.unlearn.scoring import answer_nll, logits

TAU, K, RHO, BETA, LR = 0.1, 6, 0.5, 0.1, 1e-5
PROMPT, ANSWER, PADDED = 24, 40, 512
"""Tokens of a question, of an answer at most, and of a row in the released code."""


def make_batch(options, number: int) -> dict:
    generator = torch.Generator().manual_seed(number)

    def part(rows: int) -> dict:
        ids = torch.randint(3, options.vocabulary, (rows, PROMPT + ANSWER), generator=generator)
        lengths = torch.randint(PROMPT + ANSWER // 2, PROMPT + ANSWER + 1, (rows, 1), generator=generator)
        places = torch.arange(PROMPT + ANSWER)
        mask = (places < lengths).long()
        labels = torch.where((mask == 1) & (places >= PROMPT), ids, -100)
        return {
            "input_ids": ids * mask,
            "attention_mask": mask,
            "labels": labels,
            "index": torch.arange(rows),
        }

    batch = {
        "forget": part(options.batch),
        "retain": part(options.batch),
        "paraphrases": part(K * options.batch),
    }
    batch["paraphrases"]["owner"] = torch.arange(options.batch).repeat_interleave(K)
    return {
        name: {key: value.to(options.device) for key, value in values.items()}
        for name, values in batch.items()
    }


class Numbers:
    """Log-probabilities of the initial model that were looked up: the reference of NPO."""

    def __init__(self, model, batches):
        with torch.no_grad():
            self.known = {
                id(batch["forget"]): -row_nll(logits(model, batch["forget"]), batch["forget"]["labels"])
                for batch in batches
            }

    def logprob(self, name, part):
        return self.known[id(part)]


def step_of(model, batch) -> Step:
    return Step(
        model,
        [batch],
        list(model.parameters()),
        len(batch["forget"]["labels"]),
        contextlib.nullcontext,
        lambda value: value,
    )


def streaming(model, batch, scope="sample") -> list:
    """The agreed gradient by the objective of this library."""
    return GAO(tau=TAU, K=K, rho=RHO, scope=scope).extra_gradient(step_of(model, batch)).vector


def stacked(model, batch) -> list:
    """The same with the K gradients of a row kept."""
    weights = list(model.parameters())
    found = [torch.zeros_like(w, dtype=torch.float32) for w in weights]
    for texts in _by_row(step_of(model, batch)):
        gradients = [torch.autograd.grad(answer_nll(model, text).mean(), weights) for text in texts]
        for total, *several in zip(found, *gradients):
            g = torch.stack(several).float()
            total += torch.where(g.sign().mean(0).abs() > TAU, g.mean(0), 0.0).clamp_(-1, 1)
    return [v.mul_(-RHO / len(batch["forget"]["labels"])) for v in found]


def released(model, batch) -> list:
    """As the released code has it: rows padded to 512 tokens that all count, K dicts of gradients at once,
    stacked by name."""
    v_rows = []
    part, rows = batch["paraphrases"], len(batch["forget"]["labels"])
    for row in range(rows):
        dicts = []
        for line in (part["owner"] == row).nonzero()[:, 0].tolist():
            pad = (0, PADDED - part["labels"].shape[1])
            ids = torch.nn.functional.pad(part["input_ids"][line : line + 1], pad)
            attention = torch.nn.functional.pad(part["attention_mask"][line : line + 1], pad)
            loss = model(input_ids=ids, attention_mask=attention, labels=ids).loss
            dicts.append(
                dict(
                    zip(
                        (name for name, _ in model.named_parameters()),
                        torch.autograd.grad(loss, list(model.parameters())),
                    )
                )
            )
        v = {}
        for name in dicts[0]:
            g = torch.stack([d[name] for d in dicts])
            v[name] = torch.clamp((g.sign().mean(0).abs() > TAU) * g.mean(0), -1, 1)
        v_rows.append(v)
    mean = {name: torch.stack([v[name] for v in v_rows]).mean(0) for name in v_rows[0]}
    return [-RHO * mean[name] for name, _ in model.named_parameters()]


class Trainer:
    """Steps of NPO + FT + an agreed gradient, with AdamW."""

    def __init__(self, options, agreed, batches, frozen: bool = False):
        self.model, self.agreed = make_model(options).train(), agreed
        self.frozen = copy.deepcopy(self.model).eval() if frozen else None
        self.numbers = Numbers(self.model, batches)
        parsed = parse_method("NPO+FT")
        knobs = {"unlearn.NPO": {"beta": BETA}}
        self.composition = compose(
            parsed, {s: kind(**knobs.get(s, {})) for s, kind in parsed.sections.items()}
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR)

    def reference(self, batch):
        return self.numbers if self.frozen is None else Numbers(self.frozen, [batch])

    def step(self, batch) -> None:
        counts = self.composition.counts(batch)
        terms = self.composition.terms(self.model, batch, self.reference(batch))
        sum(t.weight * t.term.total / counts[t.term.part][t.term.over] for t in terms.values()).backward()
        for weight, vector in zip(self.model.parameters(), self.agreed(self.model, batch)):
            weight.grad += vector.to(weight.dtype)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Combining(Trainer):
    """Steps of NPO + FT with a combiner: one backward for each side, as the library's trainer takes them;
    `sum` is one backward."""

    def __init__(self, options, name, batches):
        super().__init__(options, None, batches)
        self.rule, self.state = None if name == "sum" else COMBINERS[name](), {}

    def step(self, batch) -> None:
        counts, weights = self.composition.counts(batch), list(self.model.parameters())
        terms = lambda side: self.composition.terms(self.model, batch, self.numbers, side).values()
        loss = lambda side: sum(
            t.weight * t.term.total / counts[t.term.part][t.term.over] for t in terms(side)
        )
        if self.rule is None:
            loss(None).backward()
        else:
            sides = [
                [g.float() for g in torch.autograd.grad(loss(side), weights)] for side in ("forget", "retain")
            ]
            found = self.rule.combine(*([g / 1.0 for g in side] for side in sides), 1.0, 1.0, self.state)
            diagnosis(*sides, found)  # the trainer logs it in every step
            for weight, direction in zip(weights, found):
                weight.grad = direction.to(weight.dtype)
        self.optimizer.step()
        self.optimizer.zero_grad()


def seconds(trainers: dict, batches, options, rounds: int) -> dict[str, float]:
    """Median seconds of a step of each, taken in turns after one that does not count."""
    times = {name: [] for name in trainers}
    for number in range(rounds + 1):
        for name, trainer in trainers.items():
            start = clock(options)
            trainer.step(batches[number % len(batches)])
            times[name].append(clock(options) - start)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


WAYS = {
    "streaming": streaming,
    "stacked": stacked,
    "window": lambda model, batch: streaming(model, batch, "window"),
    "released": released,
}


def alone(options) -> None:
    """Megabytes that one agreed gradient takes beyond what was there, in a process of its own."""
    model, batch = make_model(options).train(), make_batch(options, 0)
    answer_nll(model, {key: value[:1] for key, value in batch["forget"].items()}).mean().backward()
    model.zero_grad()
    gc.collect()
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        WAYS[options.alone](model, batch)
        print((torch.cuda.max_memory_allocated() - before) / 2**20)
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before = resident_mb("VmRSS")
    WAYS[options.alone](model, batch)
    print(resident_mb("VmHWM") - before)


def compare(options) -> None:
    batches = [make_batch(options, number) for number in range(3)]
    model = make_model(options).train()
    size = sum(p.numel() for p in model.parameters())
    print(
        f"{options.device}, {options.dtype}, {torch.get_num_threads()} threads; {size / 1e6:.1f} million"
        f" weights, one gradient {size * model.lm_head.weight.element_size() / 2**20:.0f} MB; {options.batch}"
        f" rows a step, K {K}, tau {TAU}, {PROMPT} + up to {ANSWER} tokens"
    )
    ours, theirs = streaming(model, batches[0]), stacked(model, batches[0])
    largest = max((a - b).abs().max().item() for a, b in zip(ours, theirs))
    differ = sum(int(((a == 0) != (b == 0)).sum()) for a, b in zip(ours, theirs)) / size
    print(
        f"streaming and stacked: largest difference {largest:.2e}, largest value"
        f" {max(v.abs().max().item() for v in theirs):.2e}; masks differ on {differ:.1e} of the weights"
    )
    del ours, theirs, model
    trainers = {name: Trainer(options, way, batches, name == "released") for name, way in WAYS.items()}
    took = seconds(trainers, batches, options, options.rounds)
    del trainers
    print("step: " + ", ".join(f"{name} {value:.3f} s" for name, value in took.items()))
    pairs = (
        ("stacked", "streaming"),
        ("released", "streaming"),
        ("streaming", "window"),
        ("released", "window"),
    )
    print(", ".join(f"{a} / {b} {took[a] / took[b]:.2f}" for a, b in pairs))
    words = [sys.executable, __file__, *sys.argv[1:], "--alone"]
    memory = {
        name: float(subprocess.run([*words, name], capture_output=True, text=True, check=True).stdout)
        for name in WAYS
    }
    print(
        "peak memory of an agreed gradient: "
        + ", ".join(f"{name} {value:.0f} MB" for name, value in memory.items())
        + f"; streaming / stacked {memory['streaming'] / memory['stacked']:.2f}"
    )
    took = seconds(
        {name: Combining(options, name, batches) for name in COMBINERS}, batches, options, 2 * options.rounds
    )
    told = ", ".join(f"{name} {value / took['sum']:.2f}" for name, value in took.items())
    print(f"NPO+FT step with a combiner, times that of sum ({took['sum']:.3f} s): {told}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shaped(parser, layers=8, hidden=512, intermediate=1376, heads=8, vocabulary=8192, batch=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", choices=tuple(WAYS))
    options = parser.parse_args()
    (alone if options.alone else compare)(options)


if __name__ == "__main__":
    main()
