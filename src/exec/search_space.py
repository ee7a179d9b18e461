"""What a sweep varies: ranges and choices of keys, read from words or a JSON file and checked by the config.

    unlearn.lr=1e-4..3e-3:log       a range, searched on a logarithmic scale
    unlearn.num_epochs=10..40       a range; of whole numbers where the key takes whole numbers
    unlearn.NPO.beta=.1,.2          choices (`a|b` where values hold commas)

In a file: {"unlearn.lr": "1e-4..3e-3:log", "unlearn.NPO.beta": [0.1, 0.2]}.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.files import UserError, read_json
from ..model.settings.run_settings import SECTIONS
from .child_runs import pair
from .config.aliases import hint
from .config.checks import Int, Optional
from .config.reader import ConfigError, StrictConfig, resolve_settings

RANGE = re.compile(r"(?P<low>[-+]?\.?\d[^,|]*?)\.\.(?P<high>[^,|:]+)(?P<log>:log)?")
DIGITS = 4
"""Significant digits of a searched number in the settings of a run."""


@dataclass(frozen=True)
class Dimension:
    """A key and the values to search: either choices, or a range.

    Args:
        key: the key, as `unlearn.lr`.
        choices: values as words of the command line; empty for a range.
        low, high: ends of a range, both included.
        log: search the range on a logarithmic scale.
        whole: search whole numbers only.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def distribution(self) -> Any:
        """The distribution of optuna."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if self.whole:
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log)
        return distributions.FloatDistribution(self.low, self.high, log=self.log)

    def text(self, value: Any) -> str:
        """A value as a word of the command line."""
        return value if isinstance(value, str) else f"{value:.{DIGITS}g}"

    def ends(self) -> list[str]:
        """The values whose checks stand for those of all."""
        return list(self.choices) or [self.text(self.low), self.text(self.high)]

    def holds(self, value: Any) -> Any:
        """The value as optuna has it where it lies within the dimension; None where it does not."""
        if self.choices:
            return next((choice for choice in self.choices if _same(choice, value)), None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value if self.low <= value <= self.high else None


def _same(choice: str, value: Any) -> bool:
    try:
        return float(choice) == float(value)
    except (TypeError, ValueError):
        return choice == _word(value)


def read_space(words: Sequence[str], file: str | None) -> list[Dimension]:
    """The dimensions of `--vary` and `--space`. UserError for an unknown key, a key that stands twice, or
    what is not a range or a list."""
    given = [(key, text, f"--vary {key}") for key, text in map(pair, words)]
    if file:
        tree = read_json(file)
        if not isinstance(tree, dict):
            raise UserError(f"{file}: expected an object of keys and their values")
        given += [(key, value, f"{file}: {key}") for key, value in tree.items() if key != "note"]
    keys = [key for key, _, _ in given]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise UserError(f"{twice} is varied twice; give its values once")
    config = StrictConfig()
    return [_dimension(config, key, value, place) for key, value, place in given]


def _dimension(config: StrictConfig, key: str, value: Any, place: str) -> Dimension:
    path = tuple(key.split("."))
    if path not in config.entries:
        known = [".".join(path) for path in config.entries]
        raise UserError(
            f"{place}: unknown key{hint(key, known) or '; --help all of unlearn_model.py lists all'}"
        )
    if isinstance(value, list) and value:
        return Dimension(key, _distinct(place, map(_word, value)))
    if not isinstance(value, str):
        raise UserError(f'{place}: expected a list of values or a range such as "1e-4..1e-2:log"')
    if found := RANGE.fullmatch(value):
        checker = config.entries[path].checker
        checker = checker.of if isinstance(checker, Optional) else checker
        return _range(key, found, isinstance(checker, Int), place)
    return Dimension(key, _distinct(place, value.split("|" if "|" in value else ",")))


def _distinct(place: str, values: Any) -> tuple[str, ...]:
    choices = tuple(values)
    if len(set(choices)) < len(choices):
        raise UserError(f"{place}: a value stands twice; give each once")
    return choices


def _range(key: str, found: re.Match, whole: bool, place: str) -> Dimension:
    try:
        low, high = float(found["low"]), float(found["high"])
    except ValueError:
        raise UserError(f"{place}: {found[0]!r} is not a range of numbers such as 1e-4..1e-2:log") from None
    log = bool(found["log"])
    if not low < high < float("inf"):
        raise UserError(f"{place}: the range must go from a number to a greater one, got {found[0]}")
    if log and low <= 0:
        raise UserError(f"{place}: a logarithmic range must lie above 0, got {found[0]}")
    if whole and (low != int(low) or high != int(high)):
        raise UserError(f"{place}: the key takes whole numbers, got {found[0]}")
    return Dimension(key, (), low, high, log, whole)


def _word(value: Any) -> str:
    """A JSON value as a word of the command line."""
    if isinstance(value, list):
        return ",".join(map(_word, value))
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class SearchedConfig:
    """A config file and the dimensions that have an effect on its method.

    Args:
        title: name in the tables.
        file: the config file.
        dimensions: what is varied.
        initial: key -> the file's own value.
    """

    title: str
    file: str
    dimensions: tuple[Dimension, ...]
    initial: dict[str, Any]


def searched_configs(
    files: Sequence[str], common: dict[str, str], space: Sequence[Dimension], asked: Collection[str] = ()
) -> list[SearchedConfig]:
    """Each config with its part of the space: keys of other methods are left out.

    Args:
        files: the config files.
        common: what holds for all runs.
        space: what is varied.
        asked: keys that must have an effect on one of them; a file of keys serves many methods.

    Raises:
        UserError: a file is wrong, or one of the keys that were asked for, or all keys, have no effect.
    """
    found, reasons = [], dict.fromkeys((one.key for one in space), "")
    for title, file in zip(config_titles(files), files):
        config = StrictConfig()
        try:
            resolve_settings(config, [file], common, {})
        except ConfigError as error:
            raise UserError(f"{title}:\n{error}") from None
        idle = {one.key: _why_idle(config, one.key) for one in space}
        reasons |= {key: reason for key, reason in idle.items() if reason}
        mine = tuple(one for one in space if not idle[one.key])
        initial = {one.key: config.value(tuple(one.key.split("."))) for one in mine}
        found.append(SearchedConfig(title, file, mine, initial))
    used = {one.key for config in found for one in config.dimensions}
    for key in reasons if not used else [key for key in reasons if key in asked and key not in used]:
        raise UserError(f"{key} has no effect on any of the configs: {reasons[key]}")
    return found


def _why_idle(config: StrictConfig, key: str) -> str:
    path, section = tuple(key.split(".")), key.rpartition(".")[0]
    if section not in SECTIONS and section not in config.active_sections():
        return f"{section} is no part of {config.method().name}"
    return config.why_unused(path)


def config_titles(files: Sequence[str]) -> list[str]:
    """Names of config files for tables, with their folders where two have the same name."""
    stems = [Path(file).stem for file in files]
    return [
        stem if stems.count(stem) == 1 else f"{Path(file).parent.name}-{stem}"
        for file, stem in zip(files, stems)
    ]
