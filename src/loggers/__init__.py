"""Loggers: records and results of a run. Importing this package registers every logger in
`logger.LOGGERS`."""

from . import (
    json_,  # noqa: F401  (one line per logger)
    none_,  # noqa: F401  (one line per logger)
    wandb_,  # noqa: F401  (one line per logger)
)
from .logger import LOGGERS, RunLocation, RunLogger

__all__ = ["LOGGERS", "RunLocation", "RunLogger"]
