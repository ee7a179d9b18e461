"""Read evaluation logs of TOFU and OpenUnlearning, check their figures, and turn one into a run folder.

    python src/exec/import_log.py saves/eval/*/TOFU_EVAL.json
    python src/exec/import_log.py TOFU_EVAL.json --retain retain90/TOFU_EVAL.json --logger.name theirs

Without --logger.name nothing is written: every figure is recomputed from the rows and set beside the stored
one. docs/published_logs.md says which files are read, and how.
"""

import argparse
import re
import sys
from dataclasses import fields

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import UserError
from ..core.screen import show
from ..model.settings.logger_keys import JsonLogging, Logging
from .script import with_clear_errors


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "logs", nargs="+", metavar="LOG", help="TOFU_EVAL.json, MUSE_EVAL.json or eval_log_aggregated.json"
    )
    parser.add_argument(
        "--retain", metavar="LOG", help="the retain model's log, to recompute forget quality and privleak"
    )
    parser.add_argument("--logger.name", dest="name", metavar="NAME", help="run folder to write, of one log")
    parser.add_argument(
        "--logger.json.root", dest="root", default=JsonLogging().root, help="folder of all runs [%(default)s]"
    )
    parser.add_argument(
        "--logger.overwrite",
        dest="overwrite",
        choices=("true", "false"),
        default="false",
        help="replace a run of the same name [%(default)s]",
    )
    arguments = parser.parse_intermixed_args(argv)
    return with_clear_errors(lambda: read_logs(arguments))


def read_logs(arguments: argparse.Namespace) -> None:
    """Check every log and print one line for each; write the run folder where one is named. UserError before
    anything is read when the name is none, or the folder is taken."""
    from ..loggers.json_ import JsonLogger
    from ..loggers.logger import RunLocation
    from ..metrics.external_results import read_log
    from ..model.run.imported_run import import_run

    place = None
    if arguments.name is not None:
        _check_name(arguments)
        place = RunLocation(arguments.root, arguments.name, arguments.overwrite == "true")
        JsonLogger(place).check()
    retain = read_log(arguments.retain) if arguments.retain else None
    cautions: dict[str, None] = {}
    for path in arguments.logs:
        log = read_log(path, retain)
        show(_summary(log))
        for warning in log.warnings:
            show(f"  warning: {warning}")
        if log.caution:
            cautions[log.caution] = None
        if place:
            show(f"  wrote {import_run(log, place, retain)}")
    for caution in cautions:
        show(f"caution: {caution}")


def _check_name(arguments: argparse.Namespace) -> None:
    pattern = next(field.metadata["knob"].pattern for field in fields(Logging) if field.name == "name")
    if not re.fullmatch(pattern, arguments.name):
        raise UserError(
            f"--logger.name: {arguments.name!r} is not a folder name; use letters, digits and -_.+=,@"
        )
    if len(arguments.logs) > 1:
        raise UserError("--logger.name names the run folder of one log; import the others one by one")


def _summary(log) -> str:
    """Counts of a log's figures, and how far the stored ones are from their rows."""
    alone = [figure.name for figure in log.figures if figure.recomputed is None and figure.stored is not None]
    checked = f"{len(log.checked)} stored figures recomputed, largest difference {log.largest_difference:.1e}"
    computed = sum(figure.recomputed is not None and figure.stored is None for figure in log.figures)
    parts = [checked] if log.checked else []
    parts += [f"{computed} figures computed from rows"] if computed else []
    parts += [f"as stored: {', '.join(alone)}"] if alone else []
    return f"{log.path} ({log.toolkit}): {'; '.join(parts)}"


if __name__ == "__main__":
    sys.exit(main())
