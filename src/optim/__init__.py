"""Optimizers, flatness wrappers of the forget gradient, and weight averaging. Importing this package
registers them."""

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
