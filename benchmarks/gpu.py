"""What one GPU does with a model of 8 billion random weights, in eight minutes: one command, one table.

    python benchmarks/gpu.py --minutes 8                    on one H100 or H200
    python benchmarks/gpu.py --device cpu --dtype float32 --hidden 64 --intermediate 128 --layers 10 \\
        --heads 4 --kv-heads 2 --vocabulary 512 --minutes 0.3

R2MU's step (and what 500 of them take), a step of NPO+FT with all weights (AdamW with 8-bit state where
bitsandbytes is installed) and with LoRA, GAO's window over LoRA, the selection of a mask, scoring, and
generation. Each part has its share of the time, frees what it held, and is left out with its reason where the
memory does not hold it. The physical limit of R2MU's step is its floating-point operations over the device's
peak, which --peak-tflops names.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

if "unlearnkit" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "exec"))
    import checkout  # noqa: F401

import reasoning
import torch
from gao import K, Numbers, make_batch, step_of
from shapes import LLAMA_8B, clock, make_model, shaped
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unlearnkit.core.generation import DecodingOptions, generate
from unlearnkit.model.load.loading import add_lora
from unlearnkit.model.settings.method_keys import Lora
from unlearnkit.unlearn import compose, parse_method
from unlearnkit.unlearn.mask.selection import select
from unlearnkit.unlearn.objectives.gao import GAO
from unlearnkit.unlearn.scoring import answer_nll

PUBLISHED_STEPS = 500
"""Steps of the published run of R2MU."""
PROMPT, NEW_TOKENS, TEXTS = 64, 128, 64
SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
"""Sizes of a model in the order of `shaped`."""


class NoTokenizer:
    """What generation reads of a tokenizer, for ids that mean nothing."""

    eos_token_id = pad_token_id = 0
    all_special_ids = ()

    def get_added_vocab(self) -> dict[str, int]:
        return {}

    def decode(self, ids, **options) -> str:
        return " ".join(map(str, ids))

    def batch_decode(self, rows, **options) -> list[str]:
        return [self.decode(ids) for ids in rows]


def until(options, seconds: float, step: Callable[[int], object], least: int = 2) -> float:
    """Median seconds of a step; the first one does not count."""
    times, end = [], time.monotonic() + seconds
    while len(times) <= least or time.monotonic() < end:
        start = clock(options)
        step(len(times))
        times.append(clock(options) - start)
    return sorted(times[1:])[len(times[1:]) // 2]


def r2mu(options, seconds: float) -> str:
    options.scale, options.distinct, options.cache_gb = 1.0 if options.device == "cuda" else 0.05, 10**6, 1.0
    trainer = reasoning.Ours(options)
    batches = [reasoning.make_batch(options, number) for number in range(4)]
    # torch 2.11 cannot count flash attention where heads share keys.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        trainer.step(batches[0])
    taken = until(options, seconds, lambda number: trainer.step(batches[number % 4]))
    flops = counter.get_total_flops()
    text = f"{taken:.4f} s a step, {PUBLISHED_STEPS} steps {PUBLISHED_STEPS * taken:.0f} s"
    if options.peak_tflops:
        limit = flops / options.peak_tflops / 1e12
        text += f"; physical limit {limit:.4f} s, reached {100 * limit / taken:.0f} %"
    return text


def optimizer_of(weights) -> torch.optim.Optimizer:
    if find_spec("bitsandbytes"):
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(weights, lr=1e-5)
    return torch.optim.AdamW(weights, lr=1e-5, fused=True)


def npo(options, seconds: float, lora: bool = False, agreed: bool = False) -> str:
    model = make_model(options).train()
    batches = [make_batch(options, number) for number in range(2)]
    known = Numbers(model, batches)
    if lora:
        model = add_lora(model, Lora()).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    parsed = parse_method("NPO+FT")
    composition = compose(parsed, {section: kind() for section, kind in parsed.sections.items()})
    optimizer = optimizer_of(trained)

    def step(number: int) -> None:
        batch = batches[number % 2]
        counts = composition.counts(batch)
        terms = composition.terms(model, batch, known)
        sum(t.weight * t.term.total / counts[t.term.part][t.term.over] for t in terms.values()).backward()
        if agreed:
            window = step_of(model, batch)
            window = type(window)(**{**vars(window), "weights": trained})
            for p, vector in zip(trained, GAO(K=K, scope="window").extra_gradient(window).vector):
                p.grad += vector.to(p.dtype)
        optimizer.step()
        optimizer.zero_grad()

    taken = until(options, seconds, step)
    tokens = sum(int(batches[0][part]["attention_mask"].sum()) for part in ("forget", "retain"))
    return f"{taken:.3f} s a step of {2 * options.batch} rows ({tokens / taken:,.0f} tokens/s)"


def mask(options, seconds: float) -> str:
    model = make_model(options)
    scores = {name: p.detach().abs().float() for name, p in model.named_parameters()}
    weights = sum(score.numel() for score in scores.values())
    del model
    taken = until(options, seconds, lambda _: select(scores, 0.8), least=1)
    return f"{taken:.2f} s to select 80 % of {weights / 1e9:.3g} billion weights by magnitude"


@torch.inference_mode()
def scoring(options, seconds: float) -> str:
    model = make_model(options).eval()
    options.batch *= 8
    part = make_batch(options, 0)["forget"]
    options.batch //= 8
    taken = until(options, seconds, lambda _: answer_nll(model, part))
    tokens = int(part["attention_mask"].sum())
    return f"{len(part['labels']) / taken:,.1f} answers/s, {tokens / taken:,.0f} tokens/s"


def generation(options, seconds: float) -> str:
    model = make_model(options).eval()
    model.generation_config.eos_token_id = None
    prompts = torch.randint(3, options.vocabulary, (TEXTS, PROMPT)).tolist()
    new = NEW_TOKENS if options.device == "cuda" else 4
    written: list[int] = []

    def write(_: int) -> None:
        decoding = DecodingOptions(new, batch_tokens=TEXTS * (PROMPT + new))
        texts = generate(model, NoTokenizer(), prompts, decoding)
        written.append(sum(text.n_tokens for text in texts))

    taken = until(options, seconds, write, least=1)
    return f"{written[-1] / taken:,.0f} new tokens/s ({TEXTS} texts at a time)"


PARTS: dict[str, tuple[Callable, dict]] = {
    "R2MU": (r2mu, {}),
    "NPO+FT, all weights": (npo, {}),
    "NPO+FT, LoRA": (npo, {"lora": True}),
    "GAO window, LoRA": (npo, {"lora": True, "agreed": True}),
    "mask": (mask, {}),
    "scoring": (scoring, {}),
    "generation": (generation, {}),
}


def measured(options, part: Callable, more: dict, seconds: float) -> str:
    """The figure of a part with its peak memory, or why there is none."""
    on_gpu = options.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        found = part(options, seconds, **more)
    except torch.OutOfMemoryError:
        found = "left out: out of memory"
    except Exception as error:  # the other parts must not be lost with it
        found = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if on_gpu:
        found += f" | {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shaped(parser, *(LLAMA_8B[name] for name in SIZES), batch=8, kv_heads=LLAMA_8B["num_key_value_heads"])
    parser.set_defaults(device="cuda", dtype="bfloat16")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument(
        "--peak-tflops", type=float, default=989, help="dense bf16 peak of the card; 0 is none"
    )
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    parser.add_argument("--only", default="", help="parts whose name holds this text")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is visible; --device cpu takes a tiny shape")
    card = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    chosen = {name: part for name, part in PARTS.items() if options.only in name}
    end, figures = time.monotonic() + 60 * options.minutes, {"card": card}
    print(f"{card}, torch {torch.__version__}, {options.dtype}, {options.layers} blocks of {options.hidden}")
    for number, (name, (part, more)) in enumerate(chosen.items()):
        # Making the model takes about as long as measuring it.
        share = max(0.0, end - time.monotonic()) / (len(chosen) - number) / 2
        figures[name] = measured(options, part, more, share)
        print(f"| {name} | {figures[name]} |", flush=True)
        gc.collect()
        torch.cuda.empty_cache()
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")
    return int(any("failed:" in figure for figure in figures.values()))


if __name__ == "__main__":
    sys.exit(main())
