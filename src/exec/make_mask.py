"""Make weight masks, or report on existing ones.

    python src/exec/make_mask.py --config_file configs/fictional/npo+ft.json --mask.ratios .05,.5,.8
    python src/exec/make_mask.py --report mask/fictional_0.8.pt mask/fictional_0.5.pt

Every ratio (share of the weights that are UPDATED) comes from one scoring pass and is written as
<mask.out>/<task>_<ratio>.pt with a JSON sidecar. --report prints density by layer and kind of module and the
overlap of masks, and writes a heat map.
"""

import re
import sys
from pathlib import Path

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.screen import show
from .script import Script, run_script, with_clear_errors


def run(settings) -> None:
    from ..model.masks.mask_making import make_masks
    from ..unlearn.mask.mask_file import read_sidecar

    for path in make_masks(settings):
        sidecar = read_sidecar(path)
        show(f"wrote {path}: {sidecar['selected'] / sidecar['weights']:.4f} of all weights are updated")


def rules(settings) -> list[str]:
    found = []
    try:
        re.compile(settings.mask.parameters)
    except re.error as error:
        found.append(f"mask.parameters: {settings.mask.parameters!r} is not a regular expression ({error})")
    files = [settings.mask_file(ratio) for ratio in settings.mask.ratios]
    try:
        existing = [str(file) for file in files if file.exists()]
    except OSError as error:
        return [*found, f"mask.out: {settings.mask.out}: {error.strerror}; choose another folder"]
    if existing and not settings.mask.overwrite:
        found.append(
            f"mask.out: already has {', '.join(existing)}; choose another folder or set mask.overwrite true"
        )
    return found


def report(words: list[str]) -> None:
    """Print the report of mask files and the path of its heat map."""
    from ..model.masks.mask_report import report_files

    show(f"\nheat map: {report_files([Path(word) for word in words])}")


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    # --report takes files alone, so it is read before the parser of settings, which would demand a config.
    if words[:1] == ["--report"]:
        return with_clear_errors(lambda: report(words[1:]))
    return run_script(words, Script(__doc__, run, rules=rules))


if __name__ == "__main__":
    sys.exit(main())
