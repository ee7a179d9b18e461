"""Let a model say the forget answers in other words, for the method GAO.

    python src/exec/make_paraphrases.py --config_file configs/tofu/gao.json
    python src/exec/unlearn_model.py --config_file configs/tofu/gao.json

Both use the file of `dataset.paraphrases`. What it has already is kept, so an interrupted run goes on. The
initial model writes them, or with `--paraphrases.writer endpoint` a model behind an OpenAI-compatible server.
Empty texts, copies, repeated prompts and texts with another meaning are rejected and written again.
"""

import sys

if not __package__:  # started as a file: this checkout is the package
    import checkout

    __package__ = checkout.PACKAGE

from ..core.screen import show
from .config.rules.writer_rules import paraphrase_writer
from .script import run_script


def act(settings) -> None:
    from ..model.write.paraphrase_writer import summary, write_paraphrases

    path, usage = write_paraphrases(settings)
    show(f"wrote {path}: {summary(path, usage)}")


def main(argv: list[str] | None = None) -> int:
    return run_script(
        argv, __doc__, act, rules=paraphrase_writer, interrupted="interrupted; the same command goes on"
    )


if __name__ == "__main__":
    sys.exit(main())
