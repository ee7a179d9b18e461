"""Generate paraphrases of the forget answers, for the method GAO.

    python src/exec/make_paraphrases.py --config_file configs/tofu/gao.json
    python src/exec/unlearn_model.py --config_file configs/tofu/gao.json

Both use the file of `dataset.paraphrases`. Its texts are kept, so an interrupted run resumes. The writer is
the initial model, or with `--paraphrases.writer endpoint` a model behind an OpenAI-compatible server. Empty
texts, copies, repeated prompts and texts with another meaning are rejected and generated again.
"""

import sys

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.screen import show
from .config.rules.writer_rules import writer_errors
from .script import Script, run_script


def run(settings) -> None:
    from ..model.write.paraphrase_writer import summary, write_paraphrases

    path, usage = write_paraphrases(settings)
    show(f"wrote {path}: {summary(path, usage)}")


def main(argv: list[str] | None = None) -> int:
    interrupted = "interrupted; the same command resumes"
    return run_script(argv, Script(__doc__, run, rules=writer_errors, interrupted=interrupted))


if __name__ == "__main__":
    sys.exit(main())
