"""What benchmarks on a random Llama share: its shape on the command line, the model, clocks and meters."""

import argparse
import threading
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
"""The shape of SmolLM2-135M, as options of LlamaConfig."""
LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
"""The shape of Llama-3.2-1B."""
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
"""The shape of Llama-3-8B."""


def shaped(
    parser: argparse.ArgumentParser,
    layers: int,
    hidden: int,
    intermediate: int,
    heads: int,
    vocabulary: int,
    batch: int,
    kv_heads: int = 0,
) -> argparse.ArgumentParser:
    """The parser with the options of a model and its batches; the numbers are their defaults."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    sizes = {
        "layers": layers,
        "hidden": hidden,
        "intermediate": intermediate,
        "heads": heads,
        "vocabulary": vocabulary,
        "batch": batch,
    }
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--kv-heads", type=int, default=kv_heads, help="0 is as many as heads")
    return parser


def make_model(options) -> LlamaForCausalLM:
    """The random Llama of the options, the same at every call."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=options.intermediate,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=min(options.kv_heads or options.heads, options.heads),
        use_cache=False,
    )
    with torch.device(options.device):
        return LlamaForCausalLM._from_config(config, dtype=getattr(torch, options.dtype))


def clock(options) -> float:
    """Seconds, once the device has done what it was told."""
    if options.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def resident_mb(key: str) -> float:
    """VmRSS, VmHWM or RssAnon of this process: getrusage counts what it had before it became this one."""
    return int(Path("/proc/self/status").read_text().partition(f"{key}:")[2].split()[0]) / 1024


class AnonymousPeak:
    """The most memory, in MB above that at the start, that a process holds and could not give back: pages of
    mapped files, which the system takes away where it needs room, do not count. Looked at every 5 ms."""

    def __enter__(self):
        self.start = self.most = resident_mb("RssAnon")
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.over.wait(0.005):
            self.most = max(self.most, resident_mb("RssAnon"))

    @property
    def mb(self) -> float:
        return self.most - self.start
