"""The evaluation engine against a plain one, in which each metric makes its own passes.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py                                the fictional target (1M)
    OMP_NUM_THREADS=1 python benchmarks/evaluation.py --model random                 a random Llama (31M)
    OMP_NUM_THREADS=1 python benchmarks/evaluation.py --model files/models/smollm2-135m-instruct --rows 40
    python benchmarks/evaluation.py --model llama-8b --rows 40 --device cuda --dtype bfloat16

Plain is the form of OpenUnlearning's evaluation (d3d7cf9, src/evals/metrics) written down here: batches of 8
in the order of the data, padded on the right; every metric runs the model over its rows again, once for each
wrong answer and twice for Min-K++; the head runs on all positions, and the loss of each row is taken from the
whole tensor of logits; answers are generated in batches of 8, padded on the left. What that toolkit computes
once and shares (the probabilities that the truth ratio reads) is shared here too. Metrics: Prob, ROUGE and
truth ratio of four sets, exact memorisation, extraction strength, the paraphrased answer, and the attacks
LOSS, zlib, Min-K and Min-K++; neither side makes intervals.

Each side runs in a process of its own, in turns, after a few rows that are not timed; their values are
compared. Peak memory is that of the process, on a GPU what CUDA says.
"""

import argparse
import json
import statistics
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

if "unlearnkit" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "exec"))
    import checkout  # noqa: F401

import accelerate.utils  # noqa: F401  loaded in every run: not part of what a side takes
import torch
from shapes import clock, resident_mb
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from unlearnkit.core.encoding import Template
from unlearnkit.dataset import ForgetSet, load_evaluation, load_rows
from unlearnkit.metrics.measure import MeasureOptions, measure
from unlearnkit.metrics.rouge import rougeL
from unlearnkit.metrics.runner import EvalOptions, EvalRunner
from unlearnkit.metrics.spec import CPU_SCORE_TOKENS, select

REPO = Path(__file__).resolve().parents[1]
FICTIONAL = REPO / "files" / "models" / "fictional" / "target"
BATCH, MAX_LENGTH, BATCH_TOKENS = 8, 512, 16384
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
LIKELIHOODS = [
    *(f"{rows}/{name}" for rows in ("forget", "retain", "real", "world") for name in ("prob", "truth_ratio")),
    *(f"forget/{name}" for name in ("exact_memorization", "extraction_strength", "para_prob")),
    *(f"mia/{attack}/auc" for attack in ATTACKS),
]
TEXTS = [f"{rows}/rougeL" for rows in ("forget", "retain", "real", "world")]


def load(options):
    """Model, tokenizer and row sets."""
    tokenizer = AutoTokenizer.from_pretrained(FICTIONAL if options.model in SIZES else options.model)
    rows = load_rows("Fictional_forget10", None, {})
    sets = load_evaluation(ForgetSet("Fictional_forget10", None, rows, {}, None))
    sets = {name: table[: options.rows or None] for name, table in sets.items() if name in USED}
    if options.model in SIZES and SIZES[options.model]:
        torch.manual_seed(0)
        config = LlamaConfig(**{"vocab_size": len(tokenizer)} | SIZES[options.model])
        with torch.device(options.device):
            model = LlamaForCausalLM._from_config(config, dtype=getattr(torch, options.dtype))
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    else:
        name = FICTIONAL if options.model in SIZES else options.model
        model = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, options.dtype))
    return model.to(options.device).eval(), tokenizer, sets


SIZES = {
    "fictional": None,
    "random": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 9,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
    "llama-8b": {
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
USED = ("forget", "holdout", "retain", "real", "world")


class Plain:
    """Every metric with its own passes."""

    def __init__(self, model, tokenizer, sets: Mapping[str, list[dict]], max_new_tokens: int):
        self.model, self.template, self.sets = model, Template(tokenizer), sets
        self.tokenizer, self.max_new_tokens = tokenizer, max_new_tokens
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def batches(self, rows: str, field: str, place: int | None = None):
        """Batches of 8 rows in the order of the data, padded on the right: ids, labels, mask."""
        table = self.sets[rows]
        for start in range(0, len(table), BATCH):
            some = table[start : start + BATCH]
            texts = [row[field] if place is None else row[field][place] for row in some]
            encoded = [
                self.template.encode({"id": "", "question": row["question"], "answer": text}, MAX_LENGTH)
                for row, text in zip(some, texts)
            ]
            width = max(len(row.input_ids) for row in encoded)
            ids = torch.full((len(encoded), width), self.pad)
            labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
            for line, row in enumerate(encoded):
                length = len(row.input_ids)
                ids[line, :length] = torch.tensor(row.input_ids)
                labels[line, :length] = torch.tensor(row.labels)
                mask[line, :length] = 1
            yield ids.to(self.model.device), labels.to(self.model.device), mask.to(self.model.device)

    @torch.no_grad()
    def logits(self, ids, mask):
        return self.model(input_ids=ids, attention_mask=mask).logits

    def losses(self, rows: str, field: str = "answer", place: int | None = None) -> torch.Tensor:
        """Mean negative log-likelihood of each row, [N]."""
        found = []
        for ids, labels, mask in self.batches(rows, field, place):
            logits = self.logits(ids, mask)
            shifted, targets = logits[..., :-1, :].contiguous(), labels[..., 1:].contiguous()
            sums = cross_entropy(shifted.transpose(-1, -2), targets, ignore_index=-100, reduction="none").sum(
                -1
            )
            found.append(sums / (targets != -100).sum(-1))
        return torch.cat(found)

    def tokens(self, rows: str, of_tokens: Callable) -> list:
        """`of_tokens` of the logits [T, V] and labels [T] of each row's answer without its last token."""
        found = []
        for ids, labels, mask in self.batches(rows, "answer"):
            logits = self.logits(ids, mask)
            for line in range(len(ids)):
                places = (labels[line, 1:] != -100).nonzero()[:-1, 0]
                found.append(of_tokens(logits[line, :-1][places], labels[line, 1:][places]))
        return found

    def min_k_plus_plus(self, rows: str) -> list[float]:
        logps = self.tokens(rows, _token_logps)
        moments = self.tokens(rows, _moments)
        return [
            _lowest((logp - mean) / variance.clamp(min=1e-6).sqrt())
            for logp, (mean, variance) in zip(logps, moments)
        ]

    def attack(self, name: str, rows: str) -> list[float]:
        if name == "loss":
            return self.losses(rows).tolist()
        if name == "zlib":
            sizes = [len(zlib.compress(row["answer"].encode())) for row in self.sets[rows]]
            return [loss / size for loss, size in zip(self.losses(rows).tolist(), sizes)]
        if name == "min_k":
            return self.tokens(rows, lambda logits, labels: _lowest(_token_logps(logits, labels)))
        return self.min_k_plus_plus(rows)

    def likelihoods(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for rows in ("forget", "retain", "real", "world"):
            true = self.losses(rows)
            count = len(self.sets[rows][0]["perturbed_answer"])
            wrong = torch.stack([self.losses(rows, "perturbed_answer", place) for place in range(count)])
            if rows in ("forget", "retain"):
                right = self.losses(rows, "paraphrased_answer")
                found[f"{rows}/prob"] = (-true).exp().mean().item()
                if rows == "forget":
                    found["forget/para_prob"] = (-right).exp().mean().item()
            else:
                right, p = true, (-true).exp()
                found[f"{rows}/prob"] = (p / (p + (-wrong).exp().sum(0))).mean().item()
            ratio = (right - wrong.mean(0)).exp()
            closeness = torch.minimum(ratio, 1 / ratio) if rows == "forget" else (1 - ratio).clamp(min=0)
            found[f"{rows}/truth_ratio"] = closeness.mean().item()
        found["forget/exact_memorization"] = statistics.fmean(self.tokens("forget", _hits))
        found["forget/extraction_strength"] = statistics.fmean(self.tokens("forget", _extraction))
        for name in ATTACKS:
            seen, unseen = (self.attack(name, rows) for rows in ("forget", "holdout"))
            pairs = [(u > s) + (u == s) / 2 for s in seen for u in unseen]
            found[f"mia/{name}/auc"] = sum(pairs) / len(pairs)
        return found

    @torch.no_grad()
    def texts(self) -> dict[str, float]:
        found = {}
        for rows in ("forget", "retain", "real", "world"):
            scores = []
            table = self.sets[rows]
            for start in range(0, len(table), BATCH):
                some = table[start : start + BATCH]
                prompts = [self.template.prompt_ids(row["question"]) for row in some]
                width = max(map(len, prompts))
                ids = torch.tensor([[self.pad] * (width - len(p)) + p for p in prompts])
                mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
                written = self.model.generate(
                    input_ids=ids.to(self.model.device),
                    attention_mask=mask.to(self.model.device),
                    do_sample=False,
                    max_new_tokens=self.max_new_tokens,
                    pad_token_id=self.pad,
                    eos_token_id=[self.tokenizer.eos_token_id, *self.template.stop_ids],
                )
                for row, text in zip(some, written[:, width:]):
                    answer = self.tokenizer.decode(text, skip_special_tokens=True).strip()
                    scores.append(rougeL(row["answer"], answer).recall)
            found[f"{rows}/rougeL"] = statistics.fmean(scores)
        return found


def _token_logps(logits, labels):
    return logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]


def _moments(logits, _):
    every = logits.log_softmax(-1)
    mean = (every.exp() * every).sum(-1)
    return mean, (every.exp() * (every - mean[:, None]).square()).sum(-1)


def _lowest(values, share: float = 0.4) -> float:
    return -values.sort().values[: max(1, int(share * len(values)))].mean().item()


def _hits(logits, labels) -> float:
    return (logits.argmax(-1) == labels).float().mean().item()


def _extraction(logits, labels) -> float:
    misses = (logits.argmax(-1) != labels).nonzero()[:, 0]
    return 1.0 if not len(misses) else (len(labels) - 1 - misses[-1].item()) / len(labels)


class Ours:
    """The engine of src/metrics."""

    def __init__(self, model, tokenizer, sets, max_new_tokens: int):
        self.sets = sets
        scored = CPU_SCORE_TOKENS if model.device.type == "cpu" else BATCH_TOKENS
        limits = EvalOptions(MAX_LENGTH, max_new_tokens, BATCH_TOKENS, score_tokens=scored)
        self.runner = EvalRunner(model, Template(tokenizer), limits)

    def figures(self, keys: list[str]) -> dict[str, float]:
        values = measure(select(keys), self.sets, self.runner, MeasureOptions(bootstrap=0)).values
        return {key: values[key].value for key in keys}

    def likelihoods(self) -> dict[str, float]:
        return self.figures(LIKELIHOODS)

    def texts(self) -> dict[str, float]:
        return self.figures(TEXTS)


def run_side(options) -> dict:
    """Values of one side; seconds of each part, and its peak memory (MB) beyond what was resident before."""
    model, tokenizer, sets = load(options)
    make = {"plain": Plain, "ours": Ours}[options.side]
    few = make(model, tokenizer, {name: table[:2] for name, table in sets.items()}, 2)
    for part in options.parts:  # what is imported and compiled at the first call
        getattr(few, part)()
    side = make(model, tokenizer, sets, options.max_new_tokens)
    found, seconds, peaks = {}, {}, {}
    for part in options.parts:
        loaded, start = forget_peak(options), clock(options)
        found |= getattr(side, part)()
        seconds[part] = clock(options) - start
        peaks[part] = peak_mb(options) - loaded
    return {"values": found, "seconds": seconds, "peaks": peaks}


def forget_peak(options) -> float:
    """Let the peak of memory begin anew from what is in use now, which is returned (MB)."""
    if options.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    return resident_mb("VmRSS")


def peak_mb(options) -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if options.device == "cuda" else resident_mb("VmHWM")


def in_child(options, side: str) -> dict:
    words = [__file__, "--side", side, "--model", options.model, "--rows", str(options.rows)]
    words += ["--max_new_tokens", str(options.max_new_tokens), "--parts", *options.parts]
    words += ["--device", options.device, "--dtype", options.dtype]
    done = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="fictional", help="fictional, random, llama-8b, or the folder of a model"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rows", type=int, default=0, help="first rows of each set; 0 is all")
    parser.add_argument("--max_new_tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--parts", nargs="+", default=["likelihoods", "texts"])
    parser.add_argument("--side", choices=("plain", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run_side(options)))
        return
    runs = [{side: in_child(options, side) for side in ("plain", "ours")} for _ in range(options.rounds)]
    median = lambda side, kind, part: statistics.median(run[side][kind][part] for run in runs)
    for part in options.parts:
        times = [median(side, "seconds", part) for side in ("plain", "ours")]
        peaks = [median(side, "peaks", part) for side in ("plain", "ours")]
        print(
            f"{part}: plain {times[0]:.1f} s, ours {times[1]:.1f} s, ratio {times[0] / times[1]:.2f};"
            f" peak memory of it plain {peaks[0]:.0f} MB, ours {peaks[1]:.0f} MB"
        )
    totals = [sum(median(side, "seconds", part) for part in options.parts) for side in ("plain", "ours")]
    print(f"whole: plain {totals[0]:.1f} s, ours {totals[1]:.1f} s, ratio {totals[0] / totals[1]:.2f}")
    plain, ours = (runs[0][side]["values"] for side in ("plain", "ours"))
    key = max(plain, key=lambda name: abs(plain[name] - ours[name]))
    print(f"{len(plain)} values, largest difference {abs(plain[key] - ours[key]):.2g} ({key})")


if __name__ == "__main__":
    main()
