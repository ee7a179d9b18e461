"""Unlearning objectives. Importing this package files every objective in the registries of `base`."""

from unlearn import (  # noqa: F401  (one line per file of objectives)
    ceu,
    dpo,
    flat,
    ga,
    gao,
    jensun,
    kl,
    max_entropy,
    npo,
    origin,
    pdu,
    random_label,
    reflection,
    refusal,
    regularizers,
    representation,
    retain,
    simnpo,
    undial,
    weighted,
)
from unlearn.base import FORGET, REGULARIZERS, RETAIN, Objective, Part, Reference, Term
from unlearn.compose import Composition, Method, compose, parse_method
from unlearn.edits import task_vector, whp  # noqa: F401

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
