"""Write the generated parts of the pages in docs/: metrics, methods, configuration, benchmark tasks, presets,
engines and the field, with the picture of TOFU's leaderboard.

    python src/exec/make_docs.py

Each page has a text of its own and, between two marks, a part generated from the registries.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import put_between, write_text
from ..core.project import PROJECT
from ..metrics import metrics_page
from ..model.report import field_page, method_table, preset_table, task_table
from .config import engine_page, keys_page

PAGES = {
    "docs/metrics.md": metrics_page,
    "docs/methods.md": method_table,
    "docs/configuration.md": keys_page,
    "docs/benchmarks.md": task_table,
    "docs/published.md": preset_table,
    "docs/launchers.md": engine_page,
    "docs/field.md": field_page,
}
"""Page -> the module whose `render` writes the part between its `MARKS`."""

PICTURES = {"docs/frontier_leaderboard.svg": field_page.leaderboard_picture}
"""Picture -> what draws it."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repo", type=Path, default=PROJECT, help="checkout whose pages are written")
    repo = parser.parse_args(argv).repo
    for page, part in PAGES.items():
        put_between(repo / page, part.MARKS, part.render())
    for picture, draw in PICTURES.items():
        write_text(repo / picture, draw())
    return 0


if __name__ == "__main__":
    sys.exit(main())
