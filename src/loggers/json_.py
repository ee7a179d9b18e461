"""`json`: the run folder, the contract with users and with every other script.

    config.json           the resolved settings; running it again gives the same run
    log.jsonl             one record per optimizer step
    metrics.json          name -> number or null          metrics_detail.json   n, interval, unscored, reason of a null
    samples/<set>.jsonl   per-row values and generations  before/               the same three of the start model
    checkpoints/          the final model                 environment.json      written last
    lock                  there while the run is going
"""

import contextlib
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from core.files import UserError, append_jsonl, lock, write_json, write_jsonl, write_text
from loggers.base import LOGGERS, Results, RunLogger

OURS = ("config.json", "log.jsonl", "metrics.json", "metrics_detail.json", "environment.json", "samples", "before",
        "checkpoints", "lock")


@LOGGERS.register("json")
class JsonLogger(RunLogger):
    """Writes `<root>/<name>/`. A finished or broken run of that name is refused, or with `overwrite` removed first."""

    def __init__(self, root: str, name: str, overwrite: bool):
        self.folder = Path(root).expanduser() / name
        self.overwrite = overwrite

    @contextlib.contextmanager
    def open(self, config: dict) -> Iterator[None]:
        try:
            taken = self.folder.exists() and any(self.folder.iterdir())
            if taken and not self.overwrite:
                raise UserError(f"{self.folder} already holds a run; choose another logger.name, or set logger.overwrite true")
            with lock(self.folder / "lock"):
                self._clear()
                write_json(self.folder / "config.json", config)
                write_text(self.folder / "log.jsonl", "")
                yield
        except OSError as error:
            if error.filename is None or str(self.folder) not in str(error.filename):
                raise
            raise UserError(f"{self.folder}: cannot be written ({error.strerror}); choose another logger.json.root") from None

    def _clear(self) -> None:
        """Remove an earlier run, and only what a run writes: a folder with anything else in it is left alone."""
        strangers = sorted(path.name for path in self.folder.iterdir() if path.name not in OURS and not path.name.startswith("."))
        if strangers:
            raise UserError(f"{self.folder} holds files that are no run's ({', '.join(strangers[:3])}); choose another logger.name")
        for name in OURS:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            elif name != "lock":
                path.unlink(missing_ok=True)

    def step(self, record):
        append_jsonl(self.folder / "log.jsonl", {key: _finite(value) for key, value in record.items()})

    def evaluation(self, stage: str, results: Results):
        folder = self.folder / stage
        for name, rows in results.samples.items():
            write_jsonl(folder / "samples" / f"{name}.jsonl", rows)
        write_json(folder / "metrics_detail.json", results.detail)
        write_json(folder / "metrics.json", results.metrics)

    def model(self, model, tokenizer):
        """Saved beside its place and renamed, so that `checkpoints` is a whole model or absent."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".checkpoints.") as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            whole = Path(temporary).rename(self.folder / "checkpoints")
            whole.chmod(0o755)
            Path(temporary).mkdir()

    def environment(self, facts):
        write_json(self.folder / "environment.json", facts)


def _finite(value):
    """JSON has no NaN: a number that is none is written as null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
