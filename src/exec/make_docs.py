"""Write what is made from the registries: docs/metrics.md, the README's table of methods and the table of
tasks in docs/benchmarks.md.

    python src/exec/make_docs.py
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import checkout

    __package__ = checkout.PACKAGE

from ..core.files import put_between, write_text
from ..core.project import PROJECT
from ..metrics import metrics_page
from ..model.report import method_table, task_table


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repo", type=Path, default=PROJECT, help="checkout whose pages are written")
    repo = parser.parse_args(argv).repo
    write_text(repo / "docs" / "metrics.md", metrics_page.render())
    put_between(repo / "README.md", method_table.MARKS, method_table.render())
    put_between(repo / "docs" / "benchmarks.md", task_table.MARKS, task_table.render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
