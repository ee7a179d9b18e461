"""Write what is made from the registries: docs/metrics.md, the README's table of methods and the table of
tasks in docs/benchmarks.md.

    python src/exec/make_docs.py
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import exec.interpreter  # noqa: E402, F401
import metrics  # noqa: E402, F401
from core.files import put_between, write_text  # noqa: E402
from metrics import page  # noqa: E402
from model import method_table, task_table  # noqa: E402

REPO = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repo", type=Path, default=REPO, help="checkout whose pages are written")
    repo = parser.parse_args(argv).repo
    write_text(repo / "docs" / "metrics.md", page.render())
    put_between(repo / "README.md", method_table.MARKS, method_table.render())
    put_between(repo / "docs" / "benchmarks.md", task_table.MARKS, task_table.render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
