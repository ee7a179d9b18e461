"""A short calibration of the device: how fast one block of the model trains on it."""

import copy
import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from ..load.loading import autocast_context, resolve_device, weight_dtype
from ..settings.run_settings import Settings
from .shape_model import Pass, ShapeModel

ROUNDS = 3
WORDS = 256
"""Vocabulary of the calibrated block: the head's share is counted by its operations."""
TOKENS = 4096
"""Most tokens of a calibrating pass."""


@dataclass(frozen=True)
class DeviceRate:
    """Operations per second of forward and backward, and seconds of the optimizer per trained weight."""

    device: str
    flops: float
    optimizer_seconds: float

    def seconds(self, flops: int, trained: int, steps: int) -> float:
        """Rough time of a training."""
        return flops / self.flops + self.optimizer_seconds * trained * steps


def calibrate(settings: Settings, shapes: ShapeModel, largest: Pass) -> DeviceRate | None:
    """Train one real, random block of the model's shape for a few steps on the run's device. None where the
    architecture has no such block of its own, or the device no room for it."""
    device = resolve_device(settings.overall.device)
    config = copy.deepcopy(shapes.config)
    text = config.get_text_config()
    text.num_hidden_layers, text.vocab_size = 1, WORDS
    text.pad_token_id = None
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:1]
    rows = max(1, min(largest.rows, TOKENS // max(1, largest.width)))
    try:
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=weight_dtype(shapes.precision)).train()
        return _measured(model, rows, largest.width, shapes.precision, device)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError):
        return None


def _measured(model, rows: int, width: int, precision: str, device: str) -> DeviceRate:
    ids = torch.zeros(rows, width, dtype=torch.long, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> tuple[float, float]:
        start = _now(device)
        with autocast_context(device, precision):
            loss = model(input_ids=ids, use_cache=False).logits.float().mean()
        loss.backward()
        middle = _now(device)
        optimizer.step()
        optimizer.zero_grad()
        return middle - start, _now(device) - middle

    with FlopCounterMode(display=False) as counter:
        step()  # the first one allocates
    times = [step() for _ in range(ROUNDS)]
    trained = sum(p.numel() for p in model.parameters())
    passes, updates = (sorted(column)[ROUNDS // 2] for column in zip(*times))
    return DeviceRate(device, counter.get_total_flops() / passes, updates / trained)


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()
