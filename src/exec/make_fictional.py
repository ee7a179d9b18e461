"""Write the fictional world again: files/data/fictional, and the tokenizer and config of its models.

    python src/exec/make_fictional.py

The generator is seeded, so this changes nothing unless the generator was changed.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.project import FICTIONAL_MODELS
from ..dataset.fictional_layouts import write_knowundo, write_rwku
from ..dataset.fictional_world import DATA_DIR, generate, write

BLANK = FICTIONAL_MODELS / "blank"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA_DIR, help="folder for the rows")
    parser.add_argument("--blank", type=Path, default=BLANK, help="folder for tokenizer and model config")
    arguments = parser.parse_args(argv)
    write(arguments.data)
    world = generate()
    write_knowundo(world, arguments.data)
    write_rwku(world, arguments.data)
    from ..model.load.blank import write_blank

    write_blank(arguments.data, arguments.blank)
    return 0


if __name__ == "__main__":
    sys.exit(main())
