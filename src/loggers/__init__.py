"""Loggers: where a run leaves what it did. Importing this package files every logger in `base.LOGGERS`."""

from loggers import json_, none_, wandb_  # noqa: F401  (one line per logger)
from loggers.base import LOGGERS, Place, RunLogger

__all__ = ["LOGGERS", "Place", "RunLogger"]
