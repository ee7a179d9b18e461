"""Unlearning objectives. Importing this package files every objective in the registries of `base`."""

from . import objectives  # noqa: F401  (lists of methods end with the edits)

# isort: split
from . import edits  # noqa: F401
from .base import FORGET, REGULARIZERS, RETAIN, Objective, Part, Reference, Term
from .composition import Composition, compose
from .method import Method, parse_method

__all__ = [
    "FORGET",
    "REGULARIZERS",
    "RETAIN",
    "Composition",
    "Method",
    "Objective",
    "Part",
    "Reference",
    "Term",
    "compose",
    "parse_method",
]
