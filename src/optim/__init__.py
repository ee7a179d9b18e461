"""Optimizers, flatness wrappers of the forget gradient, and weight averaging. Importing this package
registers them."""

from .adamw import OPTIMIZERS, AdamW, AdamW8bit, PagedAdamW8bit
from .averaging import WA, Averaging
from .sharpness import FLATNESS, Landscape, Wrapper
from .sophia import Sophia, SophiaG, drawn_nll

__all__ = [
    "FLATNESS",
    "OPTIMIZERS",
    "WA",
    "AdamW",
    "AdamW8bit",
    "Averaging",
    "Landscape",
    "PagedAdamW8bit",
    "Sophia",
    "SophiaG",
    "Wrapper",
    "drawn_nll",
]
