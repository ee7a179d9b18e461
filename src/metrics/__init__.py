"""Metrics. Importing this package registers every metric in `spec.METRICS`."""

from . import (  # noqa: F401  (one line per family)
    aggregates,
    decoding,
    forget_quality,
    health,
    memorization,
    muse,
    perplexity,
    pii,
    privacy,
    reasoning,
    sampling,
    semantic,
    tofu,
    toxicity,
    wmdp,
)
from .spec import METRICS, Metric, Value, families

__all__ = ["METRICS", "Metric", "Value", "families"]
