"""Optimizers that nobody ships, and what makes forgetting flat. Importing this package files them in their
registries."""

from .averaging import WA, Averaging
from .sharpness import FLATNESS, Landscape, Wrapper
from .sophia import OPTIMIZERS, Sophia, SophiaG, drawn_nll

__all__ = [
    "FLATNESS",
    "OPTIMIZERS",
    "WA",
    "Averaging",
    "Landscape",
    "Sophia",
    "SophiaG",
    "Wrapper",
    "drawn_nll",
]
