"""Loggers: where a run leaves what it did. Importing this package files every logger in `base.LOGGERS`."""

from . import (
    json_,  # noqa: F401  (one line per logger)
    none_,  # noqa: F401  (one line per logger)
    wandb_,  # noqa: F401  (one line per logger)
)
from .logger import LOGGERS, RunLocation, RunLogger

__all__ = ["LOGGERS", "RunLocation", "RunLogger"]
