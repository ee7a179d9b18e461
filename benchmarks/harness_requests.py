"""The model class of run_benchmarks.py against the harness's own: same model, same requests, one process.

    python benchmarks/harness_requests.py
    python benchmarks/harness_requests.py --device cuda --dtype bfloat16 --layers 32 --hidden 4096 \\
        --intermediate 14336 --heads 32 --vocabulary 128256 --rows 512 --longest 1800 --batch_tokens 65536

Scoring: four letters after prompts of mixed length (they share a forward pass in both), and four endings of
several words. Generation: prompts of mixed length, `--new_tokens` each, from a random model, which hardly
ever ends by itself. Both classes may use the same memory: ours `--batch_tokens` padded tokens, the other as
many rows as fit into these at the longest prompt. Prints seconds of each and their ratio, peak memory on a
GPU, and whether the answers are the same.
"""

import argparse
import random
import statistics
import sys
from pathlib import Path

if "unlearnkit" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "exec"))
    import checkout  # noqa: F401

import torch
from lm_eval.api.instance import Instance
from shapes import clock, make_model, shaped

from unlearnkit.core.encoding import Template
from unlearnkit.core.files import read_jsonl
from unlearnkit.metrics.lm_eval import HFLM, InMemoryModel, ModelOptions, quiet_harness
from unlearnkit.model.load.loading import load_tokenizer

REPO = Path(__file__).resolve().parents[1]

WORDS = [" at Raven Hollow", " from the town of Low Ford", " by the sea", " in Salt Harbour, they say"]


def prompts(tokenizer, rows: int, shortest: int, longest: int) -> list[str]:
    """Texts of the fictional world, of lengths spread evenly on a logarithmic scale, in tokens."""
    rng = random.Random(0)
    text = " ".join(row["text"] for row in read_jsonl(REPO / "files/data/fictional/documents.jsonl"))
    ids = tokenizer(text)["input_ids"]
    lengths = [round(shortest * (longest / shortest) ** (k / (rows - 1))) for k in range(rows)]
    rng.shuffle(lengths)
    starts = [rng.randrange(len(ids) - longest) for _ in lengths]
    return [tokenizer.decode(ids[a : a + n]) for a, n in zip(starts, lengths)]


def requests(kind: str, contexts: list[str], new_tokens: int) -> list[Instance]:
    if kind in ("generation", "thoughts"):
        sampled = (
            {"do_sample": True, "temperature": 1.0, "top_k": 0}
            if kind == "thoughts"
            else {"do_sample": False}
        )
        plan = {"until": [], **sampled, "max_gen_toks": new_tokens}
        return [Instance("generate_until", {}, (text, plan), k) for k, text in enumerate(contexts)]
    endings = [" A", " B", " C", " D"] if kind == "letters" else WORDS
    return [
        Instance("loglikelihood", {}, (text, ending), k)
        for k, text in enumerate(contexts)
        for ending in endings
    ]


def timed(lm, kind: str, asked: list[Instance], options) -> tuple[float, list, float]:
    """Seconds, answers and peak memory (GB, 0 without a GPU)."""
    run = lm.generate_until if kind in ("generation", "thoughts") else lm.loglikelihood
    on_gpu = options.device == "cuda"
    with quiet_harness():
        run(asked[::4])  # memory and kernels of every length, so that the first of two is not the slower
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        start = clock(options)
        answers = run(asked)
        seconds = clock(options) - start
    return seconds, answers, torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shaped(parser, layers=4, hidden=256, intermediate=768, heads=4, vocabulary=8192, batch=0)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--shortest", type=int, default=20)
    parser.add_argument("--longest", type=int, default=640)
    parser.add_argument("--new_tokens", type=int, default=64)
    parser.add_argument("--batch_tokens", type=int, default=8192)
    parser.add_argument("--kinds", nargs="+", default=["letters", "words", "generation", "thoughts"])
    parser.add_argument("--mean_thought", type=int, default=64, help="tokens, of thoughts")
    a = parser.parse_args()
    tokenizer = load_tokenizer(str(REPO / "files/models/fictional/target"))
    model, contexts = make_model(a).eval(), prompts(tokenizer, a.rows, a.shortest, a.longest)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    where = torch.cuda.get_device_name() if a.device == "cuda" else "cpu"
    print(f"{millions:.0f}M parameters, {a.dtype}, {where}, {a.rows} prompts of {a.shortest} to {a.longest}")
    ours = InMemoryModel(
        model, tokenizer, ModelOptions(Template(tokenizer), "direct", a.batch_tokens), lambda *_: None
    )
    longest = max(len(tokenizer(text)["input_ids"]) for text in contexts)
    rows = max(1, a.batch_tokens // (longest + a.new_tokens))
    with quiet_harness():
        theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=rows)
    for kind in a.kinds:
        many = round(a.vocabulary / a.mean_thought) if kind == "thoughts" else 0
        model.generation_config.eos_token_id = list(range(100, 100 + many)) or None
        asked = requests(kind, contexts, a.new_tokens)
        mine, answers, peak = timed(ours, kind, asked, a)
        other, their_answers, their_peak = timed(theirs, kind, asked, a)
        if kind == "thoughts":
            lengths = [
                statistics.fmean(len(tokenizer(text)["input_ids"]) for text in texts)
                for texts in (answers, their_answers)
            ]
            same = "drawn, tokens in the mean {:.0f} and {:.0f}".format(*lengths)
        elif kind == "generation":
            alike = sum(x.strip() == y.strip() for x, y in zip(answers, their_answers)) / len(answers)
            same = f"{alike:.0%} of texts equal"
        else:
            gap = max(abs(x[0] - y[0]) for x, y in zip(answers, their_answers))
            same = f"largest difference of a score {gap:.1e}"
        print(
            f"  {kind:11} ours {mine:7.2f} s  harness (batch {rows}) {other:7.2f} s  ratio {other / mine:.2f}"
            f"  memory {peak:.1f} / {their_peak:.1f} GB  {same}",
            flush=True,
        )


if __name__ == "__main__":
    main()
