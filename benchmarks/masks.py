"""Selecting the top share of 100 million scores: ours against the argsort way, in one run, as ratios.

    .venv/bin/python benchmarks/masks.py

"argsort" is the published code's way: all scores in one tensor, sorted, the ranks compared with k. Each way
runs in a process of its own; extra memory is the peak beyond the scores themselves. Both masks are compared
bit by bit through a checksum.
"""

import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

if "unlearnkit" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "exec"))
    import checkout  # noqa: F401

import torch

from unlearnkit.unlearn.mask import select

SHAPES = [(25_000, 1_000)] + [(1_000, 1_000)] * 75
RATIO = 0.8


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def by_argsort(scores: dict) -> dict:
    flat = torch.cat([score.flatten() for score in scores.values()])
    ranks = torch.argsort(torch.argsort(flat, descending=True, stable=True))
    chosen = ranks < int(len(flat) * RATIO + 1e-9)
    return dict(
        zip(
            scores,
            (
                part.reshape(score.shape)
                for part, score in zip(
                    chosen.split([score.numel() for score in scores.values()]), scores.values()
                )
            ),
        )
    )


WAYS = {"ours": lambda scores: select(scores, RATIO), "argsort": by_argsort}


def child(way: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = {f"w{number}": torch.rand(shape, generator=generator) for number, shape in enumerate(SHAPES)}
    before, start = peak_mb(), time.perf_counter()
    masks = WAYS[way](scores)
    seconds, extra = time.perf_counter() - start, peak_mb() - before
    digest = hashlib.blake2b(
        b"".join(mask.numpy().tobytes() for mask in masks.values()), digest_size=8
    ).hexdigest()
    print(json.dumps({"seconds": seconds, "extra_mb": extra, "digest": digest}))


def main() -> None:
    found = {
        way: json.loads(
            subprocess.run([sys.executable, __file__, way], capture_output=True, text=True, check=True).stdout
        )
        for way in WAYS
    }
    weights = sum(a * b for a, b in SHAPES)
    for way, facts in found.items():
        print(
            f"{way}: {facts['seconds']:.1f} s, {facts['extra_mb']:.0f} MB beyond {weights * 4 / 1e6:.0f} MB"
            f" of scores (its mask is {weights / 1e6:.0f} MB of that)"
        )
    assert found["ours"]["digest"] == found["argsort"]["digest"], "the masks differ"
    ours, theirs = found["ours"], found["argsort"]
    print(
        f"argsort / ours: {theirs['seconds'] / ours['seconds']:.1f} x the time,"
        f" {theirs['extra_mb'] / ours['extra_mb']:.1f} x the extra memory, the same mask"
    )


if __name__ == "__main__":
    child(sys.argv[1]) if len(sys.argv) > 1 else main()
