"""Turn a GGUF file into a normal model folder, weights dequantised to float32.

python src/exec/convert_gguf.py model.Q4_1.gguf files/models/my-model
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import exec.interpreter  # noqa: E402, F401
from core.screen import show  # noqa: E402
from exec.run import with_clear_errors  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the .gguf file")
    parser.add_argument("folder", type=Path, help="folder for the model, made when it is not there")
    arguments = parser.parse_args(argv)
    return with_clear_errors(lambda: convert_file(arguments.source, arguments.folder))


def convert_file(source: Path, folder: Path) -> None:
    from model.gguf import convert

    convert(source, folder)
    show(f"wrote {folder}")


if __name__ == "__main__":
    sys.exit(main())
