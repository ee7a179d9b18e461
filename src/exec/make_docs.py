"""Write the pages that are made from the registries: docs/metrics.md.

    python src/exec/make_docs.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import metrics  # noqa: E402, F401
from core.files import write_text  # noqa: E402
from metrics.page import render  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"

if __name__ == "__main__":
    write_text(PAGE, render())
