"""An evaluation log of another toolkit as a run folder: metrics.json, metrics_detail.json and samples/ as an
evaluation of this project writes them, config.json and environment.json with the log as source."""

import sys
from datetime import UTC, datetime
from pathlib import Path

from ...core.files import file_fingerprint
from ...core.versions import versions
from ...loggers.json_ import JsonLogger
from ...loggers.logger import Results, RunLocation
from ...metrics.published_log import Columns, PublishedLog
from .environment import PACKAGES, git_commit

CONVENTIONS = {"OpenUnlearning": "open_unlearning"}
"""Toolkit -> the `evaluate.convention` by which its evaluation read rows."""


def import_run(log: PublishedLog, place: RunLocation, retain: PublishedLog | None = None) -> Path:
    """Write a log into a run folder.

    Args:
        log: The log.
        place: Where the folder is made.
        retain: The retain model's log that its figures were recomputed by.

    Returns:
        The run folder.

    Raises:
        UserError: The folder holds a run and `place.overwrite` is false, or cannot be written.
    """
    logger = JsonLogger(place)
    source = {
        "toolkit": log.toolkit,
        "file": str(log.path.absolute()),
        "fingerprint": file_fingerprint(log.path),
        "retain_file": str(retain.path.absolute()) if retain else None,
        "caution": log.caution,
        "warnings": log.warnings,
    }
    config: dict = {"imported": source}
    if log.toolkit in CONVENTIONS:
        config["evaluate"] = {"convention": CONVENTIONS[log.toolkit]}
    with logger.open(config):
        logger.evaluation("", results(log))
        logger.environment(_environment(source))
    return logger.folder


def results(log: PublishedLog) -> Results:
    """The figures and rows of a log as those of an evaluation; each figure's details name its source."""
    detail = {
        figure.key: {
            "n": figure.n,
            "unscored": figure.unscored,
            "interval": None,
            "reason": figure.reason,
            "name_in_log": figure.name,
            "stored": figure.stored,
        }
        # An attack's AUC stands in the log twice; the figure itself comes first and counts.
        for figure in reversed(log.figures)
    }
    metrics = {figure.key: figure.value for figure in reversed(log.figures)}
    in_order = dict.fromkeys(figure.key for figure in log.figures)
    return Results(
        {key: metrics[key] for key in in_order}, {key: detail[key] for key in in_order}, _samples(log.columns)
    )


def _samples(columns: Columns) -> dict[str, list[dict]]:
    return {
        rows: [{"id": index, **cells} for index, cells in table.items()]
        for rows, table in columns.items()
        if table
    }


def _environment(source: dict) -> dict:
    """What is known of an evaluation that ran elsewhere: that of the import; the rest is null."""
    unknown = ("seconds", "train_seconds", "seed", "gpus", "peak_memory_mb", "peak_gpu_memory_mb")
    return {
        "command": sys.argv,
        "imported_from": source["file"],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "packages": versions(PACKAGES),
        "git_commit": git_commit(),
        **dict.fromkeys(unknown),
    }
