"""A step of ours against a step as OpenUnlearning takes it, both by transformers' Trainer, at three sizes.

    OMP_NUM_THREADS=1 python benchmarks/step.py                       1, 31 and 135 million weights
    OMP_NUM_THREADS=1 python benchmarks/step.py --sizes 31m --methods NPO+FT --steps 8
    python benchmarks/step.py --device cuda --dtype bfloat16 --sizes 1b 8b --steps 10

Plain is written down here in that toolkit's form: each side is a forward pass of its own over padded rows,
with the logits of every position; a frozen second model is asked in every step. Ours is the trainer and the
objectives of src/unlearn. Both see the same rows of the fictional world in the same order, with the same
fused AdamW; their losses are compared at every step. They take turns, `--rounds` times; a step counts as
processor time of this process (on a GPU the time until the device is done), from the end of the step before
to its own, the first left out. "1m" is the fictional target, the others are random Llamas: "135m" in the
shape of SmolLM2, "1b" and "8b" in those of Llama 3.
"""

import argparse
import copy
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

if "unlearnkit" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "exec"))
    import checkout  # noqa: F401

import torch
import torch.nn.functional as F
from shapes import LLAMA_1B, LLAMA_8B, SMOLLM2, clock
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

from unlearnkit.core.encoding import Template
from unlearnkit.core.generation import pad_id
from unlearnkit.core.likelihood import IGNORE
from unlearnkit.dataset import load_rows
from unlearnkit.dataset.collate import Collator
from unlearnkit.dataset.pairs import EpochSampler, Pairs
from unlearnkit.model.load.loading import load_tokenizer, train_only
from unlearnkit.model.reference import ReferenceOptions, make_reference
from unlearnkit.unlearn import compose, parse_method
from unlearnkit.unlearn.blocks import blocks
from unlearnkit.unlearn.objectives.representation import DIRECTION_SEED, unit_vector
from unlearnkit.unlearn.step.trainer import TrainingJob, UnlearnTrainer

REPO = Path(__file__).resolve().parents[1]
TARGET = REPO / "files/models/fictional/target"
SIZES = {
    "1m": None,
    "31m": {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "vocab_size": 5120,
    },
    "135m": SMOLLM2,
    "1b": LLAMA_1B,
    "8b": LLAMA_8B,
}
STEPS = {"1m": 30, "31m": 8, "135m": 4, "1b": 10, "8b": 6}
EQUAL = {"float32": 1e-3, "bfloat16": 0.05}
"""What two losses may differ by: in bf16 other kernels round otherwise."""
BETA, DELTA_BETA, LR, BATCH = 0.1, 2.5, 1e-5, 16
RMU_LAYER, RMU_COEFF = 2, 20.0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["1m", "31m", "135m"])
    parser.add_argument("--methods", nargs="+", choices=PLAIN, default=list(PLAIN))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=EQUAL, default="float32")
    parser.add_argument("--steps", type=int, help=f"steps of a turn {STEPS}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=BATCH, help="rows of a side [16]")
    options = parser.parse_args(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = load_tokenizer(str(TARGET))
    rows = encoded_rows(tokenizer)
    print("| weights | method | plain, s | ours, s | plain / ours | largest difference of a loss |")
    print("|---|---|---|---|---|---|", flush=True)
    for size in options.sizes:
        steps = options.steps or STEPS[size]
        for method in options.methods:
            compare(size, method, rows, tokenizer, steps, options)


def encoded_rows(tokenizer) -> dict[str, list]:
    template = Template(tokenizer)
    return {
        part: [template.encode(row) for row in load_rows(f"Fictional_{name}", None)]
        for part, name in (("forget", "forget10"), ("retain", "retain90"))
    }


def make_model(size: str, options):
    torch.manual_seed(0)
    shape, dtype = SIZES[size], getattr(torch, options.dtype)
    if shape is None:
        return AutoModelForCausalLM.from_pretrained(TARGET, dtype=dtype).to(options.device)
    with torch.device(options.device):
        return LlamaForCausalLM._from_config(LlamaConfig(**shape), dtype=dtype)


def compare(size: str, method: str, rows, tokenizer, steps: int, options) -> None:
    """Run both in turns and print the line of a table."""
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    losses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=options.batch,
            learning_rate=LR,
            lr_scheduler_type="constant",
            use_cpu=options.device == "cpu",
            remove_unused_columns=False,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        for _ in range(options.rounds):
            for name, make in (("plain", plain_trainer), ("ours", our_trainer)):
                ends = StepClock(options)
                trainer = make(make_model(size, options), method, rows, tokenizer, arguments)
                trainer.add_callback(ends)
                trainer.remove_callback(PrinterCallback)
                trainer.train()
                seconds[name].append(statistics.median(ends.seconds()))
                losses[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
                # The next one needs the room; a Trainer and its accelerator hold each other.
                del trainer
                gc.collect()
                torch.cuda.empty_cache()
    assert len(losses["plain"]) == len(losses["ours"]) == steps
    apart = max(abs(a - b) / max(1.0, abs(a)) for a, b in zip(losses["plain"], losses["ours"]))
    ratio = statistics.median(p / o for p, o in zip(seconds["plain"], seconds["ours"]))
    plain, ours = (statistics.median(seconds[name]) for name in ("plain", "ours"))
    print(f"| {size} | {method} | {plain:.3f} | {ours:.3f} | {ratio:.2f} | {apart:.0e} |", flush=True)
    assert apart < EQUAL[options.dtype], f"the losses differ: {losses}"


class StepClock(TrainerCallback):
    """Processor time at the end of every step; on a GPU the time when it is done."""

    def __init__(self, options):
        self.options, self.ends = options, []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.process_time() if self.options.device == "cpu" else clock(self.options))

    def seconds(self) -> list[float]:
        return [after - before for before, after in zip(self.ends, self.ends[1:])]


def data(rows, tokenizer) -> tuple[Pairs, EpochSampler, Collator]:
    pairs = Pairs(rows, 0)
    return pairs, EpochSampler(pairs, 0), Collator(pad_id(tokenizer))


def our_trainer(model, method: str, rows, tokenizer, arguments: TrainingArguments) -> Trainer:
    parsed = parse_method(method)
    knobs = {
        "unlearn.NPO": {"beta": BETA},
        "unlearn.SimNPO": {"beta": DELTA_BETA},
        "unlearn.RMU": {"layer": RMU_LAYER, "steering_coeff": RMU_COEFF, "direction": "uniform"},
    }
    composition = compose(
        parsed, {section: kind(**knobs.get(section, {})) for section, kind in parsed.sections.items()}
    )
    # The logits and states of rows that come again are kept; within a turn each row comes once.
    options = ReferenceOptions(Path(arguments.output_dir) / "cache", 16384, budget=10**9)
    reference = make_reference(model, tokenizer, composition, rows, options)
    train_only(model, composition.trained(model))
    pairs, sampler, collate = data(rows, tokenizer)
    return UnlearnTrainer(model, arguments, TrainingJob(pairs, sampler, collate, composition, reference))


def plain_trainer(model, method: str, rows, tokenizer, arguments: TrainingArguments) -> Trainer:
    pairs, sampler, collate = data(rows, tokenizer)
    frozen = copy.deepcopy(model).eval() if method in ASKS_FROZEN else None
    trainer = PlainTrainer(model, arguments, train_dataset=pairs, data_collator=collate)
    trainer.sampler, trainer.frozen, trainer.loss_of = sampler, frozen, PLAIN[method]
    if method == "RMU":
        trained = {f"model.layers.{n}.mlp.down_proj.weight" for n in range(RMU_LAYER - 2, RMU_LAYER + 1)}
        train_only(model, trained)
    return trainer


class PlainTrainer(Trainer):
    sampler: EpochSampler
    frozen: torch.nn.Module | None
    loss_of: Callable

    def _get_train_sampler(self, train_dataset=None):
        return self.sampler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return self.loss_of(model, self.frozen, inputs["forget"], inputs["retain"])


def run(model, part):
    """A whole pass: logits of every position, and the loss that transformers makes of them."""
    names = ("input_ids", "attention_mask", "labels")
    return model(**{name: part[name] for name in names})


def row_nll(model, part) -> Tensor:
    """Summed NLL of each row."""
    logits, labels = run(model, part).logits[:, :-1], part["labels"][:, 1:]
    nll = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")
    return nll.sum(-1)


def npo_ft(model, frozen, forget, retain) -> Tensor:
    with torch.no_grad():
        before = row_nll(frozen, forget)
    loss = -F.logsigmoid(BETA * (row_nll(model, forget) - before)).mean() * 2 / BETA
    return loss + run(model, retain).loss


def simnpo_ft(model, frozen, forget, retain) -> Tensor:
    mean = row_nll(model, forget) / (forget["labels"][:, 1:] != IGNORE).sum(-1)
    return -F.logsigmoid(DELTA_BETA * mean).mean() * 2 / DELTA_BETA + run(model, retain).loss


def ga_kl(model, frozen, forget, retain) -> Tensor:
    with torch.no_grad():
        before = run(frozen, retain).logits[:, :-1].log_softmax(-1)
    ours = run(model, retain).logits[:, :-1].log_softmax(-1)
    answers = retain["labels"][:, 1:] != IGNORE
    kl = F.kl_div(ours, before, reduction="none", log_target=True).sum(-1)
    return kl[answers].mean() - run(model, forget).loss


def rmu(model, frozen, forget, retain) -> Tensor:
    target = RMU_COEFF * unit_vector("uniform", model.config.hidden_size, DIRECTION_SEED).to(model.device)
    with torch.no_grad():
        before = states(frozen, retain)
    away = masked_mean((states(model, forget) - target) ** 2, forget)
    return away + masked_mean((states(model, retain) - before) ** 2, retain)


def states(model, part) -> Tensor:
    """Output of one block, from a pass through all of them."""
    caught = []
    keep = lambda _, __, out: caught.append(out[0] if isinstance(out, tuple) else out)
    handle = blocks(model)[RMU_LAYER].register_forward_hook(keep)
    run(model, part)
    handle.remove()
    return caught[0]


def masked_mean(errors: Tensor, part) -> Tensor:
    return errors.mean(-1)[part["attention_mask"].bool()].mean()


PLAIN = {"NPO+FT": npo_ft, "SimNPO+FT": simnpo_ft, "GA+KL": ga_kl, "RMU": rmu}
ASKS_FROZEN = ("NPO+FT", "GA+KL", "RMU")


if __name__ == "__main__":
    main()
