"""Forget these rows: checks them, makes a retain set where none is given, unlearns, measures.

    python src/exec/forget.py rows.jsonl --model MODEL
    python src/exec/forget.py rows.csv --model MODEL --retain keep.jsonl --name request-7

Rows are {"question": ..., "answer": ...}, one a line (CSV, chats and other columns: docs/own_rows.md). MODEL
is a folder or a hub name. The rows that the model knows are counted first: what it never learned needs no
forgetting. LoRA is trained, so that the model itself stays and the adapter can be taken off again; of all
epochs the one that forgets most while it keeps --floor of the retain rows' probability is taken.

files/results/<name>/ has the unlearned model (checkpoints/), the adapter (adapter/) and all figures,
files/results/<name>-inputs/ the rows as they were used.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # started as a file: this checkout is the package
    import runpy

    __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

from ..core.files import UserError, clear_write_errors, write_jsonl
from ..core.screen import safe_streams, show, show_error
from ..unlearn import parse_method
from .child_runs import expand_user, pair
from .config.reader import ConfigError, StrictConfig, resolve_settings
from .config.rules.data_rules import missing_files
from .forget_checks import quick_checks
from .script import quiet_libraries, with_clear_errors

if TYPE_CHECKING:
    from ..model.run.known_rows import Knowledge
    from ..model.settings.run_settings import Settings

METHOD, EPOCHS = "DPO+FT", 16
WORDINGS = ("Please answer this question: {}", "{} Answer in one sentence.", "I would like to know: {}")
"""Other wordings of a question, for the check that not the wording alone was forgotten."""
CHECKED = (
    "forget/rougeL",
    "forget/prob",
    "forget/extraction_strength",
    "retain/rougeL",
    "retain/prob",
    "semantic/worst_of_k",
)
METRICS = "evaluate.metrics"
DEFAULTS = {
    "dataset.forget_dataset_name": "Folder_forget",
    "dataset.retain_dataset_name": "Folder_retain",
    "dataset.batch_size": "8",
    "unlearn.task_name": "tofu",
    "unlearn.use_lora": "true",
    "unlearn.save_adapter": "beside",
    "unlearn.lora.r": "16",
    "unlearn.lora.alpha": "32",
    "evaluate.every": "2 epochs",
    "evaluate.keep": "best",
    METRICS: ",".join(CHECKED),
    "evaluate.max_new_tokens": "64",
}
"""Settings of a request, where --set does not change them."""
PLACEHOLDER = {"question": "What is one and one?", "answer": "It is two."}
"""Stands for the retain set until the model has answered."""
LR = "unlearn.lr"
SIZED = {LR: "1e-4", "unlearn.gamma": "20"}
"""Settings of a request that are others for small models."""
SIZED_SMALL, SMALL = {LR: "5e-3", "unlearn.combiner": "ngdiff"}, 20e6
"""Those of models with fewer weights than `SMALL`: they prefer a refusal long before the answer is gone, so
the forget side must go on with all its strength."""
BALANCE = ("unlearn.gamma", "unlearn.combiner")
"""Settings of methods with two sides alone."""
FEW = 10
"""Rows below which figures are rough."""
OWN = {
    "overall.model_name": "is --model",
    "dataset.data_dir": "is made of the rows",
    "dataset.forget_dataset_name": "is made of the rows",
    "dataset.retain_dataset_name": "is made of --retain",
    "logger.name": "is --name",
    "logger.json.root": "is --root",
    "overall.logger": "the report needs the run folder",
    "evaluate.before": "stays true: the checks compare with the initial model",
}
"""Settings that the script makes itself -> reason in the message."""
FLAGS = {
    "logger.overwrite true": "--overwrite",
    "logger.name": "--name",
    "logger.json.root": "--root",
    "overall.model_name": "--model",
    "unlearn.unlearn_method": "--method",
    "unlearn.num_epochs": "--epochs",
    LR: "--lr",
    "evaluate.best_floor": "--floor",
}
"""Words of messages about settings -> the flag that stands for them here."""


@dataclass(frozen=True)
class Request:
    """What is to be forgotten, from which model.

    Args:
        model: folder or hub name.
        rows: rows to forget.
        retain: rows to keep; None where the model is to answer some.
        inputs: folder of the rows as they are used.
    """

    model: str
    rows: list[dict]
    retain: list[dict] | None
    inputs: Path


@safe_streams()
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("rows", metavar="ROWS", help="the rows to forget: a .jsonl or .csv file")
    add("--model", required=True, help="a folder or a hub name")
    add("--retain", metavar="FILE", help="rows to keep; without them the model answers questions itself")
    add("--name", help="run folder under --root [forget-<name of the rows' file>]")
    add("--root", type=Path, default=Path("files/results"), help="where run folders lie [files/results]")
    add("--method", default=METHOD, help=f"unlearning method [{METHOD}]")
    add("--epochs", type=int, default=EPOCHS, help=f"passes over the rows; the best is taken [{EPOCHS}]")
    small = f"{SIZED_SMALL[LR]} for models below {SMALL / 1e6:g}M parameters"
    add("--lr", type=float, help=f"learning rate [{SIZED[LR]}; {small}]")
    add("--floor", type=float, default=0.95, help="least share of the retain rows' probability [0.95]")
    add("--anyway", action="store_true", help="go on although the model knows none of the rows")
    add("--overwrite", action="store_true", help="replace an earlier run of that name")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="any other settings of unlearn_model.py")
    arguments = parser.parse_args(argv)
    return with_clear_errors(
        lambda: forget(arguments), failed=2, interrupted="interrupted; the same command starts again"
    )


def forget(arguments: argparse.Namespace) -> int:
    """Check, unlearn, measure, report."""
    request = read_request(arguments)
    with tempfile.TemporaryDirectory() as folder:  # nothing is written while something may be wrong
        trial = replace(request, inputs=Path(folder))
        write_tables(trial, trial.retain or [PLACEHOLDER])
        settings = settings_of(arguments, trial)
        quiet_libraries()
        retain, sized = prepare(arguments, trial, settings)
    from ..model.report.last_screen import show_outcome
    from ..model.run.unlearn_run import Unlearn

    with clear_write_errors(request.inputs, "--root or --name"):
        write_tables(request, retain)
    settings = settings_of(arguments, request, sized)
    outcome = Unlearn(settings).run()
    show_outcome(outcome, settings)
    lines, advice = quick_checks(outcome, arguments)
    show("\n".join(["\nQuick checks (before -> after)", *lines, "", advice]))
    return 0


def read_request(arguments: argparse.Namespace) -> Request:
    """The rows of the flags. UserError for what is wrong with them."""
    if not 0 < arguments.floor <= 1:
        raise UserError("--floor: expected a share above 0 and at most 1")
    if arguments.epochs < 1:
        raise UserError("--epochs: expected a whole number at least 1")
    name = arguments.name or f"forget-{Path(arguments.rows).stem}"
    root = expand_user(arguments.root)
    rows = _distinct(read_rows(arguments.rows), arguments.rows)
    retain = None
    if arguments.retain:
        retain = read_rows(arguments.retain)
        shared = {_key(row) for row in rows} & {_key(row) for row in retain}
        if shared:
            raise UserError(
                f"--retain: {len(shared)} of its rows are also to be forgotten, first {min(shared)[0]!r};"
                " remove them"
            )
    if len(rows) < FEW:
        show_error(f"note: {len(rows)} row{'s' * (len(rows) > 1)} to forget: figures of so few are rough")
    arguments.name = name
    return Request(arguments.model, rows, retain, root / f"{name}-inputs" / "rows")


def read_rows(path: str) -> list[dict]:
    """Rows with a question and an answer from a table. UserError naming file, line and remedy."""
    from ..dataset.own_rows import own_rows
    from ..dataset.tables import SUFFIXES, read_table

    file = Path(path).expanduser()
    if file.suffix not in SUFFIXES:
        raise UserError(f"{path}: expected a .jsonl or .csv file of rows")
    records = read_table(file)
    if not records:
        raise UserError(f'{path}: has no rows; a row is {{"question": ..., "answer": ...}} on a line')
    try:
        rows = own_rows(records, file.stem, {})
    except UserError as error:
        advice = str(error).replace("--dataset.columns", "rename the columns, or --set dataset.columns")
        raise UserError(advice) from None
    if texts := [place for (place, _), row in zip(records, rows) if "question" not in row]:
        raise UserError(
            f"{texts[0]}: has a text and no question; documents are forgotten with unlearn_model.py"
            " (docs/own_rows.md)"
        )
    return rows


def _key(row: dict) -> tuple[str, str]:
    return " ".join(row["question"].split()), " ".join(row["answer"].split())


def _distinct(rows: list[dict], path: str) -> list[dict]:
    """The rows, each once, with a note about those that were there more often."""
    found = {}
    for row in rows:
        found.setdefault(_key(row), row)
    if len(found) < len(rows):
        show_error(f"note: {path} has {len(rows) - len(found)} rows twice; each is taken once")
    questions = Counter(question for question, _ in found)
    several = [question for question, count in questions.items() if count > 1]
    if several:
        show_error(f"note: {len(several)} questions have several answers, first {several[0]!r}")
    return list(found.values())


def write_tables(request: Request, retain: Sequence[dict]) -> None:
    """The tables of the run, the questions to be forgotten in other wordings too."""
    request.inputs.mkdir(parents=True, exist_ok=True)
    rows = [
        {"rephrased_questions": [form.format(row["question"]) for form in WORDINGS], **row}
        for row in request.rows
    ]
    write_jsonl(request.inputs / "forget.jsonl", rows)
    write_jsonl(request.inputs / "retain.jsonl", retain)


def settings_of(
    arguments: argparse.Namespace, request: Request, sized: Mapping[str, str] = SIZED
) -> "Settings":
    """The checked settings of the run. UserError with all that is wrong."""
    extra = dict(map(pair, arguments.set))
    for key in extra:
        if key in OWN:
            raise UserError(f"--set {key}: {OWN[key]}")
    if METRICS in extra:
        extra[METRICS] = ",".join([*CHECKED, extra[METRICS]])  # the checks need theirs
    folder = expand_user(arguments.root) / arguments.name
    incomplete = folder.exists() and not (folder / "environment.json").exists()
    method = parse_method(arguments.method)
    if not method.forget or not method.trains:
        raise UserError(f"--method: {arguments.method} trains nothing to forget")
    defaults = {
        key: value for key, value in {**DEFAULTS, **sized}.items() if method.retain or key not in BALANCE
    }
    flags = {
        "overall.model_name": request.model,
        "dataset.data_dir": str(request.inputs),
        "unlearn.unlearn_method": arguments.method,
        "unlearn.num_epochs": str(arguments.epochs),
        "evaluate.best_floor": str(arguments.floor),
        "logger.name": arguments.name,
        "logger.json.root": str(folder.parent),
        "logger.overwrite": str(arguments.overwrite or incomplete).lower(),
    }
    if arguments.lr:
        flags[LR] = str(arguments.lr)
    try:
        settings = resolve_settings(StrictConfig(), [], defaults | flags | extra, {}, missing_files)
    except ConfigError as error:
        raise UserError(f"the settings are not right, nothing was started\n{_by_flags(str(error))}") from None
    return settings


def _by_flags(message: str) -> str:
    """A message about settings with the flags of this script in their place."""
    for key, flag in FLAGS.items():
        message = message.replace(key, flag)
    return message


def prepare(
    arguments: argparse.Namespace, request: Request, settings: "Settings"
) -> tuple[Sequence[dict], dict[str, str]]:
    """Look whether the model knows the rows, and let it make the retain set.

    Returns:
        The rows to keep, and the settings for a model of this size.

    Raises:
        UserError: the model knows none of the rows, or answers too few questions.
    """
    from ..core.encoding import Template
    from ..model.load.loading import initial_tokenizer, load_initial
    from ..model.run.unlearn_run import Unlearn

    try:  # rows, tokenizer, run folder: what can be wrong before a model is loaded
        Unlearn(settings).prepared()
    except UserError as error:
        raise UserError(_by_flags(str(error))) from None
    model = load_initial(settings.overall)
    template = Template(initial_tokenizer(settings.overall), settings.dataset.template, settings.dataset.tags)
    _check_known(arguments, request, settings, model, template)
    if request.retain:
        _note_unknown(request.retain, settings, model, template)
    retain = request.retain or _retain_set(request, settings, model, template)
    size = sum(weight.numel() for weight in model.parameters())
    return retain, SIZED_SMALL if size < SMALL else SIZED


def _check_known(
    arguments: argparse.Namespace, request: Request, settings: "Settings", model, template
) -> None:
    """State how many rows the model knows. UserError where it knows none."""
    found = _knowledge(request.rows, settings, model, template)
    known = sum(one.known for one in found)
    show_error(f"the model knows {known} of {len(found)} rows")
    if not known and not arguments.anyway:
        best = max(one.prob for one in found)
        raise UserError(
            f"{request.model} knows none of the rows (probability of an answer at most {best:.2g} per token,"
            " no answer of its own states one): there is nothing to forget. --anyway goes on"
        )
    if known < len(found):
        unknown = [row["question"] for row, one in zip(request.rows, found) if not one.known]
        show_error(
            f"note: it does not know {len(unknown)} rows, first {unknown[0]!r}; figures count them too"
        )


def _note_unknown(retain: Sequence[dict], settings: "Settings", model, template) -> None:
    """Name retain rows that the model does not know: they are no rows to keep."""
    found = _knowledge(retain, settings, model, template)
    if unknown := [row["question"] for row, one in zip(retain, found) if not one.known]:
        show_error(
            f"note: --retain: the model does not know {len(unknown)} of {len(retain)} rows, first"
            f" {unknown[0]!r}; training teaches it their answers, which may bring rows like them back; leave"
            " them out, or all of --retain: the model then answers questions itself"
        )


def _knowledge(rows: Sequence[dict], settings: "Settings", model, template) -> "list[Knowledge]":
    from ..model.run.known_rows import known_rows

    named = [{**row, "id": str(number)} for number, row in enumerate(rows)]
    return known_rows(settings, model, template, named)


def _retain_set(request: Request, settings: "Settings", model, template) -> list[dict]:
    """Questions that the model answers itself. UserError where it answers too few."""
    from ..model.write.retain_writer import FEWEST, make_retain_set

    found = make_retain_set(settings, model, template, request.rows)
    near = sum(row["kind"] == "near" for row in found.rows)
    dropped = ", ".join(f"{count} {reason}" for reason, count in found.dropped.most_common())
    left = f"; left out: {dropped}" if dropped else ""
    show_error(
        f"retain set: {len(found.rows)} questions with the model's own answers, {near} near the topic and"
        f" {len(found.rows) - near} far from it{left}"
    )
    if len(found.rows) < FEWEST:
        raise UserError(
            f"--retain: the model answered only {len(found.rows)} questions that can be kept ({dropped});"
            " give rows that it shall keep"
        )
    return found.rows


if __name__ == "__main__":
    sys.exit(main())
