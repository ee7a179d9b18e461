"""Generate paraphrased and perturbed (wrong) answers to your own questions, for the truth ratio and forget
quality.

    python src/exec/make_perturbed.py --overall.model_name MODEL --dataset.forget_dataset_name Folder_forget
        --dataset.data_dir my_rows

Writes forget_eval.jsonl and retain_eval.jsonl into the folder; evaluations of the same rows read them. Their
texts are kept, so an interrupted run resumes. The writer is the initial model, or with
`--paraphrases.writer endpoint` a model behind an OpenAI-compatible server; `--evaluate.rows 50` limits each
set to its first 50 rows. A paraphrase must keep names and numbers, a wrong answer must differ in a fact at
about the same length; other texts are rejected and generated again.
"""

import sys

if not __package__:  # started as a file: this checkout is the package
    import os
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import UserError
from ..core.screen import show
from ..dataset import parse_name
from .config.rules.writer_rules import writer_errors
from .script import Script, run_script

TOFU_COUNT = 5
"""Wrong answers of a TOFU row."""


def run(settings) -> None:
    from ..model.write.perturbed_writer import write_perturbed

    messages, problem = write_perturbed(settings)
    show("\n".join(messages))
    if problem:
        raise UserError(problem)


def rules(settings) -> list[str]:
    found, data = writer_errors(settings), settings.dataset
    if not parse_name(data.forget_dataset_name)[0].own:
        found.append(
            f"dataset.forget_dataset_name: {data.forget_dataset_name} are not your own rows; set"
            " Folder_forget or owner/name:split"
        )
    elif not data.folder:
        found.append("dataset.data_dir: set the folder for forget_eval.jsonl")
    return found


def main(argv: list[str] | None = None) -> int:
    defaults = {"paraphrases": {"count": TOFU_COUNT}}
    interrupted = "interrupted; the same command resumes"
    return run_script(argv, Script(__doc__, run, defaults, rules, interrupted))


if __name__ == "__main__":
    sys.exit(main())
