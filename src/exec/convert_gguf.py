"""Convert a GGUF file to a model folder, with weights dequantised to float32.

python src/exec/convert_gguf.py model.Q4_1.gguf files/models/my-model
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.screen import show
from .script import with_clear_errors


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the .gguf file")
    parser.add_argument("folder", type=Path, help="folder for the model, made when missing")
    arguments = parser.parse_args(argv)
    return with_clear_errors(lambda: convert_file(arguments.source, arguments.folder))


def convert_file(source: Path, folder: Path) -> None:
    from ..model.load.gguf import convert

    convert(source, folder)
    show(f"wrote {folder}")


if __name__ == "__main__":
    sys.exit(main())
