"""Unlearning and evaluation from Python, with the settings and checks of the scripts.

from unlearnkit.api import unlearn

result = unlearn("MODEL", forget="forget.jsonl", retain="retain.jsonl", method="NPO+FT",
                 output="files/results/mine", **{"unlearn.lr": 1e-4})
result.metrics["forget/rougeL"], result.folder, result.model
"""

import contextlib
import filecmp
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from .core.files import UserError, json_text, write_jsonl
from .dataset.tables import SUFFIXES
from .exec.config.reader import StrictConfig, resolve_settings
from .exec.config.rules.data_rules import missing_files
from .model.settings.overall_keys import Overall
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
        detail: name -> {n, unscored, interval, reason, and further figures of some metrics}.
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
        model: a folder, a hub name, or a (model, tokenizer) pair. A pair, and rows that are not a data set's
            name, are written into `<output>-inputs`, so that the run can be repeated and resumed, and the
            pair itself stays as it is.
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
    if retain is None and not _is_name(forget) and _keeps_rows(method):
        raise UserError(f"retain: {method} trains on rows to keep; give them, or take another method")
    return _Call({"unlearn": {"unlearn_method": method}}, model, forget, retain, output, keys).run()


def evaluate(model: Any, forget: Rows, retain: Rows | None = None, output: Any = None, **keys: Any) -> Result:
    """Measure a model on rows. Arguments and result are those of `unlearn`, without a method."""
    base = {"unlearn": {"unlearn_method": "origin"}, "evaluate": {"before": False}}
    return _Call(base, model, forget, retain, output, keys).run()


def _keeps_rows(method: str) -> bool:
    """Does a method train on rows to keep? A wrong name is reported with everything else that is wrong."""
    try:
        parsed = parse_method(method)
    except UserError:
        return False
    objective = FORGET[parsed.forget]() if parsed.forget else None
    brings = objective and ("retain" in objective.parts or objective.own_retain())
    return bool(parsed.retain or brings)


@dataclass(frozen=True)
class _Call:
    """One call: what was given, checked in a temporary folder before anything is written beside the run."""

    base: dict[str, Any]
    model: Any
    forget: Rows
    retain: Rows | None
    output: Any
    keys: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> Result:
        from .model.run.hub_push import push_run
        from .model.run.unlearn_run import Unlearn

        folder = _folder(self.output)
        inputs = folder.with_name(f"{folder.name}-inputs")
        with tempfile.TemporaryDirectory() as temporary:
            trial = Path(temporary)
            settings = self._settings(folder, trial, _model_stand_in(self.model, trial))
            Unlearn(settings).prepared()  # rows, tokenizer, run folder: all that can be wrong before training
            self._keep(trial, inputs, resumes=settings.unlearn.resume_path is not None)
        outcome = Unlearn(self._placed(settings, inputs)).run()
        if settings.logger.push_to_hub and outcome.is_main and outcome.folder:
            push_run(outcome.folder, settings.logger.push_to_hub)
        before = outcome.before.metrics if outcome.before else None
        after = outcome.after
        return Result(outcome.model, outcome.tokenizer, after.metrics, after.detail, before, outcome.folder)

    def _settings(self, folder: Path, inputs: Path, model: str) -> Settings:
        """The checked settings of a run whose rows lie in `inputs`, where they are written first."""
        tree = {
            **self.base,
            **_rows(self.forget, self.retain, inputs),
            "overall": {"model_name": model},
            "logger": {"name": folder.name, "json": {"root": str(folder.parent)}},
        }
        config = StrictConfig()
        config.flags_source = config.defaults_source = SOURCE
        return resolve_settings(config, [], self.keys, tree, missing_files)

    def _keep(self, trial: Path, inputs: Path, resumes: bool) -> None:
        """Put the inputs of a run beside its folder. A run that is resumed has its own, which must be the
        same."""
        if resumes and inputs.exists():
            kept, given = (sorted(path.glob("rows/*")) for path in (inputs, trial))
            same = [path.name for path in kept] == [path.name for path in given]
            if not same or not all(map(_same_content, kept, given)):
                raise UserError(
                    f"unlearn.resume_path: the run began with other rows ({inputs / 'rows'}); give those, or"
                    " start again with logger.overwrite"
                )
            return
        if inputs.exists():
            shutil.rmtree(inputs)
        if (trial / "rows").exists():
            inputs.mkdir(parents=True)
            shutil.move(trial / "rows", inputs / "rows")

    def _placed(self, settings: Settings, inputs: Path) -> Settings:
        """The settings with the places where rows and model lie for good."""
        data, overall = settings.dataset, settings.overall
        if (inputs / "rows").exists():
            data = replace(data, data_dir=str(inputs / "rows"))
        return replace(
            settings, dataset=data, overall=replace(overall, model_name=_model(self.model, inputs, overall))
        )


def _same_content(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)


def _folder(output: Any) -> Path:
    """The run folder: the one that was named, or a new one under files/results."""
    if output is None:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        return Path("files/results") / f"run-{stamp}"
    if not isinstance(output, str | Path) or not Path(output).name:
        raise UserError(f"output: expected the path of a run folder, got {output!r}")
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
    names = {"forget_dataset_name": "Folder_forget"}
    _write_table(forget, folder, "forget")
    if retain is not None:
        _write_table(retain, folder, "retain")
        names["retain_dataset_name"] = "Folder_retain"
    return {"dataset": {"data_dir": str(folder), **names}}


def _is_name(rows: Rows) -> bool:
    if not isinstance(rows, str):
        return False
    return Path(rows).suffix not in SUFFIXES and not Path(rows).expanduser().exists()


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
    for number, row in enumerate(table):
        with _naming_row(stem, number):
            json_text(row)
    write_jsonl(folder / f"{stem}.jsonl", table)


@contextlib.contextmanager
def _naming_row(stem: str, number: int) -> Iterator[None]:
    """UserError naming a row that holds what JSON cannot."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UserError(f"{stem}: row {number} cannot be written as JSON: {error}") from None


def _pair(model: Any) -> tuple[Any, Any]:
    """A loaded model and its tokenizer."""
    try:
        loaded, tokenizer = model
        if not callable(loaded.save_pretrained) or not callable(tokenizer.save_pretrained):
            raise TypeError
        return loaded, tokenizer
    except (TypeError, ValueError, AttributeError):
        raise UserError(
            f"model: expected a folder, a hub name or a pair (model, tokenizer), got {type(model).__name__}"
        ) from None


def _model_stand_in(model: Any, inputs: Path) -> str:
    """The folder or hub name of a model; for a pair a folder that is enough to check settings and rows,
    without its weights."""
    if isinstance(model, str | Path):
        return str(model)
    loaded, tokenizer = _pair(model)
    loaded.config.save_pretrained(inputs / "model")
    tokenizer.save_pretrained(inputs / "model")
    (inputs / "model" / "model.safetensors").touch()
    return str(inputs / "model")


def _model(model: Any, inputs: Path, overall: Overall) -> str:
    """The folder or hub name of a model, as the settings have it; a pair is written into a folder."""
    if isinstance(model, str | Path):
        return overall.model_name
    if not (inputs / "model").exists():
        for part in _pair(model):
            part.save_pretrained(inputs / "model")
    return str(inputs / "model")
