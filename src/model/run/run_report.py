"""The report of a run, written into its folder when everything else is there."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.files import write_json
from ...loggers import RunLogger
from ..settings.run_settings import Settings
from .progress import activity
from .weight_change import weight_change

log = logging.getLogger(__name__)

REPORT, WEIGHTS = "report.html", "weight_change.json"


def write_run_report(settings: Settings, logger: RunLogger, environment: dict[str, Any]) -> Path | None:
    """Write `report.html`, and first how far the weights moved.

    Args:
        settings: of the run.
        logger: of the run, whose results and model are written.
        environment: content of environment.json, which is written after this and makes the run whole: a run
            that is killed here resumes, and draws its report then.

    Returns:
        Its path; None where none is wanted or it could not be drawn, which is a warning: the run is measured
        and complete.
    """
    folder = logger.folder
    if folder is None or not settings.logger.report:
        return None
    try:
        if settings.method.trains:
            with activity("comparing the weights before and after", settings.overall.quiet):
                write_json(folder / WEIGHTS, weight_change(settings, folder))
        with activity("drawing the report", settings.overall.quiet):
            # matplotlib takes a second to load, which runs without a report need not wait for.
            from ..report.finished_run import read_run
            from ..report.html_report import write_report
            from ..report.report_charts import gather

            path = write_report(folder / REPORT, gather([replace(read_run(folder), environment=environment)]))
        logger.report(path)
    except (
        Exception
    ) as error:  # of matplotlib, of the disk, of a logger's service: all come too late to matter
        log.warning("the run is complete, but its report could not be made: %s", " ".join(str(error).split()))
        return None
    return path
