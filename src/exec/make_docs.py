"""Write what is made from the registries: docs/metrics.md and the README's table of methods.

python src/exec/make_docs.py
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import metrics  # noqa: E402, F401
from core.files import read_text, write_text  # noqa: E402
from metrics.page import render  # noqa: E402
from model.method_table import put_into  # noqa: E402

REPO = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repo", type=Path, default=REPO, help="checkout whose pages are written")
    repo = parser.parse_args(argv).repo
    write_text(repo / "docs" / "metrics.md", render())
    write_text(repo / "README.md", put_into(read_text(repo / "README.md")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
