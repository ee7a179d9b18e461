"""Metrics. Importing this package files every metric in `engine.METRICS`."""

from metrics import decoding, health, muse, reasoning, semantic, tofu, wmdp  # noqa: F401  (one line per family)
from metrics.engine import METRICS, Metric, Value

__all__ = ["METRICS", "Metric", "Value"]
