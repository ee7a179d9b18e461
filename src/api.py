"""Unlearning and evaluation from Python, with the settings and checks of the scripts.

from unlearnkit.api import unlearn

result = unlearn("MODEL", forget="forget.jsonl", retain="retain.jsonl", method="NPO+FT",
                 output="files/results/mine", **{"unlearn.lr": 1e-4})
result.metrics["forget/rougeL"], result.folder, result.model
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .core.files import UserError, write_jsonl
from .dataset.tables import SUFFIXES
from .exec.config.reader import StrictConfig, resolve_settings
from .exec.config.rules.data_rules import missing_files
from .model.run.places import start_stamp
from .model.settings.run_settings import Settings
from .unlearn import FORGET, parse_method

Rows = str | Path | Sequence[Mapping[str, Any]] | Any
"""A JSON lines or CSV file, a list of dicts, a `datasets.Dataset`, or the name of a data set of this project
or the hub."""

SOURCE = "unlearnkit.api"
"""Where a setting came from, in errors."""


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Attributes:
        model: the run's model, trained or as it was loaded, in memory.
        tokenizer: its tokenizer.
        metrics: name -> number; None where a metric could not be measured, for the reason in `detail`.
        detail: name -> {n, unscored, interval, reason}.
        before: the metrics of the initial model; None when they were not asked for.
        folder: the run folder; None with overall.logger none.
    """

    model: Any
    tokenizer: Any
    metrics: Mapping[str, float | None]
    detail: Mapping[str, dict[str, Any]]
    before: Mapping[str, float | None] | None
    folder: Path | None


def unlearn(
    model: Any,
    forget: Rows,
    retain: Rows | None = None,
    method: str = "NPO+FT",
    output: Any = None,
    **keys: Any,
) -> Result:
    """Make a model forget rows, measure it before and after, and keep the run in a folder.

    Args:
        model: a folder, a hub name, or a (model, tokenizer) pair. A pair is written beside the run folder
            first, so that the run can be repeated and the pair itself stays as it is.
        forget: the rows to forget.
        retain: the rows to keep; a method with a retain objective needs them (the default retain set where
            `forget` is the name of a data set).
        method: as `unlearn.unlearn_method`: `NPO+FT`, `RMU`, `SimNPO+KL+SAM`, ...
        output: the run folder, which must not exist unless `logger.overwrite` is set; by default one under
            files/results.
        **keys: any setting by its name in config files, `**{"unlearn.lr": 1e-4}` or `unlearn={"lr": 1e-4}`.

    Returns:
        The model, its metrics and the run folder.

    Raises:
        UserError: for what the caller can mend, all complaints at once, before anything is written.
    """
    parsed = parse_method(method)
    objective = FORGET[parsed.forget]() if parsed.forget else None
    keeps = parsed.retain or (objective and ("retain" in objective.parts or objective.own_retain()))
    if keeps and retain is None and not _is_name(forget):
        raise UserError(f"retain: {parsed.name} trains on rows to keep; give them, or take another method")
    return _run({"unlearn": {"unlearn_method": method}}, model, forget, retain, output, keys)


def evaluate(model: Any, forget: Rows, retain: Rows | None = None, output: Any = None, **keys: Any) -> Result:
    """Measure a model on rows. Arguments and result are those of `unlearn`, without a method."""
    base = {"unlearn": {"unlearn_method": "origin"}, "evaluate": {"before": False}}
    return _run(base, model, forget, retain, output, keys)


def _run(base: dict, model: Any, forget: Rows, retain: Rows | None, output: Any, keys: dict) -> Result:
    from .model.run.unlearn_run import Unlearn

    folder = _folder(output)
    inputs = folder.with_name(f"{folder.name}-inputs")
    overwrites = keys.get("logger.overwrite") or keys.get("logger", {}).get("overwrite")
    if inputs.exists() and not overwrites:
        raise UserError(f"output: {inputs} exists; choose another output, or set logger.overwrite")
    try:
        settings = _settings(base, folder, inputs, (model, forget, retain), keys)
        outcome = Unlearn(settings).run()
    except BaseException:
        # What was written for a run is of no use where the run left nothing to resume.
        if not folder.exists():
            shutil.rmtree(inputs, ignore_errors=True)
        raise
    before = outcome.before.metrics if outcome.before else None
    after = outcome.after
    return Result(outcome.model, outcome.tokenizer, after.metrics, after.detail, before, outcome.folder)


def _folder(output: Any) -> Path:
    if output is None:
        return Path("files/results") / f"run-{start_stamp(1)}"
    return Path(output).expanduser()


def _rows(forget: Rows, retain: Rows | None, inputs: Path) -> dict:
    """The settings that name the rows. Rows that are not a data set's name are written into a folder of
    tables, as a user's own."""
    named = [_is_name(rows) for rows in (forget, retain) if rows is not None]
    if all(named):
        names = {"forget_dataset_name": forget, "retain_dataset_name": retain}
        return {"dataset": {key: name for key, name in names.items() if name is not None}}
    if any(named):
        raise UserError(
            "forget and retain: one is the name of a data set and the other rows of your own; give both in"
            " one of these ways"
        )
    folder = inputs / "rows"
    _write_table(forget, folder, "forget")
    if retain is not None:
        _write_table(retain, folder, "retain")
    names = {"forget_dataset_name": "Folder_forget"}
    if retain is not None:
        names["retain_dataset_name"] = "Folder_retain"
    return {"dataset": {"data_dir": str(folder), **names}}


def _is_name(rows: Rows) -> bool:
    return (
        isinstance(rows, str) and Path(rows).suffix not in SUFFIXES and not Path(rows).expanduser().exists()
    )


def _write_table(rows: Rows, folder: Path, stem: str) -> None:
    """A table of the user's own rows, in the form that was given."""
    if isinstance(rows, str | Path):
        path = Path(rows).expanduser()
        if path.suffix not in SUFFIXES or not path.is_file():
            raise UserError(f"{stem}: {path} is not a file of rows (.jsonl or .csv)")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / f"{stem}{path.suffix}")
        return
    try:
        table = [dict(row) for row in rows]
    except (TypeError, ValueError):
        raise UserError(
            f"{stem}: expected a file, a list of dicts, a datasets.Dataset or the name of a data set, got"
            f" {type(rows).__name__}"
        ) from None
    if not table:
        raise UserError(f"{stem}: there are no rows")
    write_jsonl(folder / f"{stem}.jsonl", table)


def _model(model: Any, inputs: Path) -> str:
    """The folder or hub name of a model; a pair of model and tokenizer is written to a folder."""
    if isinstance(model, str | Path):
        return str(model)
    try:
        loaded, tokenizer = model
        save = loaded.save_pretrained, tokenizer.save_pretrained
    except (TypeError, ValueError, AttributeError):
        raise UserError(
            f"model: expected a folder, a hub name or a pair (model, tokenizer), got {type(model).__name__}"
        ) from None
    for write in save:
        write(inputs / "model")
    return str(inputs / "model")


def _settings(base: dict, folder: Path, inputs: Path, given: tuple, keys: Mapping[str, Any]) -> Settings:
    """The checked settings of a run on `given`: model, forget and retain rows."""
    model, forget, retain = given
    tree = {
        **base,
        **_rows(forget, retain, inputs),
        "overall": {"model_name": _model(model, inputs)},
        "logger": {"name": folder.name, "json": {"root": str(folder.parent)}},
    }
    config = StrictConfig()
    config.flags_source = SOURCE
    return resolve_settings(config, [], dict(keys), tree, missing_files)
