"""Unlearning objectives. Importing this package files every objective in the registries of `base`."""

from unlearn import ga, npo, origin, refusal, retain  # noqa: F401  (one line per file of objectives)
from unlearn.base import FORGET, RETAIN, Objective, Part, Reference, Term
from unlearn.compose import Composition, Method, compose, parse_method

__all__ = ["FORGET", "RETAIN", "Composition", "Method", "Objective", "Part", "Reference", "Term", "compose",
           "parse_method"]
