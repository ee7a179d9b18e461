"""What the reference costs: ours against a plain implementation, in one run, as ratios.

    .venv/bin/python benchmarks/objectives.py

Model and rows are the fictional world's; steps, batch and epochs those of configs/fictional/npo+ft.json.
"plain" is what the published code does: a second model in memory that is asked in every step. Both sides take
the same optimizer steps on the same batches; the losses are compared to six digits, so that only the time
differs. The two take turns, `ROUNDS` times.
"""

import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if "unlearnkit" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "exec"))
    import checkout  # noqa: F401

import torch
from transformers import AutoModelForCausalLM

from unlearnkit.core.encoding import Template
from unlearnkit.core.generation import pad_id
from unlearnkit.core.likelihood import row_nll, token_kl, token_nll
from unlearnkit.dataset import load_rows
from unlearnkit.dataset.collate import Collator
from unlearnkit.dataset.pairs import EpochSampler, Pairs
from unlearnkit.model.load.loading import load_tokenizer
from unlearnkit.model.reference import make_reference
from unlearnkit.unlearn import (
    compose,
    parse_method,
)
from unlearnkit.unlearn.scoring import answer_logits, logits

REPO = Path(__file__).resolve().parents[1]

ROUNDS = 3
TARGET = REPO / "files/models/fictional/target"
CONFIG = json.loads((REPO / "configs/fictional/npo+ft.json").read_text())
EPOCHS, BATCH, BETA, LR = (
    CONFIG["unlearn"]["num_epochs"],
    CONFIG["dataset"]["batch_size"],
    CONFIG["unlearn"]["NPO"]["beta"],
    1e-4,
)
CACHE_BYTES = 10**9


def main() -> None:
    tokenizer = load_tokenizer(str(TARGET))
    template = Template(tokenizer)
    rows = {
        part: [template.encode(row) for row in load_rows(f"Fictional_{name}", None)]
        for part, name in (("forget", "forget10"), ("retain", "retain90"))
    }
    batches = shipped_batches(rows, pad_id(tokenizer))
    print(
        f"{len(batches)} steps of {BATCH} forget and {BATCH} retain rows, {torch.get_num_threads()} threads, "
        f"{weight_bytes(load()) / 1e6:.1f} MB of weights\n"
    )
    for title, plain, method in (("NPO+FT", PlainNPO, "NPO+FT"), ("GA+KL", PlainKL, "GA+KL")):
        compare(title, plain, lambda model, method=method: Ours(method, model, tokenizer, rows), batches)
    for method in ("SimNPO+FT", "WGA+FT", "SatImp+FT"):
        ours = Ours(method, load(), tokenizer, rows)
        print(
            f"{method}: weights in memory"
            f" {weight_bytes(ours.model, ours.second_model()) / weight_bytes(ours.model):.2f} x the model's"
        )


def shipped_batches(rows: dict, pad: int) -> list[dict]:
    """The batches of the shipped run, in its order."""
    pairs, batches = Pairs(rows, 0), []
    sampler = EpochSampler(pairs, 0)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        addresses = list(sampler)
        batches += [
            Collator(pad)([pairs[a] for a in addresses[i : i + BATCH]])
            for i in range(0, len(addresses), BATCH)
        ]
    return batches


def load():
    return AutoModelForCausalLM.from_pretrained(TARGET, dtype=torch.float32)


class PlainNPO:
    """A frozen second model, asked for the forget rows in every step."""

    def __init__(self, model):
        self.model, self.frozen = model, copy.deepcopy(model).eval()

    def loss(self, batch):
        forget, retain = batch["forget"], batch["retain"]
        with torch.no_grad():
            before = -row_nll(logits(self.frozen, forget), forget["labels"])
        ratio = -row_nll(logits(self.model, forget), forget["labels"]) - before
        npo = -torch.nn.functional.logsigmoid(-BETA * ratio).mean() * 2 / BETA
        return npo + token_nll(logits(self.model, retain), retain["labels"]).mean()

    def second_model(self):
        return self.frozen


class PlainKL(PlainNPO):
    """The same for KL on the retain rows."""

    def loss(self, batch):
        forget, retain = batch["forget"], batch["retain"]
        with torch.no_grad():
            before = answer_logits(self.frozen, retain)
        kl = token_kl(before, answer_logits(self.model, retain)).mean()
        return kl - token_nll(logits(self.model, forget), forget["labels"]).mean()


class Ours:
    """The objective as the trainer uses it; the reference is built here and counts."""

    def __init__(self, method: str, model, tokenizer, rows):
        parsed = parse_method(method)
        knobs = {"unlearn.NPO": {"beta": BETA}}
        self.composition = compose(
            parsed, {section: kind(**knobs.get(section, {})) for section, kind in parsed.sections.items()}
        )
        self.model, self.folder = model, tempfile.TemporaryDirectory()
        self.reference = make_reference(
            model, tokenizer, self.composition, rows, Path(self.folder.name), 16384, budget=CACHE_BYTES
        )

    def loss(self, batch):
        counts = self.composition.counts(batch)
        terms = self.composition.terms(self.model, batch, self.reference)
        return sum(t.weight * t.term.total / counts[t.term.part][t.term.over] for t in terms.values())

    def second_model(self):
        return self.reference.model if self.reference else None


def compare(title: str, plain: Callable, ours: Callable, batches: list[dict]) -> None:
    """Time both over all batches, building included, in turns; print the ratios."""
    whole, steady, losses = {"plain": [], "ours": []}, {"plain": [], "ours": []}, {}
    for _ in range(ROUNDS):
        for name, make in (("plain", plain), ("ours", ours)):
            model = load()
            start = time.perf_counter()
            side = make(model)
            built = time.perf_counter()
            losses[name], half = train(side, batches)
            whole[name].append(time.perf_counter() - start)
            steady[name].append(time.perf_counter() - half)
            print(f"  {title} {name}: building {built - start:.2f} s, all {whole[name][-1]:.2f} s")
            memory = weight_bytes(side.model, side.second_model()) / weight_bytes(model)
            print(
                f"    weights in memory {memory:.2f} x the model's"
                + (
                    f", logits kept {side.reference.start_answers.bytes / 1e6:.1f} MB"
                    if name == "ours"
                    else ""
                )
            )
    assert all(
        abs(a - b) <= 1e-4 * max(1, abs(a)) for a, b in zip(losses["plain"][:20], losses["ours"][:20])
    ), "the losses differ"
    ratio = lambda times: statistics.median(o / p for o, p in zip(times["ours"], times["plain"]))
    print(
        f"{title}: ours / plain {ratio(whole):.3f} of the time over {len(batches)} steps with building, "
        f"{ratio(steady):.3f} over the second half of them\n"
    )


def train(side, batches: list[dict]) -> tuple[list[float], float]:
    """Losses of all steps, and the time at which the second half began."""
    optimizer, losses, half = torch.optim.AdamW(side.model.parameters(), lr=LR), [], 0.0
    side.model.train()
    for number, batch in enumerate(batches):
        if number == len(batches) // 2:
            half = time.perf_counter()
        loss = side.loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, half


def weight_bytes(*models) -> int:
    """Bytes of the weights of all models, shared ones once."""
    kept = {
        p.data_ptr(): p.numel() * p.element_size()
        for model in models
        if model is not None
        for p in model.parameters()
    }
    return sum(kept.values())


if __name__ == "__main__":
    main()
