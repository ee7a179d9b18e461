"""Logger `json`: the run folder, the contract with users and with all other scripts.

config.json           resolved settings; a run with them gives the same results
log.jsonl             one record per optimizer step
evaluations.jsonl     one record per evaluation while training
best.json             rule and figures of the best evaluated step
metrics.json          metric key -> number or null
metrics_detail.json   n, interval, unscored, the reason of a null, further figures of some metrics
samples/<set>.jsonl   per-row values and generated texts
judge.json            name of a judging language model, with its counts of requests and tokens
before/               metrics, details and samples of the initial model
checkpoints/          the final model; best/ where the best evaluated one is another
environment.json      written last of what was measured: a run with it is complete
weight_change.json    how far every weight tensor moved
report.html           all of it to look at
lock                  exists while the run is under way
"""

import contextlib
import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..core.files import (
    UserError,
    append_jsonl,
    lock,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
    write_text,
)
from ..core.provenance import write_provenance
from .logger import LOGGERS, Results, RunLocation, RunLogger
from .tensorboard_ import TensorBoardEvents

RUN_FOLDER_ENTRIES = (
    "config.json",
    "log.jsonl",
    "evaluations.jsonl",
    "best.json",
    "metrics.json",
    "metrics_detail.json",
    "judge.json",
    "environment.json",
    "weight_change.json",
    "report.html",
    "samples",
    "before",
    "checkpoints",
    "adapter",
    "lm_eval",
    "wandb",
    "tensorboard",
    "lock",
)

CONFIGS = ("config.json", "adapter_config.json")
"""Files by which a folder is recognised as a model, or an adapter."""

RESUME_KEYS = (
    *("unlearn.resume_path", "logger.name", "logger.overwrite", "logger.json.root", "overall.quiet"),
    *("overall.engine", "dataset.batch_size", "unlearn.gradient_accumulation_steps"),
)
"""Settings that may differ when a run is resumed. The last three spread the rows of a step over processes and
micro-batches; the trainer refuses another number of rows per step."""


@LOGGERS.register("json")
class JsonLogger(RunLogger):
    """Writes the run folder `<root>/<name>/`. A finished or interrupted run of that name is refused, or with
    `overwrite` removed first."""

    folder: Path
    config: dict

    def __init__(self, place: RunLocation):
        super().__init__(place)
        self.folder = Path(place.root).expanduser() / place.name
        self.events = TensorBoardEvents(self.folder / "tensorboard") if place.tensorboard else None

    @contextlib.contextmanager
    def open(self, config: dict, resume: bool = False) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                self.config = config
                self._begin(config, resume and (self.folder / "config.json").is_file(), stack)
            except OSError as error:
                raise UserError(
                    f"{self.folder}: cannot be written ({error.strerror}); choose another logger.json.root"
                ) from None
            if self.events:
                stack.callback(self.events.close)
            yield

    def check(self, resume: bool = False) -> None:
        """As in `RunLogger`; nothing is created or changed."""
        try:
            self.folder.exists()
        except OSError as error:
            raise UserError(
                f"{str(self.folder)[:80]}...: {error.strerror}; choose another logger.name, or another"
                " logger.json.root"
            ) from None
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; choose another logger.name or logger.json.root")
        place = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            what = "may not be written" if place.is_dir() else "is a file"
            raise UserError(f"{self.folder}: {place} {what}; choose another logger.json.root")
        # A run killed at its very beginning leaves no more than a lock and hidden files.
        if not self.folder.exists() or not any(_counts(path) for path in self.folder.iterdir()):
            return
        complete = (self.folder / "environment.json").is_file()
        if resume and complete:
            raise UserError(f"{self.folder} holds a whole run: there is nothing to resume")
        if resume and not (self.folder / "config.json").is_file():
            raise UserError(
                f"{self.folder} has no config.json, so its run cannot be resumed; choose another"
                " logger.name, or set logger.overwrite true in place of unlearn.resume_path"
            )
        if not resume and not self.place.overwrite and not self._is_redone():
            begun = (self.folder / "config.json").is_file()
            what = "a run;" if begun else "files;"
            if begun and not complete:
                what = "a run; it was interrupted: --unlearn.resume_path auto resumes it. Or"
            raise UserError(
                f"{self.folder} already holds {what} choose another logger.name, or set logger.overwrite true"
            )

    def _begin(self, config: dict, resume: bool, stack: contextlib.ExitStack) -> None:
        self.check(resume)
        stack.enter_context(lock(self.folder / "lock", "logger.name or logger.json.root"))
        for left in self.folder.glob(".checkpoints.*"):  # by a kill while saving
            shutil.rmtree(left)
        if resume:
            self._require_same_settings(config)
        else:
            if self._is_redone():
                self._require_same_settings(config)
            self._clear()
            write_json(self.folder / "config.json", config)
            write_text(self.folder / "log.jsonl", "")

    def _is_redone(self) -> bool:
        """Whether the folder holds an interrupted run that is done again."""
        begun = (self.folder / "config.json").is_file() and not (self.folder / "environment.json").is_file()
        return begun and self.place.redo and not self.place.overwrite

    def _require_same_settings(self, config: dict) -> None:
        """UserError where settings differ from the interrupted run's, except for `RESUME_KEYS`."""
        began = read_json(self.folder / "config.json")
        if not isinstance(began, dict):
            raise UserError(f"{self.folder / 'config.json'}: not the settings of a run")
        now, before = _flat(config), _flat(began)
        other = [
            key
            for key in sorted(now.keys() | before.keys())
            if now.get(key) != before.get(key) and key not in RESUME_KEYS
        ]
        if other:
            key, remedy = "unlearn.resume_path", "give the settings it began with (its config.json)"
            if self.place.redo:
                key, remedy = "logger.name", "choose another, or set logger.overwrite true"
            raise UserError(
                f"{key}: the interrupted run in {self.folder} had another {', '.join(other[:5])}; {remedy}"
            )

    def _clear(self) -> None:
        """Remove an earlier run. UserError, with nothing removed, for a folder with anything else in it."""
        foreign = sorted(
            path.name
            for path in self.folder.iterdir()
            if path.name not in RUN_FOLDER_ENTRIES and not path.name.startswith(".")
        )
        if foreign:
            raise UserError(
                f"{self.folder} holds files that do not belong to a run ({', '.join(foreign[:3])}); "
                "choose another logger.name"
            )
        if links := [name for name in RUN_FOLDER_ENTRIES if (self.folder / name).is_symlink()]:
            raise UserError(
                f"{self.folder / links[0]} is a link, and logger.overwrite removes nothing outside the run"
                " folder; remove the link or choose another logger.name"
            )
        for name in RUN_FOLDER_ENTRIES:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            elif name != "lock":  # held by this run by now
                path.unlink(missing_ok=True)

    def rewind(self, step: int):
        _cut_back(self.folder / "log.jsonl", step)
        if (self.folder / "evaluations.jsonl").is_file():
            _cut_back(self.folder / "evaluations.jsonl", step)

    def step(self, record):
        append_jsonl(self.folder / "log.jsonl", _finite(record))
        if self.events:
            self.events.step(record)

    def history(self, record):
        append_jsonl(self.folder / "evaluations.jsonl", _finite(record))
        if self.events:
            self.events.history(record)

    def read_history(self):
        path = self.folder / "evaluations.jsonl"
        return read_jsonl(path) if path.is_file() else []

    def best(self, facts, model=None, tokenizer=None):
        place = self.folder / "checkpoints/best"
        # An interrupted run may have left one of another step.
        shutil.rmtree(place, ignore_errors=True)
        if model is not None:
            self._save(place, model, tokenizer)
        write_json(self.folder / "best.json", _finite(facts))

    def evaluation(self, stage: str, results: Results):
        folder = self.folder / stage
        for name, rows in results.samples.items():
            write_jsonl(folder / "samples" / f"{name}.jsonl", rows)
        if results.judge:
            write_json(folder / "judge.json", results.judge)
        # metrics.json last: other scripts take its presence for a complete evaluation.
        write_json(folder / "metrics_detail.json", results.detail)
        write_json(folder / "metrics.json", results.metrics)
        if self.events:
            self.events.evaluation(stage, results)

    def model(self, model, tokenizer):
        self._save(self.folder / "checkpoints", model, tokenizer)

    def adapter(self, model, tokenizer, instead):
        self._save(self.folder / ("checkpoints" if instead else "adapter"), model, tokenizer)

    def _save(self, target: Path, *parts) -> None:
        """Save in a temporary folder beside the target, then move file by file, the config last: without it
        no half-moved folder is taken for a model."""
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".checkpoints.") as temporary:
            for part in parts:
                part.save_pretrained(temporary)
            write_provenance(Path(temporary), self.config)
            for path in sorted(Path(temporary).iterdir(), key=lambda path: path.name in CONFIGS):
                path.chmod(0o644)
                path.rename(target / path.name)

    def environment(self, facts):
        write_json(self.folder / "environment.json", facts)

    def report(self, path):
        if self.events:
            self.events.report(path)


def _counts(path: Path) -> bool:
    return path.name != "lock" and not path.name.startswith(".")


def _record(line: str) -> dict:
    """A record of the log; empty for a broken line."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else {}


def _flat(tree: dict, path: str = "") -> dict:
    """Nested settings as dotted keys."""
    found = {}
    for key, value in tree.items():
        found |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found


def _cut_back(path: Path, step: int) -> None:
    """Remove the records after a step from a log."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    # A kill may cut the last line, or come before the first: what follows a broken line is not used.
    records = itertools.takewhile(bool, map(_record, lines))
    write_jsonl(path, [record for record in records if record["step"] <= step])


def _finite(value):
    """The value with None for NaN and infinities, which JSON does not have, at any depth."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
