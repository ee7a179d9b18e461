"""Fetch a weight mask into mask/<task>_<ratio>.pt.

    python src/exec/download_mask.py tofu 0.8                           # the published WAGLE masks
    python src/exec/download_mask.py tofu 0.8 --source hf:owner/name    # or a hub repository, an http(s)
                                                                        # address, a Google Drive folder or
                                                                        # file, a path

The same command resumes a broken download. The file is opened as plain tensors only, and checked before it is
put in its place.
"""

import argparse
import re
import sys
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import UserError
from ..core.screen import show
from .script import with_clear_errors


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", help="tofu, wmdp, ...: the first half of the file's name")
    parser.add_argument("ratio", help="share of the updated weights, as in the file's name: 0.8")
    parser.add_argument(
        "--source", help="source of the file; the default is the folder of the published masks"
    )
    parser.add_argument("--out", type=Path, default=Path("mask"), help="folder for the file")
    parser.add_argument("--sha256", help="expected checksum of the file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    arguments = parser.parse_args(argv)
    return with_clear_errors(lambda: download(arguments), interrupted="interrupted; the same command resumes")


def download(arguments: argparse.Namespace) -> None:
    """Fetch the file into its place and print its density. UserError when the place is taken or the file is
    not a mask."""
    from ..model.load.fetch import PUBLISHED, fetch_mask

    file = f"{arguments.task}_{arguments.ratio}.pt"
    target = arguments.out.expanduser() / file
    if not re.fullmatch(r"[\w.-]+", file):
        raise UserError(f"task and ratio make a file name; {file!r} is not a file name")
    if target.exists() and not arguments.overwrite:
        raise UserError(f"{target} already exists; --overwrite replaces it")
    density = fetch_mask(arguments.source or PUBLISHED, file, target, arguments.sha256)
    show(f"wrote {target}: {density:.4f} of the weights are updated")


if __name__ == "__main__":
    sys.exit(main())
