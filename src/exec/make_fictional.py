"""Write the fictional world again: files/data/fictional, and the tokenizer and config its models start from.

    python src/exec/make_fictional.py

The generator is seeded, so this changes nothing unless the generator was changed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import exec.interpreter  # noqa: E402, F401
from dataset.fictional_world import DATA_DIR, write  # noqa: E402

BLANK = Path(__file__).resolve().parents[2] / "files" / "models" / "fictional" / "blank"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA_DIR, help="folder for the rows")
    parser.add_argument("--blank", type=Path, default=BLANK, help="folder for tokenizer and model config")
    arguments = parser.parse_args(argv)
    write(arguments.data)
    from model.blank import write_blank

    write_blank(arguments.data, arguments.blank)
    return 0


if __name__ == "__main__":
    sys.exit(main())
