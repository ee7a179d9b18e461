"""The command `unlearnkit`: every script by a short name.

    unlearnkit unlearn --config_file configs/fictional/npo+ft.json
    unlearnkit evaluate --overall.model_name files/results/demo/checkpoints

`unlearnkit COMMAND --help` is the help of the script.
"""

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..core.registry import did_you_mean
from ..core.screen import show, show_error
from . import checkout  # noqa: F401  (a Python that cannot run the project ends here, with one line)

COMMANDS = {
    "unlearn": "unlearn_model",
    "forget": "forget",
    "finetune": "finetune_model",
    "evaluate": "evaluate_model",
    "compare-runs": "compare_runs",
    "import-log": "import_log",
    "run-grid": "run_grid",
    "sweep": "sweep",
    "run-requests": "run_requests",
    "run-benchmarks": "run_benchmarks",
    "make-mask": "make_mask",
    "download-mask": "download_mask",
    "make-traces": "make_traces",
    "make-paraphrases": "make_paraphrases",
    "make-alternates": "make_alternates",
    "make-perturbed": "make_perturbed",
    "prefetch": "prefetch",
    "convert-gguf": "convert_gguf",
}
"""Command -> script of this folder."""


def purpose(script: str) -> str:
    """The first line of a script's docstring, read without importing it."""
    text = Path(__file__).with_name(f"{script}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def help_text() -> str:
    """What each command is for."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {purpose(script)}" for name, script in COMMANDS.items()]
    return "\n".join(
        ["usage: unlearnkit COMMAND [ARGUMENTS ...]", "", "commands (unlearnkit COMMAND --help):", *lines]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script that the first word names, with the other words. Returns its exit code; 2 for a word
    that names none."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        show(help_text())
        return 0 if words else 2
    if words[0] == "--version":
        show(f"unlearnkit {__version__}")
        return 0
    name, *rest = words
    if name.replace("_", "-") not in COMMANDS:
        near = did_you_mean(name, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        show_error(f"unlearnkit: unknown command {name!r}{near}")
        return 2
    script = COMMANDS[name.replace("_", "-")]
    # Help and errors of the script name the command that was typed.
    sys.argv = [f"unlearnkit {name}", *rest]
    return importlib.import_module(f".{script}", __package__).main(rest)
