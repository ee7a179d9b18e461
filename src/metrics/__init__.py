"""Metrics. Importing this package registers every metric in `spec.METRICS`."""

from . import (  # noqa: F401  (one line per family)
    aggregates,
    copyright,
    decoding,
    forget_quality,
    health,
    knowundo,
    lume,
    memorization,
    muse,
    perplexity,
    pii,
    pii_few_shot,
    privacy,
    reasoning,
    rwku,
    sampling,
    semantic,
    tofu,
    toxicity,
    wmdp,
)
from .spec import METRICS, Metric, Value, families

__all__ = ["METRICS", "Metric", "Value", "families"]
